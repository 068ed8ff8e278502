package journal

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	frameHeader = 24
	frameAlign  = 8
	lengthMask  = 1<<24 - 1

	kindRecord = 0
	kindSeal   = 1
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeroPad    [frameAlign]byte
	le         = binary.LittleEndian
)

// frame is what a frame's header says.
type frame struct {
	payloadCRC uint32
	length     int
	kind       byte
	class      Class
	epoch      uint32
	sequence   uint64
}

// size returns the bytes of the frame with its padding.
func (f frame) size() int64 { return frameSize(f.length) }

func frameSize(payload int) int64 {
	return frameHeader + int64(payload+frameAlign-1)&^(frameAlign-1)
}

// saltOf makes the frames of each segment of each journal its own.
func saltOf(identity, segment uint64) uint32 {
	var b [16]byte
	le.PutUint64(b[0:], identity)
	le.PutUint64(b[8:], segment)
	return crc32.Checksum(b[:], castagnoli)
}

// payloadCRC covers the padding, so that no bit of a frame is unguarded.
func payloadCRC(payload []byte) uint32 {
	crc := crc32.Update(0, castagnoli, payload)
	if pad := -len(payload) & (frameAlign - 1); pad > 0 {
		crc = crc32.Update(crc, castagnoli, zeroPad[:pad])
	}
	return crc
}

// appendFrame appends a frame whose header CRC is still to be stamped: the
// salt is known when the frame is written, not when it is queued.
func appendFrame(dst []byte, f frame, payload []byte) []byte {
	var h [frameHeader]byte
	le.PutUint32(h[4:], f.payloadCRC)
	le.PutUint32(h[8:], uint32(f.length)|uint32(f.kind<<4|byte(f.class))<<24)
	le.PutUint32(h[12:], f.epoch)
	le.PutUint64(h[16:], f.sequence)
	dst = append(dst, h[:]...)
	dst = append(dst, payload...)
	return append(dst, zeroPad[:-len(payload)&(frameAlign-1)]...)
}

// stamp sets the header CRC of every frame in frames.
func stamp(frames []byte, salt uint32) {
	for len(frames) >= frameHeader {
		le.PutUint32(frames, crc32.Update(salt, castagnoli, frames[4:frameHeader]))
		frames = frames[frameSize(int(le.Uint32(frames[8:])&lengthMask)):]
	}
}

// firstSequence returns the sequence of the first frame, 0 for none.
func firstSequence(frames []byte) uint64 {
	if len(frames) < frameHeader {
		return 0
	}
	return le.Uint64(frames[16:])
}

// countFrames returns the number of frames of each class.
func countFrames(frames []byte) (counts [NumClasses]uint64) {
	for len(frames) >= frameHeader {
		word := le.Uint32(frames[8:])
		counts[word>>24&(NumClasses-1)]++
		frames = frames[frameSize(int(word&lengthMask)):]
	}
	return counts
}

// highestClass returns the highest class among frames.
func highestClass(frames []byte) Class {
	for class, counts := Class(NumClasses-1), countFrames(frames); class > Sample; class-- {
		if counts[class] > 0 {
			return class
		}
	}
	return Sample
}

// parseFrame reads a header of frameHeader bytes; false if its CRC is wrong or
// it is of no known kind.
func parseFrame(b []byte, salt uint32) (frame, bool) {
	if crc32.Update(salt, castagnoli, b[4:frameHeader]) != le.Uint32(b) {
		return frame{}, false
	}
	word := le.Uint32(b[8:])
	f := frame{
		payloadCRC: le.Uint32(b[4:]),
		length:     int(word & lengthMask),
		kind:       byte(word >> 28),
		class:      Class(word >> 24 & 0xf),
		epoch:      le.Uint32(b[12:]),
		sequence:   le.Uint64(b[16:]),
	}
	return f, f.kind <= kindSeal && f.class < NumClasses
}
