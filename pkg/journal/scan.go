package journal

import (
	"errors"
	"io"
)

const (
	sector     = 512
	scanWindow = 128 << 10
)

// step is what the scanner came upon.
type step byte

const (
	stepEnd    step = iota // nothing up to the end
	stepRecord             // a record
	stepSeal               // the seal; nothing follows
	stepDamage             // a range that is no frame
)

// found is one step of a scan. payload and the bytes of a range are good until
// the next step.
type found struct {
	step    step
	frame   frame
	payload []byte
	from    int64 // offset of the frame or range
	to      int64 // and where it ends
	torn    bool  // the range was never written whole
	tail    bool  // nothing valid follows the range
}

// scanner walks the frames of a segment and finds the next one behind damage.
// It holds no state but its place, so a reader keeps one for long.
type scanner struct {
	src  io.ReaderAt
	salt uint32
	off  int64  // next frame
	last uint64 // sequence of the last record found

	buf  []byte // holds src from base
	base int64
	fill int
	bad  int // sectors that could not be read
}

// reset starts at the first frame of another segment, keeping the buffer.
func (s *scanner) reset(src io.ReaderAt, salt uint32) {
	*s = scanner{src: src, salt: salt, off: headerBlock, buf: s.buf}
}

// next finds what is at the scanner's place, below end.
func (s *scanner) next(end int64) found {
	if end-s.off < frameHeader {
		return s.rest(end)
	}
	h := s.at(s.off, frameHeader, end)
	if f, ok := s.accept(h); ok {
		to := s.off + f.size()
		if to > end {
			return s.lost(s.resync(s.off+frameAlign, end), end)
		}
		body := s.at(s.off, int(f.size()), end)[frameHeader:]
		if payloadCRC(body[:f.length]) != f.payloadCRC || !allZero(body[f.length:]) {
			return s.lost(to, end)
		}
		it := found{step: stepRecord, frame: f, payload: body[:f.length], from: s.off, to: to}
		if f.kind == kindSeal {
			it.step = stepSeal
		}
		s.off, s.last = to, f.sequence
		return it
	}
	return s.lost(s.resync(s.off+frameAlign, end), end)
}

// accept reads a header that may stand at this place: a whole one, and later
// than the record before it.
func (s *scanner) accept(b []byte) (frame, bool) {
	if le.Uint64(b) == 0 {
		return frame{}, false // not written yet; cheaper than a CRC
	}
	f, ok := parseFrame(b, s.salt)
	if !ok || f.kind == kindRecord && f.sequence <= s.last || f.sequence < s.last {
		return frame{}, false
	}
	return f, true
}

// resync returns the offset of the next header from off on, end if none.
func (s *scanner) resync(off, end int64) int64 {
	for end-off >= frameHeader {
		n := int(min(end-off, scanWindow/2))
		b := s.at(off, n, end)
		for i := 0; i+frameHeader <= len(b); i += frameAlign {
			if f, ok := s.accept(b[i:]); ok && off+int64(i)+f.size() <= end {
				return off + int64(i)
			}
		}
		if off+int64(n) >= end {
			break
		}
		off += int64(n-frameHeader) &^ (frameAlign - 1)
	}
	return end
}

// lost makes the range from the place to to a step. At the end of the segment
// it stops behind the last byte that is not zero.
func (s *scanner) lost(to, end int64) found {
	it := found{step: stepDamage, from: s.off, to: to, tail: to >= end}
	if it.tail {
		it.to = s.lastNonZero(it.from, end)
		if it.to == it.from {
			s.off = end
			return found{step: stepEnd, from: it.from, to: it.from}
		}
		it.to = min(end, (it.to+frameAlign-1)&^(frameAlign-1))
	}
	it.torn = s.hasEmptySector(it.from, it.to, end)
	s.off = it.to
	if it.tail {
		s.off = end
	}
	return it
}

// rest is what is left when no header fits any more.
func (s *scanner) rest(end int64) found {
	if s.off >= end {
		return found{step: stepEnd, from: s.off, to: s.off}
	}
	return s.lost(end, end)
}

// lastNonZero returns the offset behind the last byte below end that is not
// zero, from for none.
func (s *scanner) lastNonZero(from, end int64) int64 {
	last := from
	for off := from; off < end; {
		b := s.at(off, int(min(end-off, scanWindow/2)), end)
		if !allZero(b) {
			for i := len(b) - 1; i >= 0; i-- {
				if b[i] != 0 {
					last = off + int64(i) + 1
					break
				}
			}
		}
		off += int64(len(b))
	}
	return last
}

// hasEmptySector reports whether a sector that the range touches was never
// written: it is zero from where the range or the sector begins to the sector's
// end. The range has at least a header, of which the second half may be what is
// missing.
func (s *scanner) hasEmptySector(from, to, end int64) bool {
	to = min(end, max(to, from+frameHeader))
	for off := from; off < to; {
		n := min(sector-off%sector, end-off)
		if allZero(s.at(off, int(n), end)) {
			return true
		}
		off += n
	}
	return false
}

// at returns n bytes at off. What the file does not have reads as zeros; what
// the disk cannot read comes as 0xff, which is no frame and not empty.
func (s *scanner) at(off int64, n int, end int64) []byte {
	if off >= s.base && off+int64(n) <= s.base+int64(s.fill) {
		i := int(off - s.base)
		return s.buf[i : i+n]
	}
	want := int(max(int64(n), min(scanWindow, end-off)))
	if cap(s.buf) < want {
		s.buf = make([]byte, max(want, scanWindow))
	}
	s.buf = s.buf[:cap(s.buf)]
	s.base, s.fill = off, want
	got, err := s.src.ReadAt(s.buf[:want], off)
	if err != nil && !errors.Is(err, io.EOF) {
		s.salvage(off, s.buf[:want])
		return s.buf[:n]
	}
	clear(s.buf[got:want])
	return s.buf[:n]
}

// salvage reads sector by sector what cannot be read at once.
func (s *scanner) salvage(off int64, b []byte) {
	for len(b) > 0 {
		n := min(int(sector-off%sector), len(b))
		got, err := s.src.ReadAt(b[:n], off)
		clear(b[got:n])
		if err != nil && !errors.Is(err, io.EOF) {
			for i := range b[:n] {
				b[i] = 0xff
			}
			s.bad++
		}
		b, off = b[n:], off+int64(n)
	}
}
