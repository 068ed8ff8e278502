package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

// Put writes a setting to etcd and returns its revision; Get and Watch show it
// when it has come back. With expected the setting must have that revision; 0
// means that it must not exist. Errors: fault.ErrInvalid, ErrConflict,
// ErrExhausted when the node has too many settings, ErrUnavailable when etcd is
// away.
func (s *Store) Put(ctx context.Context, k setting.Key, value string, expected *int64) (int64, error) {
	err := errors.Join(k.Check(), setting.CheckValue(value))
	if expected != nil && *expected < 0 {
		err = errors.Join(err, fault.Invalid("expected_revision", "must be at least 0, is %d", *expected))
	}
	if err != nil {
		return 0, err
	}
	if err := s.fits(k, value); err != nil {
		return 0, fmt.Errorf("put %s: %w", k, err)
	}
	resp, err := s.txn(ctx, k, expected, clientv3.OpPut(s.Prefix+k.String(), value))
	if err != nil {
		return 0, fmt.Errorf("put %s: %w", k, err)
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("put %s: %w", k, conflict(resp, *expected))
	}
	s.Log.InfoContext(ctx, "setting written", "setting", k.String(), "revision", resp.Header.Revision)
	return resp.Header.Revision, nil
}

// fits refuses early what would be ignored when it comes back.
func (s *Store) fits(k setting.Key, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, exists := s.state.entries[k]
	count, bytes := len(s.state.entries), s.state.bytes+len(value)-len(old.Value)
	if !exists {
		count, bytes = count+1, bytes+len(k.Service)+len(k.Name)
	}
	if count > maxEntries || bytes > maxBytes {
		return fmt.Errorf("%w: a node has at most %d settings of %d bytes, would have %d of %d", fault.ErrExhausted, maxEntries, maxBytes, count, bytes)
	}
	return nil
}

// Delete removes a setting from etcd and returns the revision of that. Errors:
// fault.ErrNotFound, and as Put; an expected revision must be at least 1.
func (s *Store) Delete(ctx context.Context, k setting.Key, expected *int64) (int64, error) {
	err := k.Check()
	if expected != nil && *expected < 1 {
		err = errors.Join(err, fault.Invalid("expected_revision", "must be at least 1, is %d", *expected))
	}
	if err != nil {
		return 0, err
	}
	resp, err := s.txn(ctx, k, expected, clientv3.OpDelete(s.Prefix+k.String()))
	if err != nil {
		return 0, fmt.Errorf("delete %s: %w", k, err)
	}
	if !resp.Succeeded && len(resp.Responses[0].GetResponseRange().Kvs) > 0 {
		return 0, fmt.Errorf("delete %s: %w", k, conflict(resp, *expected))
	}
	if !resp.Succeeded || resp.Responses[0].GetResponseDeleteRange().Deleted == 0 {
		return 0, fmt.Errorf("delete: %w: setting %s", fault.ErrNotFound, k)
	}
	s.Log.InfoContext(ctx, "setting deleted", "setting", k.String(), "revision", resp.Header.Revision)
	return resp.Header.Revision, nil
}

// txn does op if the key has the expected revision, and reads the key
// otherwise.
func (s *Store) txn(ctx context.Context, k setting.Key, expected *int64, op clientv3.Op) (*clientv3.TxnResponse, error) {
	s.mu.Lock()
	client, stale := s.client, s.stale
	s.mu.Unlock()
	if client == nil || stale {
		return nil, fmt.Errorf("%w: etcd is away", fault.ErrUnavailable)
	}
	var ifs []clientv3.Cmp
	if expected != nil {
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(s.Prefix+k.String()), "=", *expected))
	}
	bounded, cancel := context.WithTimeout(ctx, s.RequestTimeout)
	defer cancel()
	resp, err := client.Txn(bounded).If(ifs...).Then(op).
		Else(clientv3.OpGet(s.Prefix+k.String(), clientv3.WithKeysOnly())).Commit()
	if err == nil {
		return resp, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("wait for etcd: %w; it may have been done", ctx.Err())
	}
	for _, k := range kinds {
		if errors.Is(err, k.etcd) {
			return nil, fmt.Errorf("%w: %w", k.fault, err)
		}
	}
	return nil, fmt.Errorf("%w: no answer of etcd, it may have been done: %w", fault.ErrUnavailable, err)
}

// kinds are the answers of etcd that trying again does not mend.
var kinds = []struct{ etcd, fault error }{
	{rpctypes.ErrPermissionDenied, fault.ErrPrecondition},
	{rpctypes.ErrAuthFailed, fault.ErrPrecondition},
	{rpctypes.ErrUserEmpty, fault.ErrPrecondition},
	{rpctypes.ErrRequestTooLarge, fault.ErrExhausted},
	{rpctypes.ErrNoSpace, fault.ErrExhausted},
}

func conflict(resp *clientv3.TxnResponse, expected int64) error {
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return fmt.Errorf("%w: expected_revision must be the current one, which is 0 (it does not exist), is %d", fault.ErrConflict, expected)
	}
	return fmt.Errorf("%w: expected_revision must be the current one, which is %d, is %d", fault.ErrConflict, kvs[0].ModRevision, expected)
}
