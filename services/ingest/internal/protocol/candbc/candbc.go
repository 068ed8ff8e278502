// Package candbc decodes CAN frames by a DBC file, which names the signals in
// each message and gives their place, scale and unit.
//
// A signal becomes a value named after it and its unit: WHEEL_SPEED_RR in KPH is
// `wheel_speed_rr_kilometres_per_hour`. A signal whose numbers have names (VAL_)
// also becomes a text, `gear_shifter_name`. The range that a DBC file states is
// not applied: files in use state wrong ones, and a value out of range is for
// policy to judge.
package candbc

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"go.einride.tech/can"
	"go.einride.tech/can/pkg/dbc"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

const (
	// MaxFile is the longest DBC file that is read, in bytes.
	MaxFile = 8 << 20
	// MaxSignals is the most signals of a message: each of 64 bits.
	MaxSignals = 64
)

// ErrFile means that a DBC file cannot be used. Match it with errors.Is.
var ErrFile = errors.New("candbc: DBC file")

// key is an identifier with its kind.
type key struct {
	id       uint32
	extended bool
}

// Database is a compiled DBC file. It does not change and may be used by any
// number of goroutines.
type Database struct {
	messages map[key]*Message
}

// Message is what one identifier's frames hold.
type Message struct {
	// Name is the message's name in lower case, 1 to 64 of [a-z0-9_].
	Name string

	signals []signal
	mux     int // the signal that says which of the multiplexed are there, or -1
}

// encoding is how a signal's bits read.
type encoding uint8

const (
	unsigned encoding = iota
	signed
	float32Bits
	float64Bits
)

type signal struct {
	label       string // in the file
	name        string
	textName    string
	texts       map[int64]string
	scale       float64
	offset      float64
	muxValue    uint64
	start       uint8
	length      uint8
	bytes       uint8 // how long a frame must be to hold it
	bigEndian   bool
	encoding    encoding
	multiplexed bool
}

// Compile reads a DBC file of at most MaxFile bytes, in UTF-8 or Latin-1. Every
// error is ErrFile and names what is wrong: a syntax error with its line, a
// signal outside of the 64 bits, a scale of zero, two signals of a message that
// would have one name, a name over 64 bytes, or CAN FD.
func Compile(file []byte) (*Database, error) {
	if len(file) > MaxFile {
		return nil, fmt.Errorf("%w: must have at most %d bytes, has %d", ErrFile, MaxFile, len(file))
	}
	defs, err := parse(toUTF8(file))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	db := &Database{messages: make(map[key]*Message)}
	for _, def := range defs {
		m, ok := def.(*dbc.MessageDef)
		if !ok || m.MessageID == dbc.IndependentSignalsMessageID {
			continue
		}
		k := key{m.MessageID.ToCAN(), m.MessageID.IsExtended()}
		if _, ok := db.messages[k]; ok {
			return nil, fmt.Errorf("%w: message %s: identifier %d is used twice", ErrFile, m.Name, k.id)
		}
		compiled, err := compile(m)
		if err != nil {
			return nil, fmt.Errorf("%w: message %s: %w", ErrFile, m.Name, err)
		}
		db.messages[k] = compiled
	}
	if len(db.messages) == 0 {
		return nil, fmt.Errorf("%w: has no messages", ErrFile)
	}
	for _, def := range defs {
		if err := db.describe(def); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFile, err)
		}
	}
	return db, nil
}

// parse runs the parser, whose panics on odd input are errors here.
func parse(file []byte) (defs []dbc.Def, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("parser: %v", r)
		}
	}()
	p := dbc.NewParser("dbc", file)
	if err := p.Parse(); err != nil {
		return nil, err
	}
	return p.Defs(), nil
}

// toUTF8 reads what is not UTF-8 as Latin-1, which old tools write °C in.
func toUTF8(file []byte) []byte {
	if utf8.Valid(file) {
		return file
	}
	out := make([]byte, 0, len(file)+len(file)/8)
	for _, b := range file {
		out = utf8.AppendRune(out, rune(b))
	}
	return out
}

