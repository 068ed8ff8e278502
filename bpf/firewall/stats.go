package firewall

import "fmt"

// Count is a number of frames and their length in bytes, from the Ethernet
// header on.
type Count struct {
	Packets uint64
	Bytes   uint64
}

func (c Count) plus(d Count) Count {
	return Count{Packets: c.Packets + d.Packets, Bytes: c.Bytes + d.Bytes}
}

// Stats counts the frames since the rules were first pinned. Each frame is in
// exactly one of the fields. They are read one after the other, so while
// traffic flows the sum may be a few frames behind.
type Stats struct {
	PassedRule       Count // an Allow rule matched
	PassedDefault    Count // no rule matched and the default is Allow
	PassedExempt     Count // not IP, or IPv6 neighbour discovery
	DroppedRule      Count // a Deny rule matched
	DroppedDefault   Count // no rule matched and the default is Deny
	DroppedMalformed Count // cut short, contradictory, or more than two VLAN tags
}

// Passed returns all frames handed to the network stack.
func (s Stats) Passed() Count {
	return s.PassedRule.plus(s.PassedDefault).plus(s.PassedExempt)
}

// Dropped returns all frames dropped.
func (s Stats) Dropped() Count {
	return s.DroppedRule.plus(s.DroppedDefault).plus(s.DroppedMalformed)
}

// Seen returns all frames that the interface received: Passed plus Dropped.
func (s Stats) Seen() Count { return s.Passed().plus(s.Dropped()) }

// Stats returns the counters, summed over all CPUs. Errors: ErrClosed.
func (f *Firewall) Stats() (Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Stats{}, fmt.Errorf("read counters: %w", ErrClosed)
	}
	var s Stats
	for outcome, sum := range map[filterOutcome]*Count{
		filterOutcomeOUTCOME_PASSED_RULE:       &s.PassedRule,
		filterOutcomeOUTCOME_PASSED_DEFAULT:    &s.PassedDefault,
		filterOutcomeOUTCOME_PASSED_EXEMPT:     &s.PassedExempt,
		filterOutcomeOUTCOME_DROPPED_RULE:      &s.DroppedRule,
		filterOutcomeOUTCOME_DROPPED_DEFAULT:   &s.DroppedDefault,
		filterOutcomeOUTCOME_DROPPED_MALFORMED: &s.DroppedMalformed,
	} {
		var perCPU []filterCounter
		if err := f.objs.Counters.Lookup(outcome, &perCPU); err != nil {
			return Stats{}, fmt.Errorf("read counter %d: %w", outcome, err)
		}
		for _, c := range perCPU {
			*sum = sum.plus(Count{Packets: c.Packets, Bytes: c.Bytes})
		}
	}
	return s, nil
}
