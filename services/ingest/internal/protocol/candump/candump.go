// Package candump reads the log format of can-utils: `candump -l` and `-L`
// write it, canplayer replays it.
//
//	(1587955771.851058) vcan0 285#1DB01DB000000000
//
// A line is the time in seconds, the interface, and the frame: 3 hexadecimal
// digits of a standard or 8 of an extended identifier, `#`, and up to 8 bytes
// of data, or `R` for a remote frame. CAN FD frames (`##`) and error frames are
// refused by name: nothing downstream can read them.
package candump

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"go.einride.tech/can"
)

const (
	// maxLine is longer than any line of a classic CAN frame.
	maxLine = 256
	// maxInterface is the longest name that Linux gives an interface.
	maxInterface = 15
	// errorFlag marks an error frame in an identifier of 8 digits (linux/can.h).
	errorFlag = 0x20000000
)

// Why a line is refused. They are matched with errors.Is.
var (
	// ErrLine means that the line is not of the format.
	ErrLine = errors.New("candump: malformed line")
	// ErrFD means that the frame is of CAN FD.
	ErrFD = errors.New("candump: CAN FD frame")
	// ErrErrorFrame means that the line is a report of the controller's.
	ErrErrorFrame = errors.New("candump: error frame")
)

// Record is one line.
type Record struct {
	// Time is when the frame was received, to the microsecond.
	Time time.Time
	// Interface is where, 1 to 15 bytes.
	Interface string
	// Frame is the frame.
	Frame can.Frame
}

// Parse reads a line, without its end, into r. It allocates only when the
// interface is another than r has. On an error r is unspecified.
func (r *Record) Parse(line []byte) error {
	bad := func(what string) error { return fmt.Errorf("%w: %s in %.80q", ErrLine, what, line) }
	rest := line
	field := func() (f []byte) {
		for len(rest) > 0 && rest[0] == ' ' {
			rest = rest[1:]
		}
		n := 0
		for n < len(rest) && rest[n] != ' ' {
			n++
		}
		f, rest = rest[:n], rest[n:]
		return f
	}
	at, ok := parseTime(field())
	if !ok {
		return bad("time")
	}
	name := field()
	if len(name) == 0 || len(name) > maxInterface {
		return bad("interface")
	}
	frame := field()
	// Newer versions add the direction.
	if end := field(); len(end) > 1 || (len(end) == 1 && end[0] != 'R' && end[0] != 'T') || len(field()) > 0 {
		return bad("what follows the frame")
	}
	r.Time = at
	if r.Interface != string(name) {
		r.Interface = string(name)
	}
	f, err := parseFrame(frame)
	if err != nil {
		return fmt.Errorf("%w in %.80q", err, line)
	}
	r.Frame = f
	return nil
}

// parseTime reads (seconds.microseconds), with 6 decimals.
func parseTime(b []byte) (time.Time, bool) {
	if len(b) < 10 || b[0] != '(' || b[len(b)-1] != ')' {
		return time.Time{}, false
	}
	b = b[1 : len(b)-1]
	dot := len(b) - 7
	if b[dot] != '.' || dot < 1 || dot > 11 { // 11 digits: year 5138
		return time.Time{}, false
	}
	sec, ok1 := decimal(b[:dot])
	usec, ok2 := decimal(b[dot+1:])
	return time.Unix(sec, usec*1000), ok1 && ok2
}

func decimal(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

func parseFrame(b []byte) (f can.Frame, err error) {
	hash := 0
	for hash < len(b) && b[hash] != '#' {
		d, ok := hexDigit(b[hash])
		if !ok || hash >= 8 {
			return can.Frame{}, fmt.Errorf("%w: identifier", ErrLine)
		}
		f.ID = f.ID<<4 | uint32(d)
		hash++
	}
	switch {
	case hash == len(b) || (hash != 3 && hash != 8):
		return can.Frame{}, fmt.Errorf("%w: identifier", ErrLine)
	case hash == 8 && f.ID&errorFlag != 0:
		return can.Frame{}, ErrErrorFrame
	case hash == 8 && f.ID > can.MaxExtendedID, hash == 3 && f.ID > can.MaxID:
		return can.Frame{}, fmt.Errorf("%w: identifier", ErrLine)
	}
	f.IsExtended = hash == 8
	data := b[hash+1:]
	if len(data) > 0 && data[0] == '#' {
		return can.Frame{}, ErrFD
	}
	if len(data) > 0 && data[0] == 'R' {
		f.IsRemote = true
		if len(data) == 2 && data[1] >= '0' && data[1] <= '8' {
			f.Length = data[1] - '0'
		} else if len(data) != 1 {
			return can.Frame{}, fmt.Errorf("%w: remote frame", ErrLine)
		}
		return f, nil
	}
	if len(data)%2 != 0 || len(data) > 2*can.MaxDataLength {
		return can.Frame{}, fmt.Errorf("%w: data", ErrLine)
	}
	for i := 0; i < len(data); i += 2 {
		high, ok1 := hexDigit(data[i])
		low, ok2 := hexDigit(data[i+1])
		if !ok1 || !ok2 {
			return can.Frame{}, fmt.Errorf("%w: data", ErrLine)
		}
		f.Data[f.Length] = high<<4 | low
		f.Length++
	}
	return f, nil
}

// Append appends the line, without an end, to dst.
func (r *Record) Append(dst []byte) []byte {
	dst = fmt.Appendf(dst, "(%010d.%06d) %s ", r.Time.Unix(), r.Time.Nanosecond()/1000, r.Interface)
	return append(dst, r.Frame.String()...)
}

// Reader reads a log. It holds one line at a time.
type Reader struct {
	r    *bufio.Reader
	line int
}

// NewReader returns a Reader of a log.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, maxLine)} }

// Line returns the number of the line read last, from 1.
func (r *Reader) Line() int { return r.line }

// Next reads the next line that is not empty into rec. It returns io.EOF at the
// end. After an error that is ErrLine, ErrFD or ErrErrorFrame the next line can
// be read; any other is of the underlying reader.
func (r *Reader) Next(rec *Record) error {
	for {
		line, err := r.r.ReadSlice('\n')
		r.line++
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.r.ReadSlice('\n')
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("line %d: %w", r.line, err)
			}
			return fmt.Errorf("line %d: %w: longer than %d bytes", r.line, ErrLine, maxLine)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("line %d: %w", r.line, err)
		}
		for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r' || line[len(line)-1] == ' ') {
			line = line[:len(line)-1]
		}
		if len(line) > 0 {
			if err := rec.Parse(line); err != nil {
				return fmt.Errorf("line %d: %w", r.line, err)
			}
			return nil
		}
		if err != nil {
			return io.EOF
		}
	}
}