func compile(def *dbc.MessageDef) (*Message, error) {
	m := &Message{Name: lower(string(def.Name)), mux: -1}
	switch {
	case !protocol.IsName(m.Name):
		return nil, fmt.Errorf("name: must be 1 to %d bytes", protocol.MaxName)
	case def.Size > can.MaxDataLength:
		return nil, fmt.Errorf("size: must be at most %d bytes, is %d (CAN FD)", can.MaxDataLength, def.Size)
	case len(def.Signals) > MaxSignals:
		return nil, fmt.Errorf("signals: must be at most %d, are %d", MaxSignals, len(def.Signals))
	}
	names := make(map[string]bool, len(def.Signals))
	for i := range def.Signals {
		s, err := compileSignal(&def.Signals[i])
		if err != nil {
			return nil, fmt.Errorf("signal %s: %w", def.Signals[i].Name, err)
		}
		if names[s.name] {
			return nil, fmt.Errorf("signal %s: the name %s is another signal's", s.label, s.name)
		}
		names[s.name] = true
		if def.Signals[i].IsMultiplexerSwitch {
			if m.mux >= 0 {
				return nil, fmt.Errorf("signal %s: a second multiplexer", s.label)
			}
			m.mux = len(m.signals)
		}
		m.signals = append(m.signals, s)
	}
	for _, s := range m.signals {
		if s.multiplexed && m.mux < 0 {
			return nil, fmt.Errorf("signal %s: multiplexed without a multiplexer", s.label)
		}
	}
	return m, nil
}

func compileSignal(def *dbc.SignalDef) (signal, error) {
	s := signal{
		label: string(def.Name), scale: def.Factor, offset: def.Offset,
		bigEndian: def.IsBigEndian, multiplexed: def.IsMultiplexed, muxValue: def.MultiplexerSwitch,
	}
	if def.IsSigned {
		s.encoding = signed
	}
	if def.Size < 1 || def.Size > 64 || def.StartBit > 63 {
		return s, fmt.Errorf("must have 1 to 64 bits from bit 0 to 63, has %d from bit %d", def.Size, def.StartBit)
	}
	s.start, s.length = uint8(def.StartBit), uint8(def.Size)
	// Motorola signals count down within a byte and on to the next.
	first := int(s.start)
	if s.bigEndian {
		first = first/8*8 + 7 - first%8
	}
	last := first + int(s.length) - 1
	if last > 63 {
		return s, fmt.Errorf("must end within 64 bits, has %d from bit %d", def.Size, def.StartBit)
	}
	s.bytes = uint8(last/8 + 1)
	if s.scale == 0 || math.IsInf(s.scale, 0) || math.IsNaN(s.scale) || math.IsInf(s.offset, 0) || math.IsNaN(s.offset) {
		return s, fmt.Errorf("scale must be finite and not 0, offset finite, are %v and %v", s.scale, s.offset)
	}
	s.name = valueName(s.label, def.Unit)
	if !protocol.IsName(s.name) {
		return s, fmt.Errorf("name with unit: must be 1 to %d bytes, is %.100q", protocol.MaxName, s.name)
	}
	return s, nil
}

// describe takes the types and the names of numbers that a file states behind
// its messages.
func (db *Database) describe(def dbc.Def) error {
	switch def := def.(type) {
	case *dbc.SignalValueTypeDef:
		s := db.find(def.MessageID, def.SignalName)
		if s == nil {
			return fmt.Errorf("SIG_VALTYPE_ of %s: no such signal", def.SignalName)
		}
		switch def.SignalValueType {
		case dbc.SignalValueTypeFloat32:
			s.encoding = float32Bits
		case dbc.SignalValueTypeFloat64:
			s.encoding = float64Bits
		case dbc.SignalValueTypeInt:
		}
		if (s.encoding == float32Bits && s.length != 32) || (s.encoding == float64Bits && s.length != 64) {
			return fmt.Errorf("signal %s: a float must have 32 or 64 bits as its type says, has %d", s.label, s.length)
		}
	case *dbc.ValueDescriptionsDef:
		s := db.find(def.MessageID, def.SignalName)
		if def.ObjectType != dbc.ObjectTypeSignal || s == nil {
			return nil // of an environment variable, or of a message that is not there
		}
		s.textName = lower(s.label) + "_name"
		if !protocol.IsName(s.textName) {
			return fmt.Errorf("signal %s: name must be 1 to %d bytes", s.label, protocol.MaxName-len("_name"))
		}
		for _, other := range db.messages[key{def.MessageID.ToCAN(), def.MessageID.IsExtended()}].signals {
			if other.name == s.textName {
				return fmt.Errorf("signal %s: the name %s of its names is another signal's", s.label, s.textName)
			}
		}
		s.texts = make(map[int64]string, len(def.ValueDescriptions))
		for _, d := range def.ValueDescriptions {
			if len(d.Description) > 256 {
				return fmt.Errorf("signal %s: the name of %v must be at most 256 bytes, is %d", s.label, d.Value, len(d.Description))
			}
			s.texts[int64(d.Value)] = d.Description
		}
	}
	return nil
}

func (db *Database) find(id dbc.MessageID, name dbc.Identifier) *signal {
	m := db.messages[key{id.ToCAN(), id.IsExtended()}]
	if m == nil {
		return nil
	}
	for i := range m.signals {
		if m.signals[i].label == string(name) {
			return &m.signals[i]
		}
	}
	return nil
}
