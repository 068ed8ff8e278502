package store_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/pkg/embedded/etcdd"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// member is an etcd that can be stopped and started again in its place.
type member struct {
	*etcdd.Member
	t       *testing.T
	dir     string
	address string
}

func startMember(t *testing.T) *member {
	m := &member{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	m.start()
	m.address = strings.TrimPrefix(m.Endpoint(), "http://")
	t.Cleanup(func() { m.Stop() })
	return m
}

func (m *member) start() {
	m.t.Helper()
	member, err := etcdd.Start(m.t.Context(), etcdd.Options{Dir: m.dir, Client: m.address})
	if err != nil {
		m.t.Fatal(err)
	}
	m.Member = member
}

func TestEtcdAwayAndBack(t *testing.T) {
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprintf("compact=%v", compact), func(t *testing.T) {
			t.Parallel() // stopping an etcd that is watched takes it seven seconds
			m := startMember(t)
			s := start(t, m.Endpoint(), t.TempDir())
			s.waitFresh(t)
			s.put(t, "stays", "1")
			s.put(t, "changes", "1")
			s.put(t, "goes", "1")
			w := watch(t, s, "")
			w.want("put ingest/stays=1", "put ingest/changes=1", "put ingest/goes=1", "synced 3 stale=false")

			m.Stop()
			s.waitStale(t)
			if reason := s.degraded.get("etcd"); reason == "" {
				t.Error("etcd is not reported as away")
			}
			e, f, err := s.Get(key("stays"))
			if err != nil || e.Value != "1" || !f.Stale || f.Synced.IsZero() {
				t.Errorf("Get(stays) = %+v, %+v, %v, want 1, stale", e, f, err)
			}
			if _, err := s.Put(t.Context(), key("stays"), "2", nil); !errors.Is(err, fault.ErrUnavailable) {
				t.Errorf("Put() = %v, want ErrUnavailable", err)
			}
			if _, err := s.Delete(t.Context(), key("stays"), nil); !errors.Is(err, fault.ErrUnavailable) {
				t.Errorf("Delete() = %v, want ErrUnavailable", err)
			}
			watch(t, s, "").want("put ingest/stays=1", "put ingest/changes=1", "put ingest/goes=1", "synced 3 stale=true")

			// Changed while the store cannot see: it is stopped from reconnecting
			// by an address of its own.
			address := m.address
			m.address = "127.0.0.1:0"
			m.start()
			c := client(t, m.Member)
			alien(t, c, prefix+"ingest/changes", "2")
			remove(t, c, prefix+"ingest/goes")
			last := alien(t, c, prefix+"ingest/new", "1")
			if compact {
				if _, err := c.Compact(t.Context(), last); err != nil {
					t.Fatal(err)
				}
			}
			m.Stop()
			m.address = address
			m.start()
			s.waitFresh(t)
			w.want("put ingest/changes=2", "put ingest/new=1", "deleted ingest/goes", "synced 3 stale=false")
			if s.degraded.get("etcd") != "" {
				t.Errorf("etcd is reported as away: %s", s.degraded.get("etcd"))
			}
			s.put(t, "stays", "2")
			w.want("put ingest/stays=2")
		})
	}
}

func TestStartWithoutEtcd(t *testing.T) {
	m, dir := startMember(t), t.TempDir()
	s := start(t, m.Endpoint(), dir)
	s.waitFresh(t)
	revision := s.put(t, "a", "1")
	s.stop()
	m.Stop()

	s = start(t, m.Endpoint(), dir)
	e, f, err := s.Get(key("a"))
	if err != nil || e.Value != "1" || e.Revision != revision || !f.Stale || f.Synced.IsZero() {
		t.Errorf("Get(a) = %+v, %+v, %v, want 1 at revision %d, stale", e, f, err, revision)
	}
	if st := s.Stats(); st.Revision < revision || st.StaleFor <= 0 {
		t.Errorf("Stats() = %+v, want revision %d and its age", st, revision)
	}
	w := watch(t, s, "")
	w.want("put ingest/a=1", "synced 1 stale=true")
	m.start()
	s.waitFresh(t)
	w.want("synced 1 stale=false")
	s.put(t, "a", "2")
	w.want("put ingest/a=2")
}

func TestNeverHeardAndNoCache(t *testing.T) {
	m := startMember(t)
	m.Stop()
	s := start(t, m.Endpoint(), t.TempDir())
	w := watch(t, s, "")
	w.want("synced 0 stale=true")
	if _, err := s.Put(t.Context(), key("a"), "1", nil); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("Put() = %v, want ErrUnavailable", err)
	}
	m.start()
	alien(t, client(t, m.Member), prefix+"ingest/a", "1")
	s.waitFresh(t)
	for w.values["ingest/a"] != "1" { // before or after the snapshot was taken
		w.next()
	}
}

func TestDamagedCache(t *testing.T) {
	m, dir := startMember(t), t.TempDir()
	s := start(t, m.Endpoint(), dir)
	s.waitFresh(t)
	s.put(t, "a", "1")
	s.put(t, "b", "2")
	s.stop()
	path := dir + "/cache.json"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(raw), `"value":"2"`, `"value":"3"`, 1)
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Stop()

	s = start(t, m.Endpoint(), dir)
	if st := s.Stats(); st.Entries != 0 || st.CacheFaults != 1 {
		t.Errorf("Stats() = %+v, want nothing taken from a damaged cache", st)
	}
	if reason := s.degraded.get("cache"); !strings.Contains(reason, "sha256") {
		t.Errorf("cache is reported as %q, want its sha256", reason)
	}
	m.start()
	s.waitFresh(t)
	testkit.Eventually(t, soon, "the cache to be whole again", func() bool { return s.degraded.get("cache") == "" })
	if st := s.Stats(); st.Entries != 2 {
		t.Errorf("Stats() = %+v, want both settings back", st)
	}
}

func TestReplacedEtcdIsRefused(t *testing.T) {
	t.Parallel()
	m, dir := startMember(t), t.TempDir()
	s := start(t, m.Endpoint(), dir)
	s.waitFresh(t)
	for range 5 {
		s.put(t, "a", "1")
	}
	m.Stop()
	s.waitStale(t)
	m.dir = t.TempDir()
	m.start()
	testkit.Eventually(t, soon, "the new etcd to be refused", func() bool {
		return strings.Contains(s.degraded.get("etcd"), "was replaced")
	})
	if e, f, err := s.Get(key("a")); err != nil || e.Value != "1" || !f.Stale {
		t.Errorf("Get(a) = %+v, %+v, %v, want 1, stale", e, f, err)
	}
}
