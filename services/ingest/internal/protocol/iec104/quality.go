package iec104

import "strings"

// Quality is the quality descriptor of a value (SIQ, DIQ or QDS without the
// value). Zero is good.
type Quality uint8

// The bits.
const (
	Overflow    Quality = 0x01 // OV: beyond the range of its coding; of measured values
	Blocked     Quality = 0x10 // BL: held as it was when transmission was blocked
	Substituted Quality = 0x20 // SB: entered by an operator or a device instead of measured
	NotTopical  Quality = 0x40 // NT: not updated for too long
	Invalid     Quality = 0x80 // IV: not to be used

	pointQuality    = byte(Blocked | Substituted | NotTopical | Invalid)
	measuredQuality = pointQuality | byte(Overflow)
)

// Usable reports that the value may be used: it is neither invalid nor beyond
// its range. A substituted, blocked or old value is a value still.
func (q Quality) Usable() bool { return q&(Invalid|Overflow) == 0 }

// String names the bits that are set, `good` when none is.
func (q Quality) String() string {
	if q == 0 {
		return "good"
	}
	var names []string
	for _, bit := range []struct {
		q    Quality
		name string
	}{{Overflow, "overflow"}, {Blocked, "blocked"}, {Substituted, "substituted"}, {NotTopical, "not_topical"}, {Invalid, "invalid"}} {
		if q&bit.q != 0 {
			names = append(names, bit.name)
		}
	}
	return strings.Join(names, ",")
}
