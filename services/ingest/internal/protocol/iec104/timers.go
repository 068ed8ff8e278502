package iec104

import (
	"fmt"
	"time"
)

// Deadline returns when Tick is to be called at the latest. ok is false when
// nothing is waited for: the connection is stopped or has failed. It changes
// with each call of another method.
func (s *Session) Deadline() (at time.Time, ok bool) {
	first := func(start time.Time, d time.Duration, running bool) {
		if t := start.Add(d); running && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	switch s.state {
	case Connecting:
		return s.began.Add(s.cfg.T0), true
	case Stopped, Failed:
		return time.Time{}, false
	case Starting, Started, Stopping:
	}
	first(s.began, s.cfg.T1, s.state != Started)
	first(s.oldest(), s.cfg.T1, s.outstanding() > 0)
	first(s.testedAt, s.cfg.T1, s.testing)
	first(s.unackedSince, s.cfg.T2, s.unacked > 0)
	first(s.heard, s.cfg.T3, !s.testing)
	first(s.askedAt, s.cfg.Interrogation, s.asked)
	return at, ok
}

// oldest is when the oldest unacknowledged I frame was sent.
func (s *Session) oldest() time.Time { return s.sentAt[s.oldestAt] }

// Tick acts on the timers that have run out: t0 and t1 end the connection with
// ErrTimeout, t2 acknowledges, t3 tests the line. Before Deadline it does
// nothing.
func (s *Session) Tick(now time.Time) (Event, error) {
	over := func(start time.Time, d time.Duration) bool { return !now.Before(start.Add(d)) }
	switch s.state {
	case Stopped, Failed:
		return Event{}, nil
	case Connecting:
		if over(s.began, s.cfg.T0) {
			return s.timeout("t0, the connection", s.cfg.T0)
		}
		return Event{}, nil
	case Starting, Started, Stopping:
	}
	switch {
	case s.state == Starting && over(s.began, s.cfg.T1):
		return s.timeout("t1, STARTDT con", s.cfg.T1)
	case s.state == Stopping && over(s.began, s.cfg.T1):
		return s.timeout("t1, STOPDT con", s.cfg.T1)
	case s.testing && over(s.testedAt, s.cfg.T1):
		return s.timeout("t1, TESTFR con", s.cfg.T1)
	case s.outstanding() > 0 && over(s.oldest(), s.cfg.T1):
		return s.timeout(fmt.Sprintf("t1, acknowledgement of I frame %d", s.acked), s.cfg.T1)
	}
	if s.unacked > 0 && over(s.unackedSince, s.cfg.T2) {
		s.acknowledge()
	}
	if !s.testing && over(s.heard, s.cfg.T3) {
		s.testing, s.testedAt = true, now
		s.function(TestActivate)
	}
	if s.asked && over(s.askedAt, s.cfg.Interrogation) {
		s.asked = false
		return Event{Kind: InterrogationTimedOut}, nil
	}
	return Event{}, nil
}

func (s *Session) timeout(what string, d time.Duration) (Event, error) {
	s.state = Failed
	return Event{}, fmt.Errorf("%w: %s, %v", ErrTimeout, what, d)
}
