package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

func key(name string) setting.Key { return setting.Key{Service: "ingest", Name: name} }

func put(name, value string, revision int64) change {
	return change{setting.Entry{Key: key(name), Value: value, Revision: revision}, false}
}

func del(name string, revision int64) change {
	return change{setting.Entry{Key: key(name), Revision: revision}, true}
}

// etcdModel is a history as etcd keeps it.
type etcdModel struct {
	history []change
}

// at returns what stands in etcd at a revision.
func (m *etcdModel) at(revision int64) map[setting.Key]setting.Entry {
	entries := make(map[setting.Key]setting.Entry)
	for _, c := range m.history {
		switch {
		case c.Revision > revision:
		case c.deleted:
			delete(entries, c.Key)
		default:
			entries[c.Key] = c.Entry
		}
	}
	return entries
}

func (m *etcdModel) snapshot(revision int64) snapshot {
	return snapshot{revision: revision, entries: slices.Collect(maps.Values(m.at(revision)))}
}

func drawHistory(t *rapid.T) *etcdModel {
	m := &etcdModel{}
	n := rapid.IntRange(0, 40).Draw(t, "changes")
	revision := int64(0)
	for i := range n {
		revision += rapid.Int64Range(1, 3).Draw(t, "gap") // others write to etcd too
		name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name")
		if rapid.IntRange(0, 2).Draw(t, "kind") == 0 {
			m.history = append(m.history, del(name, revision))
		} else {
			m.history = append(m.history, put(name, fmt.Sprint("v", i), revision))
		}
	}
	return m
}

func (m *etcdModel) last() int64 {
	if len(m.history) == 0 {
		return 0
	}
	return m.history[len(m.history)-1].Revision
}

// TestAnyOrderEndsTheSame offers a history's changes in any order, some of them
// often, with snapshots, restarts and progress notifications in between: it ends
// as the plain replay, applies each revision at most once and never goes back.
func TestAnyOrderEndsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawHistory(t)
		s := newState()
		applied := make(map[string]int)
		revision := int64(0)
		check := func() {
			if s.revision < revision {
				t.Fatalf("revision went from %d down to %d", revision, s.revision)
			}
			revision = s.revision
			bytes := 0
			for _, e := range s.entries {
				bytes += size(e)
			}
			if bytes != s.bytes {
				t.Fatalf("bytes = %d, want %d", s.bytes, bytes)
			}
		}
		offer := func(c change) {
			before := s.entries[c.Key].Revision
			visible, err := s.apply(c)
			if err != nil {
				t.Fatalf("apply(%v) = %v", c, err)
			}
			if visible {
				applied[fmt.Sprint(c.Key, c.Revision)]++
			}
			if now, ok := s.entries[c.Key]; ok && now.Revision < before {
				t.Fatalf("%v went from revision %d down to %d", c.Key, before, now.Revision)
			}
			check()
		}
		order := rapid.Permutation(append(slices.Clone(m.history), m.history...)).Draw(t, "order")
		for _, c := range order {
			offer(c)
			if m.last() > 0 && rapid.IntRange(0, 9).Draw(t, "resync") == 0 {
				// A snapshot that etcd gives now is not older than what it sent.
				at := rapid.Int64Range(max(s.revision, 1), max(m.last(), 1)).Draw(t, "at")
				changes, _, err := s.resync(m.snapshot(at), time.Time{})
				if err != nil {
					t.Fatalf("resync(%d) = %v", at, err)
				}
				for _, c := range changes {
					applied[fmt.Sprint(c.Key, c.Revision)]++
				}
				if !slices.IsSortedFunc(changes, func(a, b change) int { return int(a.Revision - b.Revision) }) {
					t.Fatalf("resync(%d) = %v, want it in order of revision", at, changes)
				}
				if !maps.Equal(s.entries, m.at(at)) {
					t.Fatalf("after resync(%d) = %v, want %v", at, s.entries, m.at(at))
				}
				check()
			}
		}
		if want := m.at(m.last()); !maps.Equal(s.entries, want) {
			t.Fatalf("entries = %v, want %v", s.entries, want)
		}
		for what, n := range applied {
			if n > 1 {
				t.Fatalf("%s was applied %d times, want once", what, n)
			}
		}
	})
}

