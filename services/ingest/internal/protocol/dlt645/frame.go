package dlt645

import (
	"errors"
	"fmt"
	"strings"
)

const (
	frameStart = 0x68
	frameEnd   = 0x16
	wakeUp     = 0xFE
	offset     = 0x33 // added to each data byte on the line

	headerSize = 10 // 68 A0..A5 68 C L
	tailSize   = 2  // CS 16

	// MaxData is the most data bytes of a frame: the standard's limit for a
	// reply to a read.
	MaxData = 200
	// MaxFrame is the length of the longest frame, without wake-up bytes.
	MaxFrame = headerSize + MaxData + tailSize
)

// Control is the control code of a frame.
type Control byte

// The functions that this package builds and understands, as a request has
// them.
const (
	BroadcastTime Control = 0x08
	ReadData      Control = 0x11
	ReadFollowUp  Control = 0x12
	ReadAddress   Control = 0x13

	fromMeter Control = 0x80
	refused   Control = 0x40
	more      Control = 0x20
	function  Control = 0x1F
)

// FromMeter reports whether a meter sent the frame.
func (c Control) FromMeter() bool { return c&fromMeter != 0 }

// Refused reports whether the frame is an error reply.
func (c Control) Refused() bool { return c&refused != 0 }

// More reports whether a follow-up frame is waiting at the meter.
func (c Control) More() bool { return c&more != 0 }

// Function returns the control code of the request that c belongs to.
func (c Control) Function() Control { return c & function }

// Frame is one frame, its data without the 33H of the line. It holds its data
// itself, so that one Frame decodes any number of frames without an allocation
// and refers to no buffer of the caller.
type Frame struct {
	// Address is the meter's.
	Address Address
	// Control is the control code.
	Control Control

	n    uint8
	data [MaxData]byte
}

// Data returns the data, 0 to MaxData bytes. It is overwritten by the next
// frame that is parsed into f.
func (f *Frame) Data() []byte { return f.data[:f.n] }

// Why bytes are not a frame. They are matched with errors.Is.
var (
	// ErrShort means that the frame goes on behind the bytes given.
	ErrShort = errors.New("dlt645: frame is not complete")
	// ErrStart means that 68H is not in both places.
	ErrStart = errors.New("dlt645: no frame start")
	// ErrAddress means that the address is not BCD.
	ErrAddress = errors.New("dlt645: address is not BCD")
	// ErrLength means that the frame claims more than MaxData bytes of data.
	ErrLength = errors.New("dlt645: more data than a frame may have")
	// ErrEnd means that 16H is not where the length puts it.
	ErrEnd = errors.New("dlt645: no frame end")
	// ErrChecksum means that the sum is another.
	ErrChecksum = errors.New("dlt645: wrong checksum")
)

// Parse reads the frame at the start of raw, behind any wake-up bytes, into f
// and returns how many bytes it took. It allocates nothing. On an error f is
// unspecified and n is 0; the errors are the Err variables above, unwrapped.
func Parse(raw []byte, f *Frame) (n int, err error) {
	lead := 0
	for lead < len(raw) && raw[lead] == wakeUp {
		lead++
	}
	size, err := check(raw[lead:])
	if err != nil {
		return 0, err
	}
	f.fill(raw[lead : lead+size])
	return lead + size, nil
}

// check returns the length of the frame at the start of raw. It refuses at the
// first byte that no frame has there, so that noise does not hold up a stream.
func check(raw []byte) (int, error) {
	if len(raw) == 0 {
		return 0, ErrShort
	}
	if raw[0] != frameStart {
		return 0, ErrStart
	}
	if len(raw) < headerSize {
		return 0, checkHead(raw)
	}
	if raw[7] != frameStart {
		return 0, ErrStart
	}
	if !Address(raw[1:7]).Valid() {
		return 0, ErrAddress
	}
	size := int(raw[9])
	if size > MaxData {
		return 0, ErrLength
	}
	size += headerSize + tailSize
	if len(raw) < size {
		return 0, ErrShort
	}
	raw = raw[:size]
	if raw[size-1] != frameEnd {
		return 0, ErrEnd
	}
	var sum byte
	for _, b := range raw[:size-tailSize] {
		sum += b
	}
	if sum != raw[size-tailSize] {
		return 0, ErrChecksum
	}
	return size, nil
}

// checkHead is check for less than a header.
func checkHead(raw []byte) error {
	for _, b := range raw[1:min(len(raw), 7)] {
		if b != wildcardByte && !isBCD(b) {
			return ErrAddress
		}
	}
	if len(raw) > 7 && raw[7] != frameStart {
		return ErrStart
	}
	return ErrShort
}

// fill takes over a checked frame.
func (f *Frame) fill(raw []byte) {
	f.Address = Address(raw[1:7])
	f.Control = Control(raw[8])
	f.n = raw[9]
	data := raw[headerSize : len(raw)-tailSize]
	for i, b := range data {
		f.data[i] = b - offset
	}
}

// Answers reports whether f is the reply, good or refusing, to a request with
// this address and control code.
func (f *Frame) Answers(to Address, request Control) bool {
	return f.Control.FromMeter() && f.Control.Function() == request.Function() && to.Matches(f.Address)
}

// Err returns a *ReplyError when f is an error reply, and nil otherwise.
func (f *Frame) Err() error {
	if !f.Control.Refused() {
		return nil
	}
	e := &ReplyError{Address: f.Address, Request: f.Control.Function()}
	if f.n > 0 {
		e.Word = ErrorWord(f.data[0])
	}
	return e
}

// ErrorWord is the error byte of an error reply (annex C of the standard).
type ErrorWord byte

// The bits of an ErrorWord. Bit 7 is reserved.
const (
	OtherError         ErrorWord = 1 << iota // none of those below
	NoSuchData                               // the data asked for is not there
	Unauthorised                             // the password is wrong or the right is missing
	BaudRateFixed                            // the line speed cannot be changed
	TooManyYearZones                         // more year zones than the meter has
	TooManyDaySlots                          // more day slots than the meter has
	TooManyTariffRates                       // more tariff rates than the meter has
)

var errorNames = [8]string{
	"other error", "no such data", "unauthorised", "baud rate cannot change",
	"too many year zones", "too many day slots", "too many tariff rates", "reserved bit 7",
}

// String names the bits that are set.
func (w ErrorWord) String() string {
	if w == 0 {
		return "no reason given"
	}
	var names []string
	for bit, name := range errorNames {
		if w>>bit&1 != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// ReplyError is a meter's refusal.
type ReplyError struct {
	// Address is the meter's.
	Address Address
	// Request is the control code of what it refused.
	Request Control
	// Word says why.
	Word ErrorWord
}

// Error names the meter, the request and each reason.
func (e *ReplyError) Error() string {
	return fmt.Sprintf("meter %v refuses request %02XH: %v", e.Address, byte(e.Request), e.Word)
}
