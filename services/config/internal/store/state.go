package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

const (
	// maxEntries and maxBytes (keys and values together) bound the settings of
	// one node: it has to run within 256 MB.
	maxEntries = 4096
	maxBytes   = 16 << 20
	// maxRemoved bounds the memory of what was deleted.
	maxRemoved = 4096
)

// errReplaced is an etcd whose history is not the one that this node has
// followed: following it would take newer settings back.
var errReplaced = errors.New("etcd's history does not continue what is known here: its data was replaced; to take it as it is, stop this service, remove its cache and start it")

// change is one event of etcd about one setting.
type change struct {
	setting.Entry
	deleted bool
}

// state is the settings of the node as far as they are known. A change is
// applied only if its revision is above what is known of its key, so that
// duplicates and reordered changes do no harm. It is not safe for concurrent
// use.
type state struct {
	entries map[setting.Key]setting.Entry
	removed map[setting.Key]int64 // revisions of deletions above floor
	// floor is the revision up to which every change was heard: one at or
	// below it is old.
	floor int64
	// revision is the highest that was heard; it never goes down.
	revision int64
	bytes    int
}

func newState() *state {
	return &state{entries: make(map[setting.Key]setting.Entry), removed: make(map[setting.Key]int64)}
}

// apply takes a change and reports whether it changed what is visible. An
// error refuses it and leaves everything as it was.
func (s *state) apply(c change) (visible bool, err error) {
	old, exists := s.entries[c.Key]
	if c.Revision <= max(s.floor, s.removed[c.Key], old.Revision) {
		return false, nil
	}
	if c.deleted {
		s.drop(c.Key)
		s.removed[c.Key] = c.Revision
		s.revision = max(s.revision, c.Revision)
		return exists, nil
	}
	if err := s.set(c.Entry); err != nil {
		return false, err
	}
	s.revision = max(s.revision, c.Revision)
	return true, nil
}

func (s *state) set(e setting.Entry) error {
	old, exists := s.entries[e.Key]
	if !exists && len(s.entries) >= maxEntries {
		return fmt.Errorf("%w: a node has at most %d settings", fault.ErrExhausted, maxEntries)
	}
	bytes := s.bytes + size(e)
	if exists {
		bytes -= size(old)
	}
	if bytes > maxBytes {
		return fmt.Errorf("%w: a node's settings have at most %d bytes, would be %d", fault.ErrExhausted, maxBytes, bytes)
	}
	s.entries[e.Key] = e
	s.bytes = bytes
	delete(s.removed, e.Key)
	return nil
}

func (s *state) drop(k setting.Key) {
	if old, ok := s.entries[k]; ok {
		s.bytes -= size(old)
		delete(s.entries, k)
	}
}

func size(e setting.Entry) int { return len(e.Service) + len(e.Name) + len(e.Value) }

// heard says that every change up to revision was offered to apply.
func (s *state) heard(revision int64) {
	s.revision = max(s.revision, revision)
	s.floor = max(s.floor, revision)
	for k, r := range s.removed {
		if r <= s.floor {
			delete(s.removed, k)
		}
	}
}

// prune keeps the memory of deletions bounded between two progress
// notifications. etcd sends in order: what is above the floor and at or below
// the highest revision was heard.
func (s *state) prune() {
	if len(s.removed) > maxRemoved {
		s.heard(s.revision)
	}
}

// snapshot is all that stands in etcd at one revision.
type snapshot struct {
	revision int64
	entries  []setting.Entry
	// kept are keys that are there with a value that is refused: the last good
	// one stays.
	kept map[setting.Key]bool
}

// resync makes the state equal to a snapshot and returns what changed, in
// order of revision, and what did not fit. A deletion gets the snapshot's
// revision: its own is not known any more.
func (s *state) resync(snap snapshot, now time.Time) (changes []change, refused map[setting.Key]error, err error) {
	if err := s.continues(snap); err != nil {
		return nil, nil, err
	}
	there := make(map[setting.Key]bool, len(snap.entries))
	for _, e := range snap.entries {
		there[e.Key] = true
	}
	var gone []change
	for k := range s.entries {
		if !there[k] && !snap.kept[k] {
			s.drop(k) // first, to make room
			gone = append(gone, change{setting.Entry{Key: k, Revision: snap.revision, Time: now}, true})
		}
	}
	slices.SortFunc(gone, func(a, b change) int { return cmp.Compare(a.String(), b.String()) })
	slices.SortFunc(snap.entries, byRevision)
	refused = make(map[setting.Key]error)
	for _, e := range snap.entries {
		if old, ok := s.entries[e.Key]; ok && e.Revision <= old.Revision {
			continue
		}
		if err := s.set(e); err != nil {
			refused[e.Key] = err
			continue
		}
		changes = append(changes, change{e, false})
	}
	s.heard(snap.revision)
	return append(changes, gone...), refused, nil
}

// continues reports whether a snapshot may follow the state in one history.
func (s *state) continues(snap snapshot) error {
	if snap.revision < s.revision {
		return fmt.Errorf("%w (it is at revision %d, %d is known)", errReplaced, snap.revision, s.revision)
	}
	for _, e := range snap.entries {
		old, ok := s.entries[e.Key]
		if e.Revision < max(old.Revision, s.removed[e.Key]) || ok && e.Revision == old.Revision && e.Value != old.Value {
			return fmt.Errorf("%w (%s is at revision %d, %d is known)", errReplaced, e.Key, e.Revision, max(old.Revision, s.removed[e.Key]))
		}
	}
	return nil
}

// sorted returns a service's settings (all with an empty service), in order of
// revision.
func (s *state) sorted(service string) []setting.Entry {
	var list []setting.Entry
	for k, e := range s.entries {
		if service == "" || k.Service == service {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, byRevision)
	return list
}

func byRevision(a, b setting.Entry) int {
	return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.String(), b.String()))
}
