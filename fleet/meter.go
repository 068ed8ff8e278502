package fleet

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"

	"github.com/xinghuo-edge/xinghuo/fleet/internal/household"
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// meter is one simulated device. It outlives its connections.
type meter struct {
	fleet   *Fleet
	id      string
	offset  int // the row of its first reading
	session uint64

	mu        sync.Mutex // guards all below
	pace      pace
	backlog   backlog
	draining  bool // nothing more is measured
	connected bool
	refusal   *Refusal
	count     struct {
		connects, resent, rejected, hot, withheld, frames, faults, commands uint64
	}
}

// run keeps the meter connected until its readings are acknowledged after the
// fleet's end, the node refuses it, or the context ends.
func (m *meter) run(ctx context.Context) {
	wait := minBackoff
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		welcomed, err := m.connect(ctx)
		if err == nil {
			return
		}
		if refusal := (*refusedError)(nil); errors.As(err, &refusal) {
			m.mu.Lock()
			m.refusal = &Refusal{Meter: m.id, Code: refusal.code, Reason: refusal.reason}
			m.mu.Unlock()
			return
		}
		m.fleet.opts.Log.DebugContext(ctx, "meter disconnected", "device_id", m.id, "err", err)
		if welcomed {
			wait = minBackoff
		}
		// Half of it is drawn, so that a fleet does not come back as one.
		timer.Reset(wait/2 + rand.N(wait/2+1))
		wait = min(2*wait, maxBackoff)
		ending := m.fleet.ending
		for waiting := true; waiting; {
			select {
			case <-timer.C:
				waiting = false
			case <-ending:
				if m.drained() {
					return
				}
				ending = nil // it still has something to deliver
			case <-ctx.Done():
				return
			}
		}
	}
}

// drained ends the measuring and reports whether all is acknowledged.
func (m *meter) drained() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining = true
	return m.backlog.acked == m.backlog.measured
}

// welcome starts a connection.
func (m *meter) welcome(w *devicev1.Welcome) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &m.backlog
	window := uint64(w.GetWindow())
	if window == 0 || w.GetAckedSequence() > b.measured {
		m.count.faults++
		return errors.New("bad welcome: no window, or acknowledges what was not sent")
	}
	if own := uint64(m.fleet.opts.Window); own > 0 {
		window = min(window, own)
	}
	m.advance(w.GetAckedSequence())
	b.open(min(window, maxWindow))
	m.connected = true
	m.count.connects++
	return nil
}

// take returns the readings of the next frame, none when none may go out now.
func (m *meter) take(now time.Time, items []household.Item) []household.Item {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &m.backlog
	batch := uint64(m.fleet.opts.Batch)
	if b.written < b.measured { // left over from an earlier connection
		for range min(batch, b.measured-b.written, b.room()) {
			b.written++
			m.count.resent++
			items = append(items, m.item(b.written, b.at(b.written).at))
		}
		return m.frame(items)
	}
	if m.draining {
		return items
	}
	frames, late := m.pace.due(now)
	m.count.withheld += late * batch
	if frames == 0 {
		return items
	}
	if size := min(batch, b.window); b.room() < size {
		if !m.pace.closedLoop() {
			m.count.withheld += frames * batch
			m.pace.take(frames)
		}
		return items
	}
	m.pace.take(1)
	at, sent := now.UnixNano(), m.clock(now)
	for range min(batch, b.window) {
		b.written = b.measure(at, sent)
		it := m.item(b.written, at)
		if it.Hot {
			m.count.hot++
		}
		items = append(items, it)
	}
	return m.frame(items)
}

func (m *meter) frame(items []household.Item) []household.Item {
	if len(items) > 0 {
		m.count.frames++
	}
	return items
}

func (m *meter) item(sequence uint64, at int64) household.Item {
	every := uint64(m.fleet.opts.HotEvery)
	return household.Item{
		Sequence: sequence, Time: at,
		Row: (m.offset + int(sequence%uint64(m.fleet.encoder.Rows()))) % m.fleet.encoder.Rows(),
		Hot: every > 0 && sequence%every == 0,
	}
}

// wake returns when the next frame falls due; false means that there is only an
// acknowledgement to wait for.
func (m *meter) wake(now time.Time) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.draining || m.pace.closedLoop() || m.backlog.written < m.backlog.measured {
		return time.Time{}, false
	}
	return m.pace.wake(now), true
}

// clock is the time since the fleet's start, on the monotonic clock.
func (m *meter) clock(now time.Time) time.Duration { return now.Sub(m.fleet.epoch) }

// ack takes in an acknowledgement and reports whether the writer waits for it.
func (m *meter) ack(a *devicev1.Ack) (wanted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range a.GetRejections() {
		if m.backlog.reject(r.GetSequence()) {
			m.count.rejected++
		} else {
			m.count.faults++
		}
	}
	sequence := a.GetSequence()
	if sequence > m.backlog.measured {
		m.count.faults++
		sequence = m.backlog.measured
	}
	m.advance(sequence)
	// What the node had from an earlier connection need not go again.
	m.backlog.written = max(m.backlog.written, m.backlog.acked)
	return m.draining || m.pace.closedLoop() || m.backlog.written < m.backlog.measured
}

// advance counts readings up to a sequence as acknowledged; mu is held.
func (m *meter) advance(sequence uint64) {
	b := &m.backlog
	now := m.clock(time.Now())
	for b.acked < sequence {
		b.acked++
		m.fleet.acks.Record(now - b.at(b.acked).sent)
	}
}

func (m *meter) fault() {
	m.mu.Lock()
	m.count.faults++
	m.mu.Unlock()
}

// addTo adds the meter to a report.
func (m *meter) addTo(r *Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.connected {
		r.Connected++
	}
	if m.refusal != nil {
		r.Refused++
		if len(r.Refusals) < maxRefusals {
			r.Refusals = append(r.Refusals, *m.refusal)
		}
	}
	r.Sent += m.backlog.measured
	r.Rejected += m.count.rejected
	// The node covers a rejected reading by the same Ack that names it.
	acked := m.backlog.acked - min(m.backlog.acked, m.count.rejected)
	r.Acked += acked
	r.InFlight += m.backlog.measured - acked - m.count.rejected
	r.Resent += m.count.resent
	r.Hot += m.count.hot
	r.Withheld += m.count.withheld
	r.Frames += m.count.frames
	r.Faults += m.count.faults
	r.Commands += m.count.commands
	r.Reconnects += max(m.count.connects, 1) - 1
}
