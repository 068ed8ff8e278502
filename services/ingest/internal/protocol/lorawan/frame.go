package lorawan

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

const (
	headSize = 8 // MHDR, DevAddr, FCtrl, FCnt
	micSize  = 4
	// MaxFrame is the longest PHYPayload that any region's data rate carries.
	MaxFrame = 255
)

// The message types of data-up frames, in the highest three bits of MHDR.
const (
	unconfirmedUp = 2
	confirmedUp   = 4
)

// DevAddr is a device's address in its network, as it is printed.
type DevAddr uint32

// ParseDevAddr reads eight hexadecimal digits, for example `49BE7DF1`.
func ParseDevAddr(s string) (DevAddr, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return 0, fmt.Errorf("device address: must have 8 hexadecimal digits, is %.40q", s)
	}
	return DevAddr(binary.BigEndian.Uint32(b)), nil
}

// String returns eight hexadecimal digits.
func (a DevAddr) String() string { return fmt.Sprintf("%08X", uint32(a)) }

// ParseKey reads 32 hexadecimal digits. The error does not repeat them.
func ParseKey(s string) (Key, error) {
	var k Key
	if len(s) != 2*len(k) {
		return Key{}, fmt.Errorf("session key: must have %d hexadecimal digits, has %d", 2*len(k), len(s))
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return Key{}, fmt.Errorf("session key: must have %d hexadecimal digits, has another character", 2*len(k))
	}
	return k, nil
}

// Why a frame is not opened. They are matched with errors.Is.
var (
	// ErrFrame means that the bytes are no data frame of LoRaWAN R1.
	ErrFrame = errors.New("lorawan: malformed frame")
	// ErrNotDataUp means that the frame is of another type: a join, a downlink,
	// or a proprietary one.
	ErrNotDataUp = errors.New("lorawan: not a data-up frame")
	// ErrUnknownDevice means that no device has the frame's address.
	ErrUnknownDevice = errors.New("lorawan: unknown device address")
	// ErrMIC means that the message code is wrong for every device and counter
	// that the frame may have: another network's device, a wrong key, or forged.
	ErrMIC = errors.New("lorawan: wrong message code")
	// ErrReplay means that the frame is genuine and its counter was used before.
	ErrReplay = errors.New("lorawan: frame counter was used before")
	// ErrDuplicate is the ErrReplay of the newest frame of all: another gateway
	// heard it too. It is no attack.
	ErrDuplicate = fmt.Errorf("%w, just now", ErrReplay)
)

// frame is a data-up frame, in the bytes it was parsed from.
type frame struct {
	addr    DevAddr
	fctrl   byte
	counter uint16
	options []byte
	hasPort bool
	port    uint8
	payload []byte // encrypted
	body    []byte // all but the code
	mic     [micSize]byte
	raised  bool // confirmed
}

func parse(raw []byte) (frame, error) {
	if len(raw) < headSize+micSize || len(raw) > MaxFrame {
		return frame{}, fmt.Errorf("%w: must have %d to %d bytes, has %d", ErrFrame, headSize+micSize, MaxFrame, len(raw))
	}
	switch kind := raw[0] >> 5; {
	case raw[0]&3 != 0:
		return frame{}, fmt.Errorf("%w: major version must be 0, is %d", ErrFrame, raw[0]&3)
	case kind != unconfirmedUp && kind != confirmedUp:
		return frame{}, fmt.Errorf("%w: message type %d", ErrNotDataUp, kind)
	}
	body := raw[:len(raw)-micSize]
	f := frame{
		addr:    DevAddr(binary.LittleEndian.Uint32(raw[1:])),
		fctrl:   raw[5],
		counter: binary.LittleEndian.Uint16(raw[6:]),
		body:    body,
		mic:     [micSize]byte(raw[len(body):]),
		raised:  raw[0]>>5 == confirmedUp,
	}
	options := int(f.fctrl & 0x0F)
	if headSize+options > len(body) {
		return frame{}, fmt.Errorf("%w: %d bytes of options, %d are there", ErrFrame, options, len(body)-headSize)
	}
	f.options = body[headSize : headSize+options]
	if rest := body[headSize+options:]; len(rest) > 0 {
		f.hasPort, f.port, f.payload = true, rest[0], rest[1:]
		if f.port == 0 && options > 0 {
			return frame{}, fmt.Errorf("%w: options in the head and on port 0", ErrFrame)
		}
	}
	return f, nil
}

// Peek returns the address that a data-up frame claims to be from, unchecked.
func Peek(raw []byte) (DevAddr, error) {
	f, err := parse(raw)
	return f.addr, err
}

// Uplink is an opened frame.
type Uplink struct {
	// DevAddr is the sender.
	DevAddr DevAddr
	// Counter is the whole frame counter.
	Counter uint32
	// Confirmed reports that the device wants an acknowledgement.
	Confirmed bool
	// ADR, ADRAckReq, Ack and ClassB are the bits of FCtrl.
	ADR, ADRAckReq, Ack, ClassB bool
	// Options are the MAC commands in the head, 0 to 15 bytes. They lie in the
	// bytes that were given to Open.
	Options []byte
	// HasPort reports that there is a port; without it Payload is empty.
	HasPort bool
	// Port is 0 for MAC commands, 1 to 223 for the application.
	Port uint8
	// Payload is decrypted, 0 to 242 bytes. It is the Device's own and is
	// overwritten by its next Open.
	Payload []byte
}
