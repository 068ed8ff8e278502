// Package ledger counts every reading that ingest takes in, and what became of
// it.
package ledger

import (
	"maps"
	"sync"
	"time"
)

// Ledger is the loss ledger. At every moment
// Received = Delivered + Rejected + InFlight + sum(Dropped).
type Ledger struct {
	// Latency is from a frame's arrival to its acknowledgement.
	Latency Latency

	since time.Time

	mu      sync.Mutex // guards now
	now     Figures
	refused map[string]uint64
}

// Figures are the ledger's figures at one moment.
type Figures struct {
	Received    uint64
	Delivered   uint64
	Rejected    uint64
	InFlight    uint64
	Dropped     map[string]uint64
	Duplicates  uint64
	Unevaluated uint64
	Refused     map[string]uint64
	Since       time.Time
}

// New returns an empty ledger.
func New() *Ledger {
	return &Ledger{since: time.Now(), now: Figures{Dropped: make(map[string]uint64)}, refused: make(map[string]uint64)}
}

// Take counts new readings in, and those that were sent again.
func (l *Ledger) Take(fresh, duplicates int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.Received += uint64(fresh)
	l.now.InFlight += uint64(fresh)
	l.now.Duplicates += uint64(duplicates)
}

// Done counts readings out that are handled for good.
func (l *Ledger) Done(delivered, rejected int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.Delivered += uint64(delivered)
	l.now.Rejected += uint64(rejected)
	l.now.InFlight -= uint64(delivered + rejected)
}

// Drop counts readings out that are lost.
func (l *Ledger) Drop(reason string, n int) {
	if n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.Dropped[reason] += uint64(n)
	l.now.InFlight -= uint64(n)
}

// Unevaluated counts readings that went on without a verdict.
func (l *Ledger) Unevaluated(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.Unevaluated += uint64(n)
}

// Refuse counts a frame or connection that was turned away. Reasons are
// constants of the code, so that their number is bounded.
func (l *Ledger) Refuse(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[reason]++
}

// Figures returns a copy that is consistent in itself.
func (l *Ledger) Figures() Figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.now
	f.Dropped, f.Refused, f.Since = maps.Clone(l.now.Dropped), maps.Clone(l.refused), l.since
	return f
}
