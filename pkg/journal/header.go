package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

const (
	version       = 1
	headerBlock   = 4096
	headerSize    = 64
	headerCopy    = 2048
	flagCompacted = 1

	sealPayload = 10 * 8
	sealSize    = frameHeader + sealPayload
	segmentExt  = ".seg"
)

var (
	segmentMagic = []byte("XHJRNL\r\n")
	sealMagic    = []byte("XHSEAL\r\n") // no seal ends in zeros, so a damaged one never looks torn
)

// ErrVersion is a journal written by a newer version of this package. Nothing
// of it was touched.
var ErrVersion = errors.New("newer format version")

// header is what the first block of a segment says.
type header struct {
	flags    byte
	identity uint64
	id       uint64
	first    uint64
	epoch    uint64
	created  time.Time
}

func (h header) encode() []byte {
	block := make([]byte, headerBlock)
	b := block[:headerSize]
	copy(b, segmentMagic)
	b[8], b[9] = version, h.flags
	le.PutUint64(b[16:], h.identity)
	le.PutUint64(b[24:], h.id)
	le.PutUint64(b[32:], h.first)
	le.PutUint64(b[40:], h.epoch)
	le.PutUint64(b[48:], uint64(h.created.UnixMilli()))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	copy(block[headerCopy:], b)
	return block
}

// headerState is how a header block was found.
type headerState byte

const (
	headerGood    headerState = iota
	headerHurt                // one copy, or the zeros around, is damaged
	headerBad                 // neither copy can be read
	headerUnborn              // all zeros: never written
	headerForeign             // of a newer version
)

// parseHeader reads a block of headerBlock bytes. For headerForeign id is the
// version.
func parseHeader(block []byte) (header, headerState) {
	a, b := block[:headerSize], block[headerCopy:headerCopy+headerSize]
	goodA, goodB := goodHeader(a, segmentMagic), goodHeader(b, segmentMagic)
	from := a
	if !goodA {
		from = b
	}
	if !goodA && !goodB {
		if allZero(block) {
			return header{}, headerUnborn
		}
		return header{}, headerBad
	}
	if from[8] > version {
		return header{id: uint64(from[8])}, headerForeign
	}
	h := header{
		flags:    from[9],
		identity: le.Uint64(from[16:]),
		id:       le.Uint64(from[24:]),
		first:    le.Uint64(from[32:]),
		epoch:    le.Uint64(from[40:]),
		created:  time.UnixMilli(int64(le.Uint64(from[48:]))),
	}
	if !goodA || !goodB || !bytes.Equal(a, b) ||
		!allZero(block[headerSize:headerCopy]) || !allZero(block[headerCopy+headerSize:]) {
		return h, headerHurt
	}
	return h, headerGood
}

// goodHeader checks what segment headers and slots have in common.
func goodHeader(b, magic []byte) bool {
	return bytes.Equal(b[:8], magic) && crc32.Checksum(b[:60], castagnoli) == le.Uint32(b[60:])
}

func allZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if le.Uint64(b) != 0 {
			return false
		}
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// summary is what a seal says of its segment.
type summary struct {
	records     uint64
	first, last uint64
	sealed      time.Time
	end         int64
	counts      [NumClasses]uint64
}

func (s summary) encode(epoch uint32) []byte {
	var b [sealPayload]byte
	le.PutUint64(b[0:], s.records)
	le.PutUint64(b[8:], s.first)
	le.PutUint64(b[16:], s.last)
	le.PutUint64(b[24:], uint64(s.sealed.UnixMilli()))
	le.PutUint64(b[32:], uint64(s.end))
	for c, n := range s.counts {
		le.PutUint64(b[40+8*c:], n)
	}
	copy(b[sealPayload-8:], sealMagic)
	return appendFrame(nil, frame{payloadCRC: payloadCRC(b[:]), length: sealPayload, kind: kindSeal, epoch: epoch, sequence: s.last}, b[:])
}

// parseSeal reads a whole seal frame.
func parseSeal(b []byte, salt uint32) (summary, bool) {
	f, ok := parseFrame(b, salt)
	if !ok || f.kind != kindSeal || f.length != sealPayload || payloadCRC(b[frameHeader:]) != f.payloadCRC {
		return summary{}, false
	}
	b = b[frameHeader:]
	s := summary{
		records: le.Uint64(b[0:]),
		first:   le.Uint64(b[8:]),
		last:    le.Uint64(b[16:]),
		sealed:  time.UnixMilli(int64(le.Uint64(b[24:]))),
		end:     int64(le.Uint64(b[32:])),
	}
	for c := range s.counts {
		s.counts[c] = le.Uint64(b[40+8*c:])
	}
	return s, true
}

// add counts a record in.
func (s *summary) add(f frame) {
	if s.records == 0 {
		s.first = f.sequence
	}
	s.records++
	s.last = f.sequence
	s.counts[f.class]++
}

func segmentName(id uint64) string { return fmt.Sprintf("%016x%s", id, segmentExt) }

// segmentID reads a segment's id from its name; false for any other file.
func segmentID(name string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, segmentExt)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	return id, err == nil && id > 0
}
