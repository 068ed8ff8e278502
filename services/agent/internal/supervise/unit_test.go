package supervise

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// fakeProcess ends when it is told to; a stubborn one only by Kill.
type fakeProcess struct {
	pid      int
	stubborn bool
	onEnd    func(pid int)

	once sync.Once
	done chan struct{}
	exit Exit
}

func (p *fakeProcess) end(e Exit) {
	p.once.Do(func() {
		p.exit = e
		p.onEnd(p.pid)
		close(p.done)
	})
}
func (p *fakeProcess) PID() int              { return p.pid }
func (p *fakeProcess) Done() <-chan struct{} { return p.done }
func (p *fakeProcess) Exit() Exit            { return p.exit }
func (p *fakeProcess) Release()              {}
func (p *fakeProcess) Kill() error           { p.end(Exit{-1, "killed", ""}); return nil }
func (p *fakeProcess) Terminate() error {
	if !p.stubborn {
		p.end(Exit{0, "exit status 0", ""})
	}
	return nil
}

// fakeNode is a machine on which services live as long as lives says.
type fakeNode struct {
	mu       sync.Mutex // guards what follows
	lives    func(service string, n int) (time.Duration, Exit)
	stubborn bool
	mute     bool // nobody serves
	next     int
	running  map[string]*fakeProcess
	starts   []time.Time
	ended    []string
}

func newFakeNode() *fakeNode { return &fakeNode{running: make(map[string]*fakeProcess)} }

func (f *fakeNode) Start(service string) (Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starts = append(f.starts, time.Now())
	return f.add(service), nil
}

// add is for who holds mu.
func (f *fakeNode) add(service string) *fakeProcess {
	f.next++
	p := &fakeProcess{pid: 100 + f.next, stubborn: f.stubborn, done: make(chan struct{})}
	p.onEnd = func(int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ended = append(f.ended, service)
		delete(f.running, service)
	}
	f.running[service] = p
	if f.lives != nil {
		if life, exit := f.lives(service, f.next); life >= 0 {
			time.AfterFunc(life, func() { p.end(exit) })
		}
	}
	return p
}

func (f *fakeNode) Adopt(service string, pid int) (Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.running[service]; p != nil && p.pid == pid {
		return p, nil
	}
	return nil, errors.New("no such process")
}

func (f *fakeNode) PID(_ context.Context, service string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.running[service]; p != nil && !f.mute {
		return p.pid, nil
	}
	return 0, fault.ErrUnavailable
}

func (f *fakeNode) Serving(ctx context.Context, service string) error {
	_, err := f.PID(ctx, service)
	return err
}

func (f *fakeNode) startCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.starts)
}

func (f *fakeNode) get(service string) *fakeProcess {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running[service]
}

// supervise runs a supervisor over f in this bubble, until stop is called.
func supervise(t *testing.T, f *fakeNode, o Options) (s *Supervisor, stop func()) {
	t.Helper()
	s = New(o, f, f, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
}

func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestKilledServiceIsBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		s, stop := supervise(t, f, Options{Services: []string{"ingest"}})
		defer stop()
		for i := range 8 {
			advance(3 * time.Second)
			f.get("ingest").end(Exit{-1, "signal: killed", ""})
			advance(time.Second)
			st := s.List()[0]
			if st.State != Serving || st.Restarts != uint32(i+1) || st.LastExit != "signal: killed" {
				t.Fatalf("after kill %d: %+v, want it serving again within 1 s", i+1, st)
			}
		}
	})
}

func TestCrashLoopIsShownAndPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		f.lives = func(string, int) (time.Duration, Exit) { return time.Second, Exit{1, "exit status 1", "boom"} }
		s, stop := supervise(t, f, Options{Services: []string{"policy"}})
		defer stop()
		advance(10 * time.Second)
		st := s.List()[0]
		if st.State != CrashLooping || st.Backoff != maxPause || st.LastExit != "exit status 1: boom" || st.PID != 0 {
			t.Errorf("List = %+v, want a crash loop with a pause of %v", st, maxPause)
		}
		before := f.startCount()
		advance(10 * time.Minute)
		if n := f.startCount() - before; n < 18 || n > 20 {
			t.Errorf("%d starts in 10 minutes, want one each 31 s", n)
		}
		// Asked to, it starts at once, and its past is forgotten.
		f.mu.Lock()
		f.lives = nil
		f.mu.Unlock()
		if st, err := s.Restart(t.Context(), "policy"); err != nil || st.State != Serving {
			t.Errorf("Restart = %+v, %v, want it serving", st, err)
		}
	})
}

func TestMisconfiguredWaitsToBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		bad := true
		f.mute = true
		f.lives = func(string, int) (time.Duration, Exit) {
			if bad {
				return 0, Exit{2, "exit status 2", "bad configuration"}
			}
			return -1, Exit{}
		}
		s, stop := supervise(t, f, Options{Services: []string{"policy"}})
		defer stop()
		advance(time.Hour)
		st := s.List()[0]
		if st.State != Misconfigured || f.startCount() != 1 {
			t.Errorf("List = %+v after %d starts, want misconfigured after one", st, f.startCount())
		}
		if _, err := s.Restart(t.Context(), "policy"); !errors.Is(err, fault.ErrPrecondition) {
			t.Errorf("Restart while still bad = %v, want ErrPrecondition", err)
		}
		f.mu.Lock()
		bad, f.mute = false, false
		f.mu.Unlock()
		if st, err := s.Restart(t.Context(), "policy"); err != nil || st.State != Serving {
			t.Errorf("Restart = %+v, %v, want it serving", st, err)
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		f.stubborn = true
		s, stop := supervise(t, f, Options{Services: []string{"crypto"}, Grace: 5 * time.Second})
		defer stop()
		advance(time.Second)
		if _, err := s.Restart(t.Context(), "nobody"); !errors.Is(err, fault.ErrNotFound) {
			t.Errorf("Restart of an unknown service = %v, want ErrNotFound", err)
		}
		pid := s.List()[0].PID
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := make(chan error, 1)
		go func() {
			_, err := s.Restart(ctx, "crypto")
			got <- err
		}()
		synctest.Wait()
		if _, err := s.Restart(t.Context(), "crypto"); !errors.Is(err, fault.ErrConflict) {
			t.Errorf("Restart during a restart = %v, want ErrConflict", err)
		}
		if err := <-got; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Restart of a stubborn service = %v, want DeadlineExceeded", err)
		}
		advance(10 * time.Second) // it is killed after grace + 2 s
		if st := s.List()[0]; st.State != Serving || st.PID == pid || st.LastExit != "killed" {
			t.Errorf("List = %+v, want a new process after a kill", st)
		}
	})
}

func TestStopsInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		order := []string{"config", "policy", "ingest"}
		s, stop := supervise(t, f, Options{Services: order})
		advance(time.Second)
		stop()
		slices.Reverse(order)
		if !slices.Equal(f.ended, order) {
			t.Errorf("ended in the order %v, want %v", f.ended, order)
		}
		if _, err := s.Restart(t.Context(), "ingest"); !errors.Is(err, fault.ErrUnavailable) {
			t.Errorf("Restart after the end = %v, want ErrUnavailable", err)
		}
	})
}

func TestLeavesAndAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNode()
		o := Options{Services: []string{"ingest", "policy"}, Leave: true}
		_, stop := supervise(t, f, o)
		advance(time.Second)
		stop()
		pid := f.get("ingest").pid
		o.Leave = false
		s, stop := supervise(t, f, o)
		defer stop()
		advance(time.Second)
		st := s.List()[0]
		if !st.Adopted || st.PID != pid || st.State != Serving || f.startCount() != 2 {
			t.Errorf("List = %+v after %d starts, want pid %d adopted", st, f.startCount(), pid)
		}
		f.get("ingest").end(Exit{-1, "gone", ""})
		advance(time.Second)
		if st := s.List()[0]; st.Adopted || st.State != Serving || st.Restarts != 1 {
			t.Errorf("List = %+v, want a process of its own after the adopted one's end", st)
		}
	})
}
