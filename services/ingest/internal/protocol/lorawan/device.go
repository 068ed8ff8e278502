package lorawan

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// MaxGap is how far a counter may run ahead of the newest one accepted: the
// standard's MAX_FCNT_GAP. It bounds how many frames may be lost in a row, and
// how far a frame replayed after 65536 others could reach.
const MaxGap = 16384

// never is no counter yet.
const never = -1

// Device is one device's keys and counter. It is for one goroutine.
type Device struct {
	addr    DevAddr
	network *cmac
	nwk     cipher.Block // decrypts port 0
	app     cipher.Block // decrypts the other ports

	newest    int64 // the newest counter accepted, or never
	newestMIC [micSize]byte

	payload [MaxFrame]byte
	a, s    [aes.BlockSize]byte
}

// NewDevice returns a device that has sent nothing yet. Use Restore after a
// restart, or every old frame may be replayed once.
func NewDevice(addr DevAddr, networkKey, appKey Key) (*Device, error) {
	mac, err := newCMAC(networkKey)
	if err != nil {
		return nil, fmt.Errorf("device %v: %w", addr, err)
	}
	app, err := aes.NewCipher(appKey[:])
	if err != nil {
		return nil, fmt.Errorf("device %v: make AES: %w", addr, err)
	}
	return &Device{addr: addr, network: mac, nwk: mac.block, app: app, newest: never}, nil
}

// Counter returns the newest counter accepted. ok is false when there is none.
func (d *Device) Counter() (counter uint32, ok bool) { return uint32(d.newest), d.newest != never }

// Restore sets the newest counter accepted, from where the owner kept it. Until
// the next frame an exact copy of the newest is ErrReplay, not ErrDuplicate.
func (d *Device) Restore(counter uint32) { d.newest, d.newestMIC = int64(counter), [micSize]byte{} }

// Open checks and decrypts a data-up frame of this device. The counter moves
// only when the code is right and the counter is newer. It allocates nothing.
// Errors are ErrFrame, ErrNotDataUp, ErrUnknownDevice (another address),
// ErrMIC, ErrReplay and ErrDuplicate.
func (d *Device) Open(raw []byte) (Uplink, error) {
	f, err := parse(raw)
	if err != nil {
		return Uplink{}, err
	}
	if f.addr != d.addr {
		return Uplink{}, fmt.Errorf("%w: %v", ErrUnknownDevice, f.addr)
	}
	return d.open(&f)
}

func (d *Device) open(f *frame) (Uplink, error) {
	counter, ok := d.ahead(f.counter)
	if !ok || !d.genuine(f, counter) {
		return Uplink{}, d.refusal(f)
	}
	d.newest, d.newestMIC = int64(counter), f.mic
	u := Uplink{
		DevAddr: d.addr, Counter: counter, Confirmed: f.raised,
		ADR: f.fctrl&0x80 != 0, ADRAckReq: f.fctrl&0x40 != 0, Ack: f.fctrl&0x20 != 0, ClassB: f.fctrl&0x10 != 0,
		Options: f.options, HasPort: f.hasPort, Port: f.port,
	}
	u.Payload = d.payload[:copy(d.payload[:], f.payload)]
	d.crypt(u.Payload, f.port, counter)
	return u, nil
}

// ahead returns the counter after the newest that ends in low. ok is false when
// it is more than MaxGap ahead or beyond 32 bits. A device's first frame may
// have any counter of 16 bits.
func (d *Device) ahead(low uint16) (counter uint32, ok bool) {
	if d.newest == never {
		return uint32(low), true
	}
	gap := low - uint16(d.newest)
	next := d.newest + int64(gap)
	return uint32(next), gap > 0 && gap <= MaxGap && next <= 0xFFFFFFFF
}

// refusal tells a replay, which is genuine for a counter that was used, from
// anything else. Only the newest counters that end in the frame's 16 bits are
// tried: this one and the one before.
func (d *Device) refusal(f *frame) error {
	if d.newest == never {
		return fmt.Errorf("device %v: %w", d.addr, ErrMIC)
	}
	used := d.newest - int64(uint16(d.newest)-f.counter)
	for ; used >= 0 && used > d.newest-2*1<<16; used -= 1 << 16 {
		switch {
		case !d.genuine(f, uint32(used)):
		case used == d.newest && f.mic == d.newestMIC:
			return fmt.Errorf("device %v: %w: %d", d.addr, ErrDuplicate, used)
		default:
			return fmt.Errorf("device %v: %w: %d, newest is %d", d.addr, ErrReplay, used, d.newest)
		}
	}
	return fmt.Errorf("device %v: %w", d.addr, ErrMIC)
}

// genuine reports whether the code of f is right for a counter (4.4 of the
// standard).
func (d *Device) genuine(f *frame, counter uint32) bool {
	d.blockFor(0x49, counter)
	d.a[15] = byte(len(f.body))
	mic := d.network.sum(&d.a, f.body)
	return subtle.ConstantTimeCompare(mic[:micSize], f.mic[:]) == 1
}

// blockFor starts the block that the code and the cipher are made from:
// direction up, address, counter.
func (d *Device) blockFor(first byte, counter uint32) {
	d.a = [aes.BlockSize]byte{first}
	binary.LittleEndian.PutUint32(d.a[6:], uint32(d.addr))
	binary.LittleEndian.PutUint32(d.a[10:], counter)
}

// crypt encrypts or decrypts in place (4.3.3 of the standard).
func (d *Device) crypt(p []byte, port uint8, counter uint32) {
	block := d.app
	if port == 0 {
		block = d.nwk
	}
	d.blockFor(0x01, counter)
	for i := byte(1); len(p) > 0; i++ {
		d.a[15] = i
		block.Encrypt(d.s[:], d.a[:])
		p = p[subtle.XORBytes(p, p, d.s[:]):]
	}
}

// Seal appends a data-up frame as the device would send it: what a simulator
// needs. Of u it takes Counter, the bits, Options (at most 15 bytes), Port and
// Payload. It fails when the frame would be longer than MaxFrame, and when
// there are options in the head and on port 0.
func (d *Device) Seal(dst []byte, u Uplink) ([]byte, error) {
	size := headSize + len(u.Options) + len(u.Payload) + micSize + 1
	if len(u.Options) > 15 || size > MaxFrame {
		return dst, fmt.Errorf("%w: %d bytes of options and %d of payload", ErrFrame, len(u.Options), len(u.Payload))
	}
	start := len(dst)
	kind, fctrl := byte(unconfirmedUp), byte(len(u.Options))
	if u.Confirmed {
		kind = confirmedUp
	}
	for bit, set := range map[byte]bool{0x80: u.ADR, 0x40: u.ADRAckReq, 0x20: u.Ack, 0x10: u.ClassB} {
		if set {
			fctrl |= bit
		}
	}
	dst = append(dst, kind<<5)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(d.addr))
	dst = append(dst, fctrl)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(u.Counter))
	dst = append(dst, u.Options...)
	if u.HasPort {
		dst = append(dst, u.Port)
		at := len(dst)
		dst = append(dst, u.Payload...)
		d.crypt(dst[at:], u.Port, u.Counter)
	}
	f := frame{body: dst[start:]}
	d.blockFor(0x49, u.Counter)
	d.a[15] = byte(len(f.body))
	mic := d.network.sum(&d.a, f.body)
	dst = append(dst, mic[:micSize]...)
	if _, err := parse(dst[start:]); err != nil {
		return dst[:start], err
	}
	return dst, nil
}
