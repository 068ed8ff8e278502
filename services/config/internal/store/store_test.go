package store_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/etcdtest"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/store"
)

func TestPutGetWatchDelete(t *testing.T) {
	s := start(t, etcdtest.Start(t).Endpoint(), t.TempDir())
	s.waitFresh(t)
	ingest, all := watch(t, s, "ingest"), watch(t, s, "")
	ingest.want("synced 0 stale=false")
	all.want("synced 0 stale=false")

	s.put(t, "a", "1")
	b := s.put(t, "b", "2")
	if _, err := s.Put(t.Context(), setting.Key{Service: "policy", Name: "p"}, "3", nil); err != nil {
		t.Fatal(err)
	}
	if revision, err := s.Delete(t.Context(), key("a"), nil); err != nil || revision <= b {
		t.Errorf("Delete(a) = %d, %v, want a revision above %d", revision, err, b)
	}
	ingest.want("put ingest/a=1", "put ingest/b=2", "deleted ingest/a")
	all.want("put ingest/a=1", "put ingest/b=2", "put policy/p=3", "deleted ingest/a")

	if _, _, err := s.Get(key("a")); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("Get(a) = %v, want ErrNotFound", err)
	}
	if _, err := s.Delete(t.Context(), key("a"), nil); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("Delete(a) again = %v, want ErrNotFound", err)
	}
	e, f, err := s.Get(key("b"))
	if err != nil || e.Value != "2" || e.Revision != b || e.Time.IsZero() || f.Stale || f.Synced.IsZero() {
		t.Errorf("Get(b) = %+v, %+v, %v, want 2 at revision %d, fresh", e, f, err, b)
	}
	watch(t, s, "").want("put ingest/b=2", "put policy/p=3", "synced 2 stale=false")
	late, err := s.Watch("", b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(late.Close)
	after := &watched{t: t, w: late, values: make(map[string]string)}
	after.want("put policy/p=3", "synced 2 stale=false")
}

func TestExpectedRevision(t *testing.T) {
	s := start(t, etcdtest.Start(t).Endpoint(), t.TempDir())
	s.waitFresh(t)
	at := func(n int64) *int64 { return &n }
	first, err := s.Put(t.Context(), key("a"), "1", at(0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), key("a"), "2", at(0)); !errors.Is(err, fault.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("which is %d, is 0", first)) {
		t.Errorf("Put(a, 0) = %v, want ErrConflict with %d", err, first)
	}
	second, err := s.Put(t.Context(), key("a"), "2", at(first))
	if err != nil || second <= first {
		t.Errorf("Put(a, %d) = %d, %v, want a higher revision", first, second, err)
	}
	if _, err := s.Put(t.Context(), key("a"), "3", at(first)); !errors.Is(err, fault.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("which is %d", second)) {
		t.Errorf("Put(a, old) = %v, want ErrConflict with %d", err, second)
	}
	if _, err := s.Put(t.Context(), key("none"), "3", at(7)); !errors.Is(err, fault.ErrConflict) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("Put(none, 7) = %v, want ErrConflict", err)
	}
	if _, err := s.Delete(t.Context(), key("a"), at(first)); !errors.Is(err, fault.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("which is %d", second)) {
		t.Errorf("Delete(a, old) = %v, want ErrConflict with %d", err, second)
	}
	if _, err := s.Delete(t.Context(), key("none"), at(first)); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("Delete(none) = %v, want ErrNotFound", err)
	}
	if _, err := s.Delete(t.Context(), key("a"), at(second)); err != nil {
		t.Errorf("Delete(a, %d) = %v", second, err)
	}
}

func TestSlowReaderIsCutOff(t *testing.T) {
	m := etcdtest.Start(t)
	s := start(t, m.Endpoint(), t.TempDir())
	s.waitFresh(t)
	slow, quick := watch(t, s, ""), watch(t, s, "")
	quick.want("synced 0 stale=false")
	c := client(t, m)
	const batch = 128 // etcd's limit of one Txn
	for i := 0; i <= store.Backlog; i += batch {
		var ops []clientv3.Op
		for j := range batch {
			ops = append(ops, clientv3.OpPut(prefix+fmt.Sprintf("ingest/n%d", j), fmt.Sprint(i)))
		}
		if _, err := c.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
		for range batch {
			quick.next()
		}
	}
	select {
	case <-slow.w.Ended():
	case <-time.After(soon):
		t.Fatal("slow reader was not cut off")
	}
	if _, err := slow.w.Next(t.Context()); !errors.Is(err, fault.ErrExhausted) {
		t.Errorf("Next() = %v, want ErrExhausted", err)
	}
	if st := s.Stats(); st.CutOff != 1 || st.Watchers != 1 {
		t.Errorf("Stats() = %+v, want one cut off and one left", st)
	}
}

