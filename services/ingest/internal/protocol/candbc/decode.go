package candbc

import (
	"math"

	"go.einride.tech/can"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

// Message returns the message that a frame is. ok is false when the file has
// none with its identifier. Some loggers write standard identifiers with 8
// digits, as if they were extended: an extended identifier of 11 bits that the
// file does not have is looked for among the standard ones.
func (db *Database) Message(f *can.Frame) (m *Message, ok bool) {
	m, ok = db.messages[key{f.ID, f.IsExtended}]
	if !ok && f.IsExtended && f.ID <= can.MaxID {
		m, ok = db.messages[key{f.ID, false}]
	}
	return m, ok
}

// MaxValues returns the most values that a frame of the message has.
func (m *Message) MaxValues() int {
	n := len(m.signals)
	for i := range m.signals {
		if m.signals[i].texts != nil {
			n++
		}
	}
	return n
}

// Append appends the values in a frame of the message. Signals that a short or
// remote frame does not hold are left out, as are those that the multiplexer
// does not select. It allocates nothing when dst has room.
func (m *Message) Append(dst []protocol.Value, f *can.Frame) []protocol.Value {
	length := f.Length
	if f.IsRemote {
		length = 0
	}
	selected, hasMux := uint64(0), false
	if m.mux >= 0 && m.signals[m.mux].bytes <= length {
		selected, hasMux = m.signals[m.mux].bits(&f.Data), true
	}
	for i := range m.signals {
		s := &m.signals[i]
		if s.bytes > length || (s.multiplexed && (!hasMux || s.muxValue != selected)) {
			continue
		}
		raw := s.bits(&f.Data)
		dst = append(dst, protocol.Value{Name: s.name, Number: s.number(raw)})
		if text := s.texts[s.integer(raw)]; text != "" && s.encoding <= signed {
			dst = append(dst, protocol.Value{Name: s.textName, Text: text})
		}
	}
	return dst
}

// bits returns the signal's bits as they are.
func (s *signal) bits(d *can.Data) uint64 {
	if s.bigEndian {
		return d.UnsignedBitsBigEndian(s.start, s.length)
	}
	return d.UnsignedBitsLittleEndian(s.start, s.length)
}

// integer returns the bits as an integer; a negative one is sign-extended.
func (s *signal) integer(raw uint64) int64 {
	if s.encoding == signed {
		shift := 64 - s.length
		return int64(raw<<shift) >> shift
	}
	return int64(raw)
}

func (s *signal) number(raw uint64) float64 {
	var v float64
	switch s.encoding {
	case unsigned:
		v = float64(raw)
	case signed:
		v = float64(s.integer(raw))
	case float32Bits:
		v = float64(math.Float32frombits(uint32(raw)))
	case float64Bits:
		v = math.Float64frombits(raw)
	}
	return v*s.scale + s.offset
}
