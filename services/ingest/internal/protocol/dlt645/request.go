package dlt645

import (
	"fmt"
	"time"
)

// wakeUps is how many FEH go before a request: the standard's number for
// waking a meter's receiver (§5.3.1).
const wakeUps = 4

// AppendFrame appends a frame without wake-up bytes to dst. It fails when data
// is longer than MaxData.
func AppendFrame(dst []byte, a Address, c Control, data ...byte) ([]byte, error) {
	if len(data) > MaxData {
		return dst, fmt.Errorf("dlt645 frame data: must be at most %d bytes, is %d", MaxData, len(data))
	}
	return appendFrame(dst, a, c, data), nil
}

func appendFrame(dst []byte, a Address, c Control, data []byte) []byte {
	start := len(dst)
	dst = append(dst, frameStart)
	dst = append(dst, a[:]...)
	dst = append(dst, frameStart, byte(c), byte(len(data)))
	for _, b := range data {
		dst = append(dst, b+offset)
	}
	var sum byte
	for _, b := range dst[start:] {
		sum += b
	}
	return append(dst, sum, frameEnd)
}

func appendRequest(dst []byte, a Address, c Control, data []byte) []byte {
	for range wakeUps {
		dst = append(dst, wakeUp)
	}
	return appendFrame(dst, a, c, data)
}

// AppendReadAddress appends the request, with wake-up bytes, for the address of
// the only meter on a bus (13H).
func AppendReadAddress(dst []byte) []byte { return appendRequest(dst, Wildcard, ReadAddress, nil) }

// AppendReadData appends the request, with wake-up bytes, for the data of one
// identifier (11H).
func AppendReadData(dst []byte, a Address, di DI) []byte {
	b := di.wire()
	return appendRequest(dst, a, ReadData, b[:])
}

// AppendReadFollowUp appends the request, with wake-up bytes, for the next
// frame of an answer (12H). The sequence comes from Assembly.Next.
func AppendReadFollowUp(dst []byte, a Address, di DI, sequence uint8) []byte {
	b := di.wire()
	return appendRequest(dst, a, ReadFollowUp, []byte{b[0], b[1], b[2], b[3], sequence})
}

// AppendBroadcastTime appends the frame, with wake-up bytes, that sets the
// clock of every meter on a bus (08H) to the wall clock of t in t's location,
// to the second. No meter answers. The standard lets a meter obey once a day
// and only when it is off by no more than 5 minutes. It fails for a year
// outside 2000 to 2099: the frame carries two digits.
func AppendBroadcastTime(dst []byte, t time.Time) ([]byte, error) {
	year, month, day := t.Date()
	if year < 2000 || year > 2099 {
		return dst, fmt.Errorf("broadcast time: year must be 2000 to 2099, is %d", year)
	}
	hour, minute, second := t.Clock()
	return appendRequest(dst, Broadcast, BroadcastTime, []byte{
		toBCD(second), toBCD(minute), toBCD(hour), toBCD(day), toBCD(int(month)), toBCD(year - 2000),
	}), nil
}

func toBCD(n int) byte { return byte(n/10<<4 | n%10) }

// AddressReply returns the address in the reply to AppendReadAddress.
func (f *Frame) AddressReply() (Address, error) {
	if err := f.Err(); err != nil {
		return Address{}, err
	}
	if int(f.n) != len(Address{}) {
		return Address{}, fmt.Errorf("address reply: must have %d bytes of data, has %d", len(Address{}), f.n)
	}
	a := Address(f.Data())
	if !a.Valid() {
		return Address{}, fmt.Errorf("address reply: %w: %v", ErrAddress, a)
	}
	return a, nil
}