func TestReaderBehindByBytesIsCutOff(t *testing.T) {
	s := start(t, etcdtest.Start(t).Endpoint(), t.TempDir())
	s.waitFresh(t)
	slow := watch(t, s, "")
	for i := range 9 {
		s.put(t, "big", `"`+strings.Repeat(fmt.Sprint(i), setting.MaxValue-2)+`"`)
	}
	select {
	case <-slow.w.Ended():
	case <-time.After(soon):
		t.Fatal("reader with 9 MiB before it was not cut off")
	}
}

func TestTooManyWatchers(t *testing.T) {
	s := start(t, etcdtest.Start(t).Endpoint(), t.TempDir())
	var first *store.Watcher
	for range store.MaxWatchers {
		w, err := s.Watch("", 0)
		if err != nil {
			t.Fatal(err)
		}
		first = w
	}
	if _, err := s.Watch("", 0); !errors.Is(err, fault.ErrExhausted) {
		t.Errorf("Watch() = %v, want ErrExhausted", err)
	}
	first.Close()
	if _, err := s.Watch("", 0); err != nil {
		t.Errorf("Watch() after a Close = %v", err)
	}
}

func TestAlienKeys(t *testing.T) {
	m := etcdtest.Start(t)
	c := client(t, m)
	bad := map[string]string{
		prefix + "sales/x":           "1",
		prefix + "ingest/../x":       "1",
		prefix + "ingest/UPPER":      "1",
		prefix + "ingest":            "1",
		prefix + "ingest/\xff":       "1",
		prefix + "ingest/notyaml":    "a: [",
		prefix + "ingest/notutf8":    "\xff",
		prefix + "ingest/x/" + "y/z": "1",
	}
	alien(t, c, "/xinghuo/site/node2/ingest/other", "1") // a neighbour's, not below our prefix
	alien(t, c, prefix+"ingest/good", "1")
	for k, v := range bad {
		alien(t, c, k, v)
	}
	s := start(t, m.Endpoint(), t.TempDir())
	s.waitFresh(t)
	w := watch(t, s, "")
	w.want("put ingest/good=1", "synced 1 stale=false")
	if st := s.Stats(); st.Ignored != len(bad) || st.Entries != 1 {
		t.Errorf("Stats() = %+v, want %d ignored and 1 setting", st, len(bad))
	}
	if reason := s.degraded.get("settings"); !strings.Contains(reason, fmt.Sprintf("%d key(s)", len(bad))) {
		t.Errorf("settings are reported as %q, want %d keys", reason, len(bad))
	}

	// A bad value for a good key: the last good one stays.
	alien(t, c, prefix+"ingest/good", "a: [")
	testkit.Eventually(t, soon, "the bad value to be ignored", func() bool { return s.Stats().Ignored == len(bad)+1 })
	if e, _, err := s.Get(key("good")); err != nil || e.Value != "1" {
		t.Errorf("Get(good) = %+v, %v, want the last good value", e, err)
	}
	for _, k := range append(slices.Collect(maps.Keys(bad)), prefix+"ingest/good") {
		remove(t, c, k)
	}
	w.want("deleted ingest/good")
	testkit.Eventually(t, soon, "the report to end", func() bool { return s.degraded.get("settings") == "" })
}

// TestBigSnapshot pages: more settings than one request asks for, and more
// bytes than gRPC's default limit of 4 MiB.
func TestBigSnapshot(t *testing.T) {
	m := etcdtest.Start(t)
	c := client(t, m)
	const count = 200
	for i := range count {
		alien(t, c, prefix+fmt.Sprintf("ingest/n%03d", i), `"`+strings.Repeat("x", 60_000)+`"`)
	}
	dir := t.TempDir()
	s := start(t, m.Endpoint(), dir)
	s.waitFresh(t)
	if st := s.Stats(); st.Entries != count {
		t.Errorf("Stats().Entries = %d, want %d", st.Entries, count)
	}
	s.stop()
	m.Stop()
	if st := start(t, m.Endpoint(), dir).Stats(); st.Entries != count {
		t.Errorf("Stats().Entries from the cache = %d, want %d", st.Entries, count)
	}
}

func TestBadInput(t *testing.T) {
	s := start(t, etcdtest.Start(t).Endpoint(), t.TempDir())
	s.waitFresh(t)
	minus := int64(-1)
	for name, err := range map[string]error{
		"put service":   second(s.Put(t.Context(), setting.Key{Service: "x", Name: "a"}, "1", nil)),
		"put value":     second(s.Put(t.Context(), key("a"), "[", nil)),
		"put revision":  second(s.Put(t.Context(), key("a"), "1", &minus)),
		"delete name":   second(s.Delete(t.Context(), key(".."), nil)),
		"watch service": second(s.Watch("x", 0)),
		"watch after":   second(s.Watch("", -1)),
	} {
		if !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: error = %v, want ErrInvalid", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
