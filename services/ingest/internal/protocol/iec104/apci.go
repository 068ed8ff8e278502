package iec104

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	startByte = 0x68
	// apciSize is the start byte, the length and the four control fields.
	apciSize = 6
	// MaxAPDU is the longest frame, with the start byte and the length.
	MaxAPDU = 255
	// maxLength is the largest value of the length byte (5.1 of the standard).
	maxLength = MaxAPDU - 2
	// modulus is the range of sequence numbers.
	modulus = 1 << 15
)

// Format is what a frame is for.
type Format uint8

// The three formats.
const (
	FormatI Format = iota // numbered information
	FormatS               // acknowledgement
	FormatU               // control of the connection
)

// Function is the function of a U frame, as in its first control byte.
type Function byte

// The functions.
const (
	StartActivate Function = 0x07
	StartConfirm  Function = 0x0B
	StopActivate  Function = 0x13
	StopConfirm   Function = 0x23
	TestActivate  Function = 0x43
	TestConfirm   Function = 0x83
)

// String returns the name that the standard gives the function.
func (f Function) String() string {
	switch f {
	case StartActivate:
		return "STARTDT act"
	case StartConfirm:
		return "STARTDT con"
	case StopActivate:
		return "STOPDT act"
	case StopConfirm:
		return "STOPDT con"
	case TestActivate:
		return "TESTFR act"
	case TestConfirm:
		return "TESTFR con"
	}
	return fmt.Sprintf("U function %02XH", byte(f))
}

// APDU is one frame.
type APDU struct {
	// Format says which of the other fields count.
	Format Format
	// Send is N(S), 0 to 32767, of an I frame.
	Send uint16
	// Receive is N(R), 0 to 32767, of an I or S frame.
	Receive uint16
	// Function is that of a U frame.
	Function Function
	// ASDU is the data unit of an I frame, 1 to 249 bytes. It lies in the bytes
	// that were parsed.
	ASDU []byte
}

// Errors of framing. They are matched with errors.Is.
var (
	// ErrShort means that the frame goes on behind the bytes given.
	ErrShort = errors.New("iec104: frame is not complete")
	// ErrFrame means that the bytes are no frame: the stream is out of step.
	ErrFrame = errors.New("iec104: not a frame")
)

// ParseAPDU reads the frame at the start of raw and returns how many bytes it
// took. ErrShort asks for more bytes; ErrFrame ends the connection.
func ParseAPDU(raw []byte) (a APDU, n int, err error) {
	if len(raw) > 0 && raw[0] != startByte {
		return APDU{}, 0, fmt.Errorf("%w: start byte must be 68H, is %02XH", ErrFrame, raw[0])
	}
	if len(raw) < 2 {
		return APDU{}, 0, ErrShort
	}
	if raw[1] < apciSize-2 || raw[1] > maxLength {
		return APDU{}, 0, fmt.Errorf("%w: length must be %d to %d, is %d", ErrFrame, apciSize-2, maxLength, raw[1])
	}
	n = int(raw[1]) + 2
	if len(raw) < n {
		return APDU{}, 0, ErrShort
	}
	control := raw[2:apciSize]
	switch {
	case control[0]&1 == 0:
		a = APDU{Format: FormatI, Send: binary.LittleEndian.Uint16(control) >> 1, ASDU: raw[apciSize:n:n]}
	case control[0]&3 == 1:
		a = APDU{Format: FormatS}
	default:
		a = APDU{Format: FormatU, Function: Function(control[0])}
	}
	if a.Format != FormatU {
		a.Receive = binary.LittleEndian.Uint16(control[2:]) >> 1
	}
	if (a.Format == FormatI) != (n > apciSize) {
		return APDU{}, 0, fmt.Errorf("%w: %d bytes behind the control fields % X", ErrFrame, n-apciSize, control)
	}
	if a.Format != FormatI && (control[1] != 0 || (a.Format == FormatS && control[0] != 1)) {
		return APDU{}, 0, fmt.Errorf("%w: control fields % X", ErrFrame, control)
	}
	if a.Format != FormatU {
		if control[2]&1 != 0 {
			return APDU{}, 0, fmt.Errorf("%w: control fields % X", ErrFrame, control)
		}
		return a, n, nil
	}
	switch a.Function {
	case StartActivate, StartConfirm, StopActivate, StopConfirm, TestActivate, TestConfirm:
	default:
		return APDU{}, 0, fmt.Errorf("%w: control fields % X", ErrFrame, control)
	}
	if control[2] != 0 || control[3] != 0 {
		return APDU{}, 0, fmt.Errorf("%w: control fields % X", ErrFrame, control)
	}
	return a, n, nil
}

// Append appends the frame to dst. The ASDU of an I frame must have 1 to 249
// bytes; sequence numbers count modulo 32768.
func (a APDU) Append(dst []byte) []byte {
	switch a.Format {
	case FormatI:
		dst = append(dst, startByte, byte(apciSize-2+len(a.ASDU)))
		dst = binary.LittleEndian.AppendUint16(dst, a.Send<<1)
		dst = binary.LittleEndian.AppendUint16(dst, a.Receive<<1)
		return append(dst, a.ASDU...)
	case FormatS:
		dst = append(dst, startByte, apciSize-2, 1, 0)
		return binary.LittleEndian.AppendUint16(dst, a.Receive<<1)
	default:
		return append(dst, startByte, apciSize-2, byte(a.Function), 0, 0, 0)
	}
}
