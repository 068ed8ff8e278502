package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
	// page is how many settings one request asks for: at etcd's limit of
	// 1.5 MiB each they still fit one answer.
	page = 64
	// missed is how many heartbeats may stay unanswered.
	missed = 3
)

// follow keeps the state equal to etcd until ctx ends.
func (s *Store) follow(ctx context.Context) {
	pause := firstPause
	for {
		synced, err := s.session(ctx)
		if ctx.Err() != nil {
			if !s.Stats().Stale {
				s.touch() // the time when etcd was last heard
			}
			return
		}
		if synced {
			pause = firstPause
		}
		if errors.Is(err, rpctypes.ErrCompacted) && synced {
			// etcd is there; only what was missed is gone from its history.
			s.Log.InfoContext(ctx, "etcd has compacted what was missed; comparing with a snapshot")
			continue
		}
		s.away(ctx, err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, maxPause)
	}
}

// away marks the settings as stale.
func (s *Store) away(ctx context.Context, err error) {
	s.mu.Lock()
	was := s.stale
	s.stale = true
	s.mu.Unlock()
	s.Degrade("etcd", err.Error())
	if !was {
		s.touch()
		s.Log.WarnContext(ctx, "etcd is away; going on with what is known", "err", err)
	}
}

// session takes a snapshot and then follows the watch until it breaks. synced
// says whether the snapshot was taken.
func (s *Store) session(ctx context.Context) (synced bool, err error) {
	client, err := s.dial(ctx)
	if err != nil {
		return false, err
	}
	snap, refused, err := s.read(ctx, client)
	if err != nil {
		return false, fmt.Errorf("read settings: %w", err)
	}
	if err := s.adopt(ctx, snap, refused); err != nil {
		return false, err
	}
	// The snapshot's own revision is watched once more, and its change known
	// already: etcd reports no progress to a watch that begins in the future, so
	// one from the next revision on would hear nothing of an etcd that nobody
	// writes to.
	return true, s.watch(ctx, client, snap.revision)
}

func (s *Store) dial(ctx context.Context) (*clientv3.Client, error) {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client != nil {
		return client, nil
	}
	client, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = client
	return client, nil
}

