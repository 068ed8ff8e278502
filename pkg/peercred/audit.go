package peercred

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// auditPeriod is how often one caller's refusals of one method get a line.
	// A line for each would let a caller who may do nothing fill the log, and so
	// push out of it what it did before.
	auditPeriod = time.Second
	// maxTallies bounds the callers and methods that are told apart; what is
	// beyond shares one tally.
	maxTallies = 256
)

// audit writes down who was refused: the first refusal at once, those that
// follow within a period in one line that says how many they were.
type audit struct {
	log *slog.Logger

	mu      sync.Mutex // guards tallies and what they hold
	tallies map[subject]*tally
}

// subject is whose refusals are told together; the zero one is everyone for
// whom there was no room.
type subject struct {
	uid    uint32
	method string
}

type tally struct {
	more uint64 // refusals since the last line
	last Peer   // of them the newest
}

func newAudit(log *slog.Logger) *audit {
	return &audit{log: log, tallies: make(map[subject]*tally)}
}

// refused writes or counts one refusal.
func (a *audit) refused(ctx context.Context, p Peer, known bool, method string) {
	if !a.first(p, method) {
		return
	}
	a.log.WarnContext(ctx, "call refused", "audit", true, "method", method, "uid", p.UID, "gid", p.GID, "pid", p.PID, "known", known)
}

// first reports whether a refusal is the first of its period, and counts it
// otherwise.
func (a *audit) first(p Peer, method string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := subject{p.UID, method}
	t := a.tallies[s]
	if t == nil && len(a.tallies) >= maxTallies {
		s = subject{}
		t = a.tallies[s]
	}
	if t != nil {
		t.more++
		t.last = p
		return false
	}
	a.tallies[s] = &tally{}
	time.AfterFunc(auditPeriod, func() { a.settle(s) })
	return true
}

// settle ends a period: with a line and another period if there was more, and
// for good if there was not.
func (a *audit) settle(s subject) {
	a.mu.Lock()
	t := a.tallies[s]
	more, last := t.more, t.last
	if more == 0 {
		delete(a.tallies, s)
	} else {
		t.more = 0
		time.AfterFunc(auditPeriod, func() { a.settle(s) })
	}
	a.mu.Unlock()
	switch {
	case more == 0:
	case s == subject{}:
		a.log.Warn("calls refused", "audit", true, "calls", more, "of", "various callers and methods", "last_uid", last.UID, "last_pid", last.PID)
	default:
		a.log.Warn("calls refused", "audit", true, "calls", more, "method", s.method, "uid", s.uid, "last_gid", last.GID, "last_pid", last.PID)
	}
}
