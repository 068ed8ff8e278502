package dlt645

import "errors"

// Decoder finds frames in a stream of bytes from a line that loses, invents and
// changes some. It holds at most one frame's worth of bytes, whatever the line
// sends, and allocates nothing. The zero Decoder is ready.
//
//	for len(p) > 0 {
//		p = p[d.Feed(p):]
//		for d.Next(&f) { … }
//	}
//
// A broken frame costs one byte: the search goes on behind its 68H, so that a
// good frame inside what looked like a bad one is found. A Decoder is for one
// goroutine.
type Decoder struct {
	r, w  int
	buf   [2 * MaxFrame]byte
	stats Stats
}

// Stats counts what a Decoder saw since it was made.
type Stats struct {
	// Frames were complete and had the right sum.
	Frames uint64
	// WrongChecksums looked like frames but for the sum.
	WrongChecksums uint64
	// NoiseBytes were part of no frame; wake-up bytes are not counted.
	NoiseBytes uint64
}

// Stats returns the counts.
func (d *Decoder) Stats() Stats { return d.stats }

// Feed takes bytes from the start of p and returns how many. After Next has
// returned false it takes at least one.
func (d *Decoder) Feed(p []byte) int {
	if d.r > 0 {
		copy(d.buf[:], d.buf[d.r:d.w])
		d.w -= d.r
		d.r = 0
	}
	n := copy(d.buf[d.w:], p)
	d.w += n
	return n
}

// Next reads the next complete frame into f. It returns false when there is
// none before more bytes come.
func (d *Decoder) Next(f *Frame) bool {
	for d.r < d.w {
		switch d.buf[d.r] {
		case wakeUp:
			d.r++
			continue
		case frameStart:
		default:
			d.skip()
			continue
		}
		size, err := check(d.buf[d.r:d.w])
		switch {
		case err == nil:
			f.fill(d.buf[d.r : d.r+size])
			d.r += size
			d.stats.Frames++
			return true
		case errors.Is(err, ErrShort):
			return false
		case errors.Is(err, ErrChecksum):
			d.stats.WrongChecksums++
		}
		d.skip()
	}
	return false
}

func (d *Decoder) skip() {
	d.r++
	d.stats.NoiseBytes++
}

// Salvage is Next for a line that has been silent for longer than the gap that
// the standard allows within a frame (500 ms): what began will not be
// completed, but noise that looked like the start of a long frame may have a
// whole one behind it. It is to be called until it returns false; then nothing
// is held.
func (d *Decoder) Salvage(f *Frame) bool {
	for d.r < d.w {
		if d.Next(f) {
			return true
		}
		if d.r < d.w {
			d.skip()
		}
	}
	return false
}

// Reset forgets all bytes, for example before the next request on a bus.
func (d *Decoder) Reset() {
	d.stats.NoiseBytes += uint64(d.w - d.r)
	d.r, d.w = 0, 0
}
