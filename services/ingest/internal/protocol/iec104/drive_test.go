package iec104_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/iec104"
)

// drive is how an owner runs a Session over a connection: until the Stop event
// or an error.
func drive(conn net.Conn, s *iec104.Session, on func(iec104.Event) error) error {
	buf := make([]byte, 0, 4*iec104.MaxAPDU)
	act := func(ev iec104.Event, err error) error {
		if err == nil && ev.Kind != iec104.None {
			err = on(ev)
		}
		if _, werr := conn.Write(s.Output()); err == nil {
			err = werr
		}
		return err
	}
	if err := act(iec104.Event{}, s.Connected(time.Now())); err != nil {
		return err
	}
	for {
		deadline, ok := s.Deadline()
		if !ok {
			return nil
		}
		if err := conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		var timeout net.Error
		if err != nil && (!errors.As(err, &timeout) || !timeout.Timeout()) {
			return err
		}
		buf = buf[:len(buf)+n]
		used := 0
		for {
			n, ev, err := s.Receive(buf[used:], time.Now())
			if err := act(ev, err); err != nil {
				return err
			}
			if used += n; n == 0 || ev.Kind == iec104.Stop {
				break
			}
		}
		buf = buf[:copy(buf, buf[used:])]
		if ev, err := s.Tick(time.Now()); true {
			if err := act(ev, err); err != nil {
				return err
			}
		}
	}
}

// station is a controlled station that answers U frames and interrogations.
func station(t *testing.T, conn net.Conn) {
	var send, recv uint16
	buf := make([]byte, iec104.MaxAPDU)
	write := func(a iec104.APDU) {
		if _, err := conn.Write(a.Append(nil)); err != nil {
			t.Errorf("station: %v", err)
		}
	}
	report := func(asdu string) {
		write(iec104.APDU{Format: iec104.FormatI, Send: send, Receive: recv, ASDU: unhex(t, asdu)})
		send++
	}
	for {
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return
		}
		n := int(buf[1]) + 2
		if _, err := io.ReadFull(conn, buf[2:n]); err != nil {
			return
		}
		a, _, err := iec104.ParseAPDU(buf[:n])
		if err != nil {
			t.Errorf("station hears % x: %v", buf[:n], err)
			return
		}
		switch {
		case a.Format == iec104.FormatI:
			recv++
			report("6401 0700 0100 000000 14")
			report("0d02 1400 0100 010000 0000803f 00 020000 00000040 00")
			report("6401 0a00 0100 000000 14")
		case a.Format == iec104.FormatU:
			write(iec104.APDU{Format: iec104.FormatU, Function: map[iec104.Function]iec104.Function{
				iec104.StartActivate: iec104.StartConfirm, iec104.StopActivate: iec104.StopConfirm, iec104.TestActivate: iec104.TestConfirm,
			}[a.Function]})
		}
	}
}

func TestWholeConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		// A pipe holds nothing: the two sides need a buffer between them.
		toUs := buffered(theirs)
		go station(t, toUs)
		s, err := iec104.NewSession(iec104.Default(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var values []float64
		begin, rounds := time.Now(), 0
		err = drive(ours, s, func(ev iec104.Event) error {
			switch ev.Kind {
			case iec104.Start:
				return s.Interrogate(1, time.Now())
			case iec104.Data:
				for i := range ev.ASDU.Count {
					values = append(values, ev.ASDU.Object(i).Value)
				}
			case iec104.InterrogationEnded:
				if rounds++; rounds == 3 {
					return s.Stop(time.Now())
				}
				return s.Interrogate(1, time.Now())
			case iec104.None, iec104.Stop, iec104.Initialised, iec104.InterrogationConfirmed:
			case iec104.InterrogationRefused, iec104.InterrogationTimedOut, iec104.Skipped:
				t.Errorf("event %+v", ev)
			}
			return nil
		})
		if err != nil || s.State() != iec104.Stopped || len(values) != 6 || values[1] != 2 {
			t.Errorf("drive: %v, state %d, values %v, want stopped with six", err, s.State(), values)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v: something waited for a timer", took)
		}
		ours.Close()
		theirs.Close()
	})
}

func TestSilentLineIsTestedThenLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() { // confirms STARTDT, then only listens
			buf := make([]byte, 64)
			if _, err := theirs.Read(buf); err != nil {
				t.Error(err)
			}
			if _, err := theirs.Write(unhex(t, "68040b000000")); err != nil {
				t.Error(err)
			}
			_, _ = io.Copy(io.Discard, theirs)
		}()
		s, err := iec104.NewSession(iec104.Default(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := drive(ours, s, func(iec104.Event) error { return nil }); !errors.Is(err, iec104.ErrTimeout) {
			t.Errorf("drive = %v, want ErrTimeout", err)
		}
		if took, want := time.Since(begin), 35*time.Second; took != want {
			t.Errorf("left after %v, want t3 + t1 = %v", took, want)
		}
		ours.Close()
		theirs.Close()
	})
}

// buffered is conn with writes that never wait for the reader.
func buffered(conn net.Conn) net.Conn {
	b := &bufferedConn{Conn: conn, out: make(chan []byte, 64)}
	go func() {
		for p := range b.out {
			if _, err := conn.Write(p); err != nil {
				return
			}
		}
	}()
	return b
}

type bufferedConn struct {
	net.Conn
	out chan []byte
}

func (b *bufferedConn) Write(p []byte) (int, error) {
	b.out <- append([]byte(nil), p...)
	return len(p), nil
}

// Read closes the way out when the other side is gone.
func (b *bufferedConn) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if err != nil {
		close(b.out)
	}
	return n, err
}

// FuzzSession plays any calls and any frames: a session never panics, holds its
// windows, answers each call with little, and leaves Failed never.
func FuzzSession(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07"), []byte{})
	for _, tt := range telegrams {
		f.Add([]byte{0, 1, 5, 2, 3, 5, 4}, unhex(f, tt.raw))
	}
	f.Fuzz(func(t *testing.T, calls, frames []byte) {
		cfg := iec104.Default()
		cfg.K, cfg.W = 3, 2
		s, err := iec104.NewSession(cfg, epoch)
		if err != nil {
			t.Fatal(err)
		}
		now, unanswered := epoch, 0
		var send uint16
		for _, call := range calls {
			now = now.Add(time.Duration(call>>4) * 3 * time.Second)
			before := s.State()
			var err error
			switch call & 7 {
			case 0:
				err = s.Connected(now)
			case 1:
				_, _, err = s.Receive(iec104.APDU{Format: iec104.FormatU, Function: iec104.StartConfirm}.Append(nil), now)
			case 2:
				if err = s.Send([]byte{1}, now); err == nil {
					unanswered++
				}
			case 3:
				_, _, err = s.Receive(iec104.APDU{Format: iec104.FormatI, Send: send, Receive: 0, ASDU: unhex(t, singlePoint)}.Append(nil), now)
				if err == nil {
					send++
				}
			case 4:
				_, err = s.Tick(now)
			case 5:
				var n int
				n, _, err = s.Receive(frames, now)
				frames = frames[n:]
				unanswered = 0 // it may have acknowledged
			case 6:
				err = s.Stop(now)
			case 7:
				if err = s.Interrogate(1, now); err == nil {
					unanswered++
				}
			}
			if before == iec104.Failed && s.State() != iec104.Failed {
				t.Fatal("a failed session lives again")
			}
			if unanswered > cfg.K {
				t.Fatalf("%d I frames out, window %d", unanswered, cfg.K)
			}
			if out := s.Output(); len(out) > iec104.MaxAPDU || (len(out) > 0 && err != nil && s.State() == iec104.Failed && before == iec104.Failed) {
				t.Fatalf("call %d: output % x with %v", call&7, out, err)
			}
			if at, ok := s.Deadline(); ok != (s.State() != iec104.Stopped && s.State() != iec104.Failed) || (ok && at.Sub(now) > cfg.Interrogation) {
				t.Fatalf("state %d: deadline in %v, %v", s.State(), at.Sub(now), ok)
			}
		}
	})
}
