package iec104_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/iec104"
)

var epoch = time.Unix(1_700_000_000, 0)

// line drives a Session from the station's side by hand.
type line struct {
	t    testing.TB
	s    *iec104.Session
	now  time.Time
	send uint16 // the station's N(S)
	recv uint16 // the station's N(R)
}

func newLine(t testing.TB, change func(*iec104.Config)) *line {
	t.Helper()
	cfg := iec104.Default()
	if change != nil {
		change(&cfg)
	}
	s, err := iec104.NewSession(cfg, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return &line{t: t, s: s, now: epoch}
}

// started is a line with data transfer.
func started(t testing.TB, change func(*iec104.Config)) *line {
	t.Helper()
	l := newLine(t, change)
	if err := l.s.Connected(l.now); err != nil {
		t.Fatal(err)
	}
	l.wants("680407000000")
	l.receives("68040b000000", iec104.Start)
	return l
}

func (l *line) wants(frames string) {
	l.t.Helper()
	if got, want := l.s.Output(), unhex(l.t, frames); !bytes.Equal(got, want) {
		l.t.Fatalf("output % x, want % x", got, want)
	}
}

func (l *line) receives(frame string, want iec104.Kind) iec104.Event {
	l.t.Helper()
	raw := unhex(l.t, frame)
	n, ev, err := l.s.Receive(raw, l.now)
	if err != nil || n != len(raw) || ev.Kind != want {
		l.t.Fatalf("Receive(%s) = %d, %+v, %v, want kind %d", frame, n, ev, err, want)
	}
	return ev
}

// reports has the station send a data unit.
func (l *line) reports(asdu string, want iec104.Kind) iec104.Event {
	l.t.Helper()
	raw := iec104.APDU{Format: iec104.FormatI, Send: l.send, Receive: l.recv, ASDU: unhex(l.t, asdu)}.Append(nil)
	l.send = (l.send + 1) % (1 << 15)
	n, ev, err := l.s.Receive(raw, l.now)
	if err != nil || n != len(raw) || ev.Kind != want {
		l.t.Fatalf("Receive(% x) = %d, %+v, %v, want kind %d", raw, n, ev, err, want)
	}
	return ev
}

func (l *line) fails(frame string, want error) {
	l.t.Helper()
	if _, ev, err := l.s.Receive(unhex(l.t, frame), l.now); !errors.Is(err, want) || l.s.State() != iec104.Failed {
		l.t.Fatalf("Receive(%s) = %+v, %v, want %v", frame, ev, err, want)
	}
}

// ticksIn holds that the next deadline is d away, goes there and ticks.
func (l *line) ticksIn(d time.Duration, want iec104.Kind, wantErr error) {
	l.t.Helper()
	l.s.Output()
	at, ok := l.s.Deadline()
	if !ok || at.Sub(l.now) != d {
		l.t.Fatalf("deadline in %v (%v), want %v", at.Sub(l.now), ok, d)
	}
	if ev, err := l.s.Tick(at.Add(-time.Nanosecond)); err != nil || ev.Kind != iec104.None || len(l.s.Output()) > 0 {
		l.t.Fatalf("Tick before the deadline: %+v, %v", ev, err)
	}
	l.now = at
	if ev, err := l.s.Tick(l.now); !errors.Is(err, wantErr) || ev.Kind != want {
		l.t.Fatalf("Tick = %+v, %v, want kind %d, %v", ev, err, want, wantErr)
	}
}

const singlePoint = "0101 0300 0100 010000 01"

func TestStartAndStop(t *testing.T) {
	l := started(t, nil)
	l.reports(singlePoint, iec104.Data)
	if err := l.s.Stop(l.now); err != nil {
		t.Fatal(err)
	}
	l.wants("680401000200 680413000000") // what came is acknowledged first
	l.reports(singlePoint, iec104.Data)
	l.wants("680401000400")
	l.receives("680423000000", iec104.Stop)
	if at, ok := l.s.Deadline(); ok || l.s.State() != iec104.Stopped {
		t.Errorf("stopped: deadline %v, state %d", at, l.s.State())
	}
	if err := l.s.Send([]byte{1}, l.now); !errors.Is(err, iec104.ErrState) {
		t.Errorf("Send when stopped: %v, want ErrState", err)
	}
	if _, _, err := l.s.Receive(nil, l.now); !errors.Is(err, iec104.ErrState) {
		t.Errorf("Receive when stopped: %v, want ErrState", err)
	}
}

func TestTimers(t *testing.T) {
	t.Run("t0", func(t *testing.T) { newLine(t, nil).ticksIn(30*time.Second, iec104.None, iec104.ErrTimeout) })
	t.Run("t1 of STARTDT", func(t *testing.T) {
		l := newLine(t, nil)
		if err := l.s.Connected(l.now); err != nil {
			t.Fatal(err)
		}
		l.ticksIn(15*time.Second, iec104.None, iec104.ErrTimeout)
	})
	t.Run("t1 of STOPDT", func(t *testing.T) {
		l := started(t, nil)
		if err := l.s.Stop(l.now); err != nil {
			t.Fatal(err)
		}
		l.ticksIn(15*time.Second, iec104.None, iec104.ErrTimeout)
	})
	t.Run("t1 of an I frame counts from the oldest", func(t *testing.T) {
		l := started(t, nil)
		for range 3 {
			if err := l.s.Send([]byte{1}, l.now); err != nil {
				t.Fatal(err)
			}
			l.now = l.now.Add(4 * time.Second)
		}
		l.receives("680401000200", iec104.None) // the first
		l.ticksIn(15*time.Second-8*time.Second, iec104.None, iec104.ErrTimeout)
	})
	t.Run("t2 acknowledges", func(t *testing.T) {
		l := started(t, nil)
		l.reports(singlePoint, iec104.Data)
		l.now = l.now.Add(time.Second)
		l.reports(singlePoint, iec104.Data)
		l.ticksIn(9*time.Second, iec104.None, nil)
		l.wants("680401000400")
		l.ticksIn(11*time.Second, iec104.None, nil) // t3, from the last frame
		l.wants("680443000000")
	})
	t.Run("t3 tests, and t1 of the test", func(t *testing.T) {
		l := started(t, nil)
		l.ticksIn(20*time.Second, iec104.None, nil)
		l.wants("680443000000")
		l.receives("680483000000", iec104.None)
		l.ticksIn(20*time.Second, iec104.None, nil)
		l.wants("680443000000")
		l.ticksIn(15*time.Second, iec104.None, iec104.ErrTimeout)
		if _, ok := l.s.Deadline(); ok {
			t.Error("a failed session has a deadline")
		}
	})
	t.Run("the station tests", func(t *testing.T) {
		l := started(t, nil)
		l.receives("680443000000", iec104.None)
		l.wants("680483000000")
	})
}

func TestReceiveWindow(t *testing.T) {
	l := started(t, nil)
	for i := range 17 {
		l.reports(singlePoint, iec104.Data)
		switch i {
		case 7:
			l.wants("680401001000")
		case 15:
			l.wants("680401002000")
		default:
			l.wants("")
		}
	}
	// An I frame of ours acknowledges what came.
	if err := l.s.Send(unhex(t, singlePoint), l.now); err != nil {
		t.Fatal(err)
	}
	l.wants("680e 0000 2200 " + singlePoint)
	if at, _ := l.s.Deadline(); at.Sub(l.now) != 15*time.Second {
		t.Errorf("deadline in %v, want that of t1: t2 is over", at.Sub(l.now))
	}
}

func TestSendWindow(t *testing.T) {
	l := started(t, func(c *iec104.Config) { c.K, c.W = 3, 2 })
	// Far enough that numbers wrap.
	for i := range 1<<15 + 10 {
		if err := l.s.Send([]byte{1}, l.now); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if i < 2 {
			continue
		}
		if err := l.s.Send([]byte{1}, l.now); !errors.Is(err, iec104.ErrWindow) {
			t.Fatalf("frame %d over the window: %v, want ErrWindow", i, err)
		}
		l.s.Output()
		l.recv = uint16(i-1) % (1 << 15)
		if _, _, err := l.s.Receive(iec104.APDU{Format: iec104.FormatS, Receive: l.recv}.Append(nil), l.now); err != nil {
			t.Fatalf("acknowledgement %d: %v", l.recv, err)
		}
		l.now = l.now.Add(time.Second)
		if at, ok := l.s.Deadline(); !ok || at.Sub(l.now) < 10*time.Second {
			t.Fatalf("frame %d: deadline in %v, want that of a frame at most 3 s old", i, at.Sub(l.now))
		}
	}
}

func TestReceiveNumbersWrap(t *testing.T) {
	l := started(t, nil)
	for range 1<<15 + 3 {
		l.reports(singlePoint, iec104.Data)
		l.s.Output()
	}
}

func TestOutOfStep(t *testing.T) {
	for name, frame := range map[string]string{
		"N(S) ahead":                     "680e 0200 0000 " + singlePoint,
		"N(R) of an I frame ahead":       "680e 0000 0200 " + singlePoint,
		"N(R) of an S frame ahead":       "680401000200",
		"N(R) of an S frame just before": "68040100feff",
	} {
		t.Run(name, func(t *testing.T) { started(t, nil).fails(frame, iec104.ErrSequence) })
	}
	t.Run("N(S) twice", func(t *testing.T) {
		l := started(t, nil)
		l.reports(singlePoint, iec104.Data)
		l.fails("680e 0000 0000 "+singlePoint, iec104.ErrSequence)
	})
	t.Run("N(R) back", func(t *testing.T) {
		l := started(t, nil)
		for range 2 {
			if err := l.s.Send([]byte{1}, l.now); err != nil {
				t.Fatal(err)
			}
		}
		l.receives("680401000400", iec104.None)
		l.fails("680401000200", iec104.ErrSequence)
	})
	t.Run("I before STARTDT con", func(t *testing.T) {
		l := newLine(t, nil)
		if err := l.s.Connected(l.now); err != nil {
			t.Fatal(err)
		}
		l.fails("680e 0000 0000 "+singlePoint, iec104.ErrState)
	})
	for name, frame := range map[string]string{"STARTDT act": "680407000000", "STARTDT con again": "68040b000000", "STOPDT con": "680423000000"} {
		t.Run(name, func(t *testing.T) { started(t, nil).fails(frame, iec104.ErrState) })
	}
	t.Run("not a frame", func(t *testing.T) { started(t, nil).fails("1634", iec104.ErrFrame) })
}

func TestInterrogation(t *testing.T) {
	const station = " 0100 000000 14"
	l := started(t, nil)
	ask := func() {
		t.Helper()
		if err := l.s.Interrogate(1, l.now); err != nil {
			t.Fatal(err)
		}
		l.recv++
		l.s.Output()
	}
	if err := l.s.Interrogate(1, l.now); err != nil {
		t.Fatal(err)
	}
	l.wants("680e 0000 0000 6401 0600" + station)
	l.recv++
	if err := l.s.Interrogate(2, l.now); !errors.Is(err, iec104.ErrState) {
		t.Errorf("second Interrogate: %v, want ErrState", err)
	}
	l.reports("6401 0700"+station, iec104.InterrogationConfirmed)
	ev := l.reports("0101 1400 0100 010000 01", iec104.Data)
	if ev.ASDU.Cause != iec104.Interrogated || ev.ASDU.Object(0).Value != 1 {
		t.Errorf("value of the interrogation: %+v", ev.ASDU)
	}
	l.reports("6401 0700 0200 000000 14", iec104.Skipped) // of another station
	l.reports("6401 0a00"+station, iec104.InterrogationEnded)
	l.reports("6401 0a00"+station, iec104.Skipped)

	ask()
	if ev := l.reports("6401 4700"+station, iec104.InterrogationRefused); ev.Err == nil {
		t.Error("refused without a reason")
	}
	ask()
	l.reports("6401 6e00"+station, iec104.InterrogationRefused) // cause 46, negative
}

func TestInterrogationTimesOut(t *testing.T) {
	l := started(t, func(c *iec104.Config) { c.Interrogation = 5 * time.Second })
	for range 2 {
		if err := l.s.Interrogate(1, l.now); err != nil {
			t.Fatal(err)
		}
		l.ticksIn(5*time.Second, iec104.InterrogationTimedOut, nil)
		l.receives("680443000000", iec104.None) // the connection lives
		l.s.Output()
	}
}

func TestNotUnderstood(t *testing.T) {
	l := started(t, nil)
	for _, asdu := range []string{"0201 0300 0100 010000 01", "0101 0300 0100 010000", "6401 0700 0100 000000 14"} {
		if ev := l.reports(asdu, iec104.Skipped); ev.Err == nil {
			t.Errorf("%s skipped without a reason", asdu)
		}
	}
	l.reports("4601 0400 0100 000000 00", iec104.Initialised)
}

func TestPartsOfFrames(t *testing.T) {
	l := started(t, nil)
	raw := unhex(t, "680e 0000 0000 "+singlePoint)
	for i := range raw {
		if n, ev, err := l.s.Receive(raw[:i], l.now); n != 0 || ev.Kind != iec104.None || err != nil {
			t.Errorf("Receive of %d bytes = %d, %+v, %v, want to wait", i, n, ev, err)
		}
	}
	if n, ev, err := l.s.Receive(append(raw, 0x68), l.now); n != len(raw) || ev.Kind != iec104.Data || err != nil {
		t.Errorf("Receive = %d, %+v, %v", n, ev, err)
	}
}

func TestConfig(t *testing.T) {
	if err := iec104.Default().Check(); err != nil {
		t.Errorf("Default: %v", err)
	}
	for name, change := range map[string]func(*iec104.Config){
		"k": func(c *iec104.Config) { c.K = 0 }, "k high": func(c *iec104.Config) { c.K = 1 << 15 }, "w": func(c *iec104.Config) { c.W = 13 },
		"t0": func(c *iec104.Config) { c.T0 = 0 }, "t1": func(c *iec104.Config) { c.T1 = 256 * time.Second }, "t2": func(c *iec104.Config) { c.T2 = c.T1 },
		"t3": func(c *iec104.Config) { c.T3 = 49 * time.Hour }, "interrogation": func(c *iec104.Config) { c.Interrogation = 0 },
	} {
		cfg := iec104.Default()
		change(&cfg)
		if _, err := iec104.NewSession(cfg, epoch); err == nil {
			t.Errorf("NewSession with a bad %s = nil, want an error", name)
		}
	}
}