// TestResyncEqualsReplay compares losing the middle of a history, in order,
// with hearing all of it.
func TestResyncEqualsReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawHistory(t)
		s := newState()
		seen := make(map[setting.Key]setting.Entry) // what a watcher makes of the events
		tell := func(c change) {
			if c.deleted {
				delete(seen, c.Key)
			} else {
				seen[c.Key] = c.Entry
			}
		}
		for i := 0; i < len(m.history); {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0: // cut off: skip some, then compare
				i = rapid.IntRange(i, len(m.history)).Draw(t, "to")
				at := s.revision
				if i > 0 {
					at = max(at, m.history[i-1].Revision)
				}
				changes, _, err := s.resync(m.snapshot(at), time.Time{})
				if err != nil {
					t.Fatalf("resync(%d) = %v", at, err)
				}
				for _, c := range changes {
					tell(c)
				}
			case 1:
				s.heard(s.revision)
			default:
				if visible, _ := s.apply(m.history[i]); visible {
					tell(m.history[i])
				}
				i++
			}
			if !maps.Equal(seen, s.entries) {
				t.Fatalf("a watcher knows %v, want %v", seen, s.entries)
			}
		}
		if want := m.at(m.last()); !maps.Equal(s.entries, want) {
			t.Fatalf("entries = %v, want %v", s.entries, want)
		}
	})
}

func TestReplacedHistoryIsRefused(t *testing.T) {
	tests := []struct {
		name string
		snap snapshot
	}{
		{"lower revision", snapshot{revision: 4}},
		{"key went back", snapshot{revision: 20, entries: []setting.Entry{put("a", "x", 4).Entry}}},
		{"same revision, other value", snapshot{revision: 20, entries: []setting.Entry{put("a", "y", 5).Entry}}},
		{"removed key is back", snapshot{revision: 20, entries: []setting.Entry{put("a", "x", 5).Entry, put("b", "x", 6).Entry}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newState()
			for _, c := range []change{put("a", "x", 5), del("b", 7)} {
				if _, err := s.apply(c); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := s.resync(tt.snap, time.Time{}); !errors.Is(err, errReplaced) {
				t.Errorf("resync = %v, want errReplaced", err)
			}
			if len(s.entries) != 1 || s.revision != 7 {
				t.Errorf("state = %v at %d, want it untouched", s.entries, s.revision)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	s := newState()
	for i := range maxEntries {
		if _, err := s.apply(put(fmt.Sprint(i), "", int64(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.apply(put("more", "", maxEntries+1)); !errors.Is(err, fault.ErrExhausted) {
		t.Errorf("apply of one too many = %v, want ErrExhausted", err)
	}
	if visible, err := s.apply(put("0", "new", maxEntries+2)); !visible || err != nil {
		t.Errorf("apply to a known key = %v, %v, want it taken", visible, err)
	}

	s = newState()
	big := strings.Repeat("x", setting.MaxValue)
	for i := range int64(15) {
		if _, err := s.apply(put(fmt.Sprint(i), big, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.apply(put("last", big, 100)); !errors.Is(err, fault.ErrExhausted) {
		t.Errorf("apply beyond %d bytes = %v, want ErrExhausted", maxBytes, err)
	}
}

func TestRemovedIsBounded(t *testing.T) {
	s := newState()
	for i := range 3 * maxRemoved {
		if _, err := s.apply(del(fmt.Sprint(i), int64(i+1))); err != nil {
			t.Fatal(err)
		}
		s.prune()
	}
	if len(s.removed) > maxRemoved {
		t.Errorf("removed = %d, want at most %d", len(s.removed), maxRemoved)
	}
	if visible, _ := s.apply(put("0", "old", 1)); visible {
		t.Error("apply of a change older than a deletion = visible, want it dropped")
	}
}
