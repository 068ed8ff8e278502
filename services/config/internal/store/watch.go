package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

const (
	// MaxWatchers bounds how many may watch at once.
	MaxWatchers = 256
	// Backlog and backlogBytes bound how far a watcher may fall behind.
	Backlog      = 1024
	backlogBytes = 8 << 20
)

// Kind says what an Event is.
type Kind int

// The kinds of events.
const (
	// Put is a setting that was written, or is part of the snapshot.
	Put Kind = iota + 1
	// Deleted is a setting that was removed; its value is empty.
	Deleted
	// Synced ends the snapshot. It comes again each time etcd was away and
	// everything that changed meanwhile was sent.
	Synced
)

// Event is one event of a Watcher.
type Event struct {
	Kind Kind
	// Entry is the setting of Put and Deleted.
	Entry setting.Entry
	// Revision is the one after this event; it never goes down.
	Revision int64
	// Freshness and Entries, the count of settings that are watched, belong to
	// Synced.
	Freshness Freshness
	Entries   int
}

// Freshness says how far an answer can be trusted.
type Freshness struct {
	// Stale says that etcd is away: the values are the last that were known.
	Stale bool
	// Synced is when etcd was last heard; zero if never.
	Synced time.Time
}

// Watcher receives the events of one reader.
type Watcher struct {
	store   *Store
	service string
	head    []Event // the snapshot and its Synced; the reader's
	last    int64   // revision of the last event; guarded by store.mu
	live    chan Event
	backlog atomic.Int64  // bytes in live
	ended   chan struct{} // closed by the store when it drops the watcher
}

// Next returns the next event. It ends with ctx's error, or with
// fault.ErrExhausted when the reader was too slow.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	if err := w.err(); err != nil {
		return Event{}, err
	}
	if len(w.head) > 0 {
		e := w.head[0]
		w.head[0] = Event{} // lets the value go
		w.head = w.head[1:]
		return e, nil
	}
	select {
	case e := <-w.live:
		w.backlog.Add(-int64(size(e.Entry)))
		return e, nil
	case <-w.ended:
		return Event{}, w.err()
	case <-ctx.Done():
		return Event{}, fmt.Errorf("watch settings: %w", ctx.Err())
	}
}

// Ended is closed when the watcher was cut off. A reader that is stuck in
// sending is to give up then.
func (w *Watcher) Ended() <-chan struct{} { return w.ended }

func (w *Watcher) err() error {
	select {
	case <-w.ended:
		return fmt.Errorf("watch settings: %w: the reader fell behind by more than %d events or %d bytes", fault.ErrExhausted, Backlog, backlogBytes)
	default:
		return nil
	}
}

// Close ends the watcher.
func (w *Watcher) Close() {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	delete(w.store.watchers, w)
}

// Watch returns a watcher of a service's settings; empty means all. Its
// snapshot leaves out what is not newer than after.
func (s *Store) Watch(service string, after int64) (*Watcher, error) {
	if service != "" {
		if err := setting.CheckService(service); err != nil {
			return nil, err
		}
	}
	if after < 0 {
		return nil, fault.Invalid("after_revision", "must be at least 0, is %d", after)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watchers) >= MaxWatchers {
		return nil, fmt.Errorf("watch settings: %w: at most %d may watch at once", fault.ErrExhausted, MaxWatchers)
	}
	w := &Watcher{store: s, service: service, live: make(chan Event, Backlog), ended: make(chan struct{})}
	for _, e := range s.state.sorted(service) {
		if e.Revision > after {
			w.head = append(w.head, Event{Kind: Put, Entry: e, Revision: e.Revision})
		}
	}
	w.head = append(w.head, s.syncedEvent(service))
	w.last = s.state.revision
	s.watchers[w] = struct{}{}
	return w, nil
}

// syncedEvent is called with mu held.
func (s *Store) syncedEvent(service string) Event {
	n := 0
	for k := range s.state.entries {
		if service == "" || k.Service == service {
			n++
		}
	}
	return Event{Kind: Synced, Revision: s.state.revision, Freshness: s.freshness(), Entries: n}
}

// publish hands a change to those that watch its service. It is called with mu
// held and never waits.
func (s *Store) publish(c change) {
	e := Event{Kind: Put, Entry: c.Entry, Revision: c.Revision}
	if c.deleted {
		e.Kind = Deleted
	}
	s.counts.events[eventNames[e.Kind]]++
	for w := range s.watchers {
		if w.service == "" || w.service == c.Service {
			s.offer(w, e)
		}
	}
}

// publishSynced tells every watcher that etcd is heard again. It is called with
// mu held.
func (s *Store) publishSynced() {
	for w := range s.watchers {
		s.offer(w, s.syncedEvent(w.service))
	}
}

func (s *Store) offer(w *Watcher, e Event) {
	w.last = max(w.last, e.Revision)
	e.Revision = w.last
	bytes := int64(size(e.Entry))
	if w.backlog.Add(bytes) <= backlogBytes {
		select {
		case w.live <- e:
			return
		default:
		}
	}
	delete(s.watchers, w)
	close(w.ended)
	s.counts.cutOff++
}
