// Package store keeps a node's settings equal to those in etcd, and goes on
// with the last that it knew while etcd is away.
//
// etcd is the truth. One watch brings every change below the node's prefix; a
// change is taken only if its revision is above what is known of its key. What
// was missed, because the connection was lost or etcd has compacted it, is
// found by comparing with a snapshot, and only the difference is passed on.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/cache"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

// Cache keeps the settings across restarts.
type Cache interface {
	// Load returns what was saved last; ok is false when nothing was. What is
	// damaged is an error and gone.
	Load() (body cache.Body, ok bool, err error)
	// Save is durable when it returns nil.
	Save(cache.Body) error
}

// Options say how a Store works. All are needed.
type Options struct {
	Log *slog.Logger
	// Prefix is what stands before `<service>/<name>` in etcd; it ends in /.
	Prefix string
	// Dial makes an etcd client, which the store closes.
	Dial  func(context.Context) (*clientv3.Client, error)
	Cache Cache
	// RequestTimeout bounds one request to etcd.
	RequestTimeout time.Duration
	// Heartbeat is how often etcd is asked whether it is there. It counts as
	// away after three without an answer.
	Heartbeat time.Duration
	// Degrade reports a part that does not work; an empty reason that it does.
	Degrade func(component, reason string)
}

// Store is the settings of a node. Its methods may be called by several at
// once.
type Store struct {
	Options

	dirty chan struct{} // holds one token while the cache file is behind
	start time.Time

	mu       sync.Mutex // guards what follows
	state    *state
	stale    bool
	synced   time.Time
	client   *clientv3.Client // nil until the first dial worked
	watchers map[*Watcher]struct{}
	ignored  map[string]string // keys in etcd that break the rules, and why
	counts   counts
}

// New returns a store with what the cache keeps. It is stale until Run has
// heard etcd.
func New(o Options) *Store {
	s := &Store{
		Options: o, dirty: make(chan struct{}, 1), start: time.Now(), state: newState(), stale: true,
		watchers: make(map[*Watcher]struct{}), ignored: make(map[string]string),
		counts: counts{events: make(map[string]uint64)},
	}
	body, ok, err := s.Cache.Load()
	switch {
	case err != nil:
		s.counts.cacheFaults++
		s.Log.Error("cache refused", "err", err)
		s.Degrade("cache", err.Error())
	case ok:
		if err := s.restore(body); err != nil {
			s.state = newState() // all or nothing
			s.Log.Error("cache refused", "err", err)
			s.Degrade("cache", err.Error())
			break
		}
		s.synced = body.Synced
		s.Log.Info("cache loaded", "revision", body.Revision, "settings", len(body.Entries), "synced", body.Synced)
	}
	s.Degrade("etcd", "not heard yet")
	return s
}

func (s *Store) restore(body cache.Body) error {
	for _, e := range body.Entries {
		if err := s.state.set(e); err != nil {
			return fmt.Errorf("load cache: setting %s: %w", e.Key, err)
		}
	}
	s.state.heard(body.Revision)
	return nil
}

// Run follows etcd and keeps the cache file until ctx ends. It does not fail
// when etcd is away.
func (s *Store) Run(ctx context.Context) error {
	defer s.closeClient()
	var g errgroup.Group
	followed := make(chan struct{})
	g.Go(func() error {
		defer close(followed)
		s.follow(ctx)
		return nil
	})
	g.Go(func() error { // ends after follow, so that the last change is saved
		s.save(followed)
		return nil
	})
	return g.Wait()
}

func (s *Store) closeClient() {
	s.mu.Lock()
	client := s.client
	s.client = nil
	s.stale = true
	s.mu.Unlock()
	if client == nil {
		return
	}
	if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Warn("etcd client not closed in order", "err", err)
	}
}

// Get returns one setting. Errors: fault.ErrInvalid, fault.ErrNotFound.
func (s *Store) Get(k setting.Key) (setting.Entry, Freshness, error) {
	if err := k.Check(); err != nil {
		return setting.Entry{}, Freshness{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.state.entries[k]
	if !ok {
		note := ""
		if s.stale {
			note = "; etcd is away, it may be there by now"
		}
		return setting.Entry{}, Freshness{}, fmt.Errorf("%w: setting %s%s", fault.ErrNotFound, k, note)
	}
	return e, s.freshness(), nil
}

// freshness is called with mu held.
func (s *Store) freshness() Freshness { return Freshness{Stale: s.stale, Synced: s.synced} }

// counts are figures that only rise.
type counts struct {
	events      map[string]uint64 // by what became of a change
	resyncs     uint64
	cutOff      uint64
	cacheFaults uint64
	cacheSaves  uint64
}

var eventNames = map[Kind]string{Put: "put", Deleted: "deleted"}

// Stats are the store's figures at one moment.
type Stats struct {
	Revision int64
	Stale    bool
	// StaleFor is how long ago etcd was last heard, or, if never, how long the
	// store has been there; 0 when not stale.
	StaleFor time.Duration
	Watchers int
	Entries  int
	Bytes    int
	// Ignored is how many keys below the prefix break the rules.
	Ignored int
	// Events counts changes: put, deleted, duplicate and ignored.
	Events map[string]uint64
	// Resyncs counts comparisons with a snapshot.
	Resyncs uint64
	// CutOff counts watchers that were too slow.
	CutOff uint64
	// CacheFaults and CacheSaves count the cache file's failures and writes.
	CacheFaults, CacheSaves uint64
}

// Stats returns the store's figures.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Revision: s.state.revision, Stale: s.stale, Watchers: len(s.watchers),
		Entries: len(s.state.entries), Bytes: s.state.bytes, Ignored: len(s.ignored),
		Events: maps.Clone(s.counts.events), Resyncs: s.counts.resyncs, CutOff: s.counts.cutOff,
		CacheFaults: s.counts.cacheFaults, CacheSaves: s.counts.cacheSaves,
	}
	if s.stale {
		since := s.synced
		if since.IsZero() {
			since = s.start
		}
		st.StaleFor = max(0, time.Since(since))
	}
	return st
}

// body is what the cache file is to keep now.
func (s *Store) body() cache.Body {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cache.Body{Revision: s.state.revision, Synced: s.synced, Entries: slices.Clip(s.state.sorted(""))}
}
