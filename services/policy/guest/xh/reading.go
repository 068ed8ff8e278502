// Package xh lets a policy written in TinyGo read a reading and answer with a
// verdict: the guest's side of xinghuo.policy.v1.
//
// The ABI itself stands in internal/abi/doc.go of this module. Nothing here allocates while
// a reading is judged: a module built with `-gc=leaking` never gives memory
// back.
package xh

import (
	"math"
	"unsafe"
)

// BufferSize is the size of the scratch buffer in bytes, fixed by the ABI:
// every reading within the node's limits fits.
const BufferSize = 24576

const (
	headerSize = 24
	entrySize  = 4
	kindNumber = 0
	kindText   = 1
)

// Reading is one reading, read in place in the scratch buffer. It and every
// string it returns are valid until the evaluation ends.
type Reading struct{ raw []byte }

// NewReading returns the reading that raw holds; ok is false when raw is not
// one whole reading.
func NewReading(raw []byte) (r Reading, ok bool) {
	if len(raw) < headerSize {
		return Reading{}, false
	}
	r = Reading{raw: raw}
	return r, headerSize+r.u16(16)+r.u16(18) <= len(raw)
}

func (r Reading) u16(at int) int { return int(r.raw[at]) | int(r.raw[at+1])<<8 }

func (r Reading) u64(at int) uint64 {
	var v uint64
	for i := 7; i >= 0; i-- {
		v = v<<8 | uint64(r.raw[at+i])
	}
	return v
}

func (r Reading) text(from, size int) string {
	if size == 0 {
		return ""
	}
	return unsafe.String(&r.raw[from], size)
}

// Sequence returns the device's count of the reading.
func (r Reading) Sequence() uint64 { return r.u64(0) }

// UnixNano returns the time of the reading in nanoseconds since 1970.
func (r Reading) UnixNano() int64 { return int64(r.u64(8)) }

// Device returns the device's id.
func (r Reading) Device() string { return r.text(headerSize, r.u16(16)) }

// Source returns the source that took the reading in.
func (r Reading) Source() string { return r.text(headerSize+r.u16(16), r.u16(18)) }

// Values returns a cursor before the first value.
func (r Reading) Values() Values {
	return Values{r: r, next: headerSize + r.u16(16) + r.u16(18), left: r.u16(20)}
}

// Values is a cursor over a reading's values.
type Values struct {
	r                    Reading
	at, next, left, size int
	nameSize             int
}

// Next goes to the next value; false means that there is none.
func (v *Values) Next() bool {
	if v.left == 0 || v.next+entrySize > len(v.r.raw) {
		return false
	}
	v.at = v.next
	v.nameSize = int(v.r.raw[v.at+1])
	v.size = v.r.u16(v.at + 2)
	v.next = v.at + entrySize + v.nameSize + v.size
	v.left--
	return v.next <= len(v.r.raw)
}

// Name returns the value's name.
func (v *Values) Name() string { return v.r.text(v.at+entrySize, v.nameSize) }

// Number returns the value when it is a number.
func (v *Values) Number() (n float64, ok bool) {
	if v.r.raw[v.at] != kindNumber || v.size != 8 {
		return 0, false
	}
	return math.Float64frombits(v.r.u64(v.at + entrySize + v.nameSize)), true
}

// Text returns the value when it is a text.
func (v *Values) Text() (s string, ok bool) {
	if v.r.raw[v.at] != kindText {
		return "", false
	}
	return v.r.text(v.at+entrySize+v.nameSize, v.size), true
}
