package dlt645

import (
	"errors"
	"fmt"
)

// MaxAssembled is the most data that an Assembly puts together, in bytes: more
// than the longest block this package knows (64 demands of 8 bytes), and what a
// meter that never stops can make the node hold.
const MaxAssembled = 4096

// ErrTooLong means that a meter's follow-up frames hold more than MaxAssembled
// bytes, or are more than 255.
var ErrTooLong = errors.New("dlt645: follow-up frames without end")

// Assembly puts an answer together that takes several frames: a reply B1H to a
// read, then replies B2H and a last 92H to requests for a follow-up, each of
// which repeats the identifier and ends with the sequence number of its
// request. Make one with NewAssembly for each read.
type Assembly struct {
	di   DI
	next uint8 // the sequence number of the follow-up to ask for, 0 before the first reply
	done bool
	data []byte
}

// NewAssembly returns an Assembly for a read of di.
func NewAssembly(di DI) *Assembly { return &Assembly{di: di} }

// Add takes the next reply. It returns true when the answer is complete. It
// fails with what Frame.Err says, with ErrOtherDI, with ErrTooLong, and when a
// frame comes out of its turn; the read is then to be started again.
func (a *Assembly) Add(f *Frame) (done bool, err error) {
	if err := f.Err(); err != nil {
		return false, err
	}
	want := ReadData
	if a.next > 0 {
		want = ReadFollowUp
	}
	if a.done || !f.Control.FromMeter() || f.Control.Function() != want {
		return false, fmt.Errorf("follow-up %d of %v: frame %02XH is out of turn", a.next, a.di, byte(f.Control))
	}
	di, data, ok := f.FrameDI()
	if !ok || di != a.di {
		return false, fmt.Errorf("follow-up %d of %v: %w: %v", a.next, a.di, ErrOtherDI, di)
	}
	if a.next > 0 {
		if len(data) == 0 || data[len(data)-1] != a.next {
			return false, fmt.Errorf("follow-up %d of %v: reply has another sequence number", a.next, a.di)
		}
		data = data[:len(data)-1]
	}
	if len(a.data)+len(data) > MaxAssembled || (f.Control.More() && a.next == 255) {
		return false, fmt.Errorf("follow-up %d of %v: %w", a.next, a.di, ErrTooLong)
	}
	a.data = append(a.data, data...)
	a.done = !f.Control.More()
	if !a.done {
		a.next++
	}
	return a.done, nil
}

// Next returns the sequence number to ask the follow-up for, 1 to 255. It is 0
// before the first reply.
func (a *Assembly) Next() uint8 { return a.next }

// Data returns what was put together, without identifiers and sequence
// numbers, for Item.Append.
func (a *Assembly) Data() []byte { return a.data }