// read pages through everything below the prefix at one revision.
func (s *Store) read(ctx context.Context, client *clientv3.Client) (snapshot, map[string]error, error) {
	snap := snapshot{kept: make(map[setting.Key]bool)}
	refused := make(map[string]error)
	now := time.Now()
	from, end := s.Prefix, clientv3.GetPrefixRangeEnd(s.Prefix)
	bytes := 0
	for {
		resp, err := s.get(ctx, client, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(snap.revision))
		if err != nil {
			return snapshot{}, nil, err
		}
		if snap.revision == 0 {
			snap.revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			e, err := s.entry(kv, now)
			switch {
			case err == nil && bytes+size(e) <= 2*maxBytes: // what does not fit is refused later, with its name
				bytes += size(e)
				snap.entries = append(snap.entries, e)
				continue
			case err == nil:
				err = fmt.Errorf("a node's settings have at most %d bytes", maxBytes)
			}
			if e.Key != (setting.Key{}) {
				snap.kept[e.Key] = true
			}
			s.note(refused, string(kv.Key), err)
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return snap, refused, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) get(ctx context.Context, client *clientv3.Client, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.RequestTimeout)
	defer cancel()
	return client.Get(ctx, key, opts...)
}

// entry checks a key of etcd. With an error, the entry has its key if that
// alone is good.
func (s *Store) entry(kv *mvccpb.KeyValue, now time.Time) (setting.Entry, error) {
	k, err := setting.ParseKey(strings.TrimPrefix(string(kv.Key), s.Prefix))
	if err != nil {
		return setting.Entry{}, err
	}
	if err := setting.CheckValue(string(kv.Value)); err != nil {
		return setting.Entry{Key: k}, err
	}
	return setting.Entry{Key: k, Value: string(kv.Value), Revision: kv.ModRevision, Time: now}, nil
}

// adopt takes a snapshot and tells the watchers the difference.
func (s *Store) adopt(ctx context.Context, snap snapshot, refused map[string]error) error {
	now := time.Now()
	s.mu.Lock()
	changes, unfit, err := s.state.resync(snap, now)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	for k, err := range unfit {
		s.note(refused, s.Prefix+k.String(), err)
	}
	clear(s.ignored)
	for key, err := range refused {
		s.ignored[key] = err.Error()
	}
	s.counts.events["ignored"] += uint64(len(refused))
	s.counts.resyncs++
	s.stale, s.synced = false, now
	for _, c := range changes {
		s.publish(c)
	}
	s.publishSynced()
	s.reportIgnored(ctx)
	s.mu.Unlock()
	s.touch()
	s.Degrade("etcd", "")
	s.Log.InfoContext(ctx, "settings synced", "revision", snap.revision, "changes", len(changes), "ignored", len(refused))
	return nil
}

// watch follows the changes from a revision on. It returns when etcd was not
// heard for a while, or when the watch breaks.
func (s *Store) watch(ctx context.Context, client *clientv3.Client, from int64) error {
	// Without a leader a member would go on to serve a watch that hears nothing.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	limit := time.AfterFunc(s.RequestTimeout, cancel) // Watch itself waits for etcd's first answer
	responses := client.Watch(ctx, s.Prefix, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithProgressNotify())
	if !limit.Stop() {
		return fmt.Errorf("watch settings: no answer within %v", s.RequestTimeout)
	}
	beat := time.NewTicker(s.Heartbeat)
	defer beat.Stop()
	heard := time.Now()
	for {
		select {
		case resp, ok := <-responses:
			if !ok {
				return errors.New("watch settings: etcd ended the watch")
			}
			if err := resp.Err(); err != nil {
				return fmt.Errorf("watch settings: %w", err)
			}
			s.take(ctx, resp, time.Now())
			heard = time.Now() // after it: what took long here is not etcd's silence
		case <-beat.C:
			if silent := time.Since(heard); silent > missed*s.Heartbeat {
				return fmt.Errorf("watch settings: etcd not heard for %v", silent.Round(time.Millisecond))
			}
			// The answer comes as a response. A connection that is down shows
			// by its absence.
			ask, done := context.WithTimeout(ctx, s.Heartbeat)
			if err := client.RequestProgress(ask); err != nil && ask.Err() == nil {
				done()
				return fmt.Errorf("watch settings: %w", err)
			}
			done()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take applies one response of the watch.
func (s *Store) take(ctx context.Context, resp clientv3.WatchResponse, now time.Time) {
	changes, bad := make([]change, 0, len(resp.Events)), make(map[int]error)
	for i, ev := range resp.Events { // before the lock: decoding may take a while
		e, err := s.entry(ev.Kv, now)
		if ev.Type == mvccpb.DELETE && e.Key != (setting.Key{}) {
			e, err = setting.Entry{Key: e.Key, Revision: ev.Kv.ModRevision, Time: now}, nil
		}
		if err != nil {
			bad[i] = err
		}
		changes = append(changes, change{e, ev.Type == mvccpb.DELETE})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = now
	report := false
	for i, c := range changes {
		key, err, visible := string(resp.Events[i].Kv.Key), bad[i], false
		if err == nil {
			visible, err = s.state.apply(c)
		}
		switch {
		case c.deleted || err == nil:
			if _, was := s.ignored[clipKey(key)]; was {
				delete(s.ignored, clipKey(key))
				report = true
			}
		default:
			if len(s.ignored) < maxIgnored {
				s.ignored[clipKey(key)] = err.Error()
			}
			s.counts.events["ignored"]++
			report = true
		}
		switch {
		case visible:
			s.publish(c)
		case err == nil:
			s.counts.events["duplicate"]++
		}
	}
	if resp.IsProgressNotify() {
		s.state.heard(resp.Header.Revision)
	}
	s.state.prune()
	if report {
		s.reportIgnored(ctx)
	}
	if len(changes) > 0 {
		s.touch()
	}
}
