package meter

import (
	"errors"
	"fmt"
	"slices"
)

var errShort = errors.New("ends too early")

// reader walks over bytes of a module. The first fault stays: callers look at
// err once, after a row of reads.
type reader struct {
	raw []byte
	at  int
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
		r.at = len(r.raw) // so that loops over the input end
	}
}

func (r *reader) more() bool { return r.err == nil && r.at < len(r.raw) }

func (r *reader) byte() byte {
	if r.at >= len(r.raw) {
		r.fail(errShort)
		return 0
	}
	r.at++
	return r.raw[r.at-1]
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.raw)-r.at) {
		r.fail(errShort)
		return nil
	}
	r.at += int(n)
	return r.raw[r.at-int(n) : r.at]
}

// u32 reads an unsigned LEB128 of at most 32 bits.
func (r *reader) u32() uint32 {
	var v uint64
	for shift := uint(0); shift < 35; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if v > 1<<32-1 {
				break
			}
			return uint32(v)
		}
	}
	r.fail(errors.New("has an integer of more than 32 bits"))
	return 0
}

// count reads the length of a vector. Each element takes at least a byte: a
// larger length is a lie, and would be allocated by who believes it.
func (r *reader) count() uint32 {
	n := r.u32()
	if uint64(n) > uint64(len(r.raw)-r.at) {
		r.fail(errShort)
		return 0
	}
	return n
}

// skipLEB goes over a LEB128 of at most size bytes whose value does not matter
// here; wazero validates it.
func (r *reader) skipLEB(size int) {
	for range size {
		if r.byte() < 0x80 {
			return
		}
	}
	r.fail(errors.New("has an overlong integer"))
}

// oneOf reads a byte that must be one of those named.
func (r *reader) oneOf(what string, allowed ...byte) byte {
	b := r.byte()
	if r.err == nil && !slices.Contains(allowed, b) {
		r.fail(fmt.Errorf("%s 0x%02x at byte %d is not supported", what, b, r.at-1))
	}
	return b
}

// valueType reads the type of a value: a number or one of the two references of
// WebAssembly 2.0. Longer forms of later versions are refused, so that we and
// wazero never read the bytes that follow differently.
func (r *reader) valueType() { r.oneOf("value type", 0x7f, 0x7e, 0x7d, 0x7c, 0x70, 0x6f) }

func (r *reader) refType() { r.oneOf("reference type", 0x70, 0x6f) }

// blockType reads the type of a block: none, a value's or the index of one.
func (r *reader) blockType() {
	if r.at < len(r.raw) && r.raw[r.at]&0xc0 == 0x40 { // one byte, negative
		r.oneOf("block type", 0x40, 0x7f, 0x7e, 0x7d, 0x7c, 0x70, 0x6f)
		return
	}
	start := r.at
	r.skipLEB(5)
	if r.err == nil && r.raw[r.at-1]&0x40 != 0 {
		r.fail(fmt.Errorf("block type at byte %d is negative", start))
	}
}

// constExpr goes over the expression that a global, an element or an offset
// starts with.
func (r *reader) constExpr() {
	for r.err == nil {
		switch r.oneOf("instruction of a constant", 0x41, 0x42, 0x43, 0x44, opGlobalGet, 0xd0, 0xd2, opEnd) {
		case 0x41: // i32.const
			r.skipLEB(5)
		case 0x42: // i64.const
			r.skipLEB(10)
		case 0x43: // f32.const
			r.bytes(4)
		case 0x44: // f64.const
			r.bytes(8)
		case opGlobalGet, 0xd2: // ref.func
			r.u32()
		case 0xd0: // ref.null
			r.refType()
		case opEnd:
			return
		}
	}
}

func (r *reader) name() string { return string(r.bytes(r.u32())) }

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendS64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
