package candump_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"go.einride.tech/can"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/candump"
)

// line is of a sample log published with aphryx-canx.
const line = "(1587955771.851058) vcan0 00000285#1DB01DB000000000"

func TestParse(t *testing.T) {
	for in, want := range map[string]can.Frame{
		line:                                 {ID: 0x285, IsExtended: true, Length: 8, Data: can.Data{0x1D, 0xB0, 0x1D, 0xB0}},
		"(1587955771.851058) can0 7ff#":      {ID: 0x7FF},
		"(1587955771.851058) can0 123#aB T":  {ID: 0x123, Length: 1, Data: can.Data{0xAB}},
		"(0.000000) can0 123#R":              {ID: 0x123, IsRemote: true},
		"(1587955771.851058) can0 123#R8":    {ID: 0x123, IsRemote: true, Length: 8},
		"(1587955771.851058)  can0  123#00 ": {ID: 0x123, Length: 1},
	} {
		var r candump.Record
		if err := r.Parse([]byte(in)); err != nil || r.Frame != want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", in, r.Frame, err, want)
		}
	}
	var r candump.Record
	if err := r.Parse([]byte(line)); err != nil || !r.Time.Equal(time.UnixMicro(1587955771851058)) || r.Interface != "vcan0" {
		t.Errorf("Parse = %+v, %v", r, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]error{
		"":                                                    candump.ErrLine,
		"1587955771.851058 can0 123#":                         candump.ErrLine,
		"(1587955771.85105) can0 123#":                        candump.ErrLine,
		"(158795577x.851058) can0 123#":                       candump.ErrLine,
		"(158795577100.851058) can0 12#":                      candump.ErrLine,
		"(.851058) can0 123#":                                 candump.ErrLine,
		"(1587955771.851058)":                                 candump.ErrLine,
		"(1587955771.851058) can0":                            candump.ErrLine,
		"(1587955771.851058) sixteen-letters- 123#":           candump.ErrLine,
		"(1587955771.851058) can0 12#":                        candump.ErrLine,
		"(1587955771.851058) can0 123":                        candump.ErrLine,
		"(1587955771.851058) can0 800#":                       candump.ErrLine,
		"(1587955771.851058) can0 123456789#":                 candump.ErrLine,
		"(1587955771.851058) can0 12g#":                       candump.ErrLine,
		"(1587955771.851058) can0 123#0":                      candump.ErrLine,
		"(1587955771.851058) can0 123#0g":                     candump.ErrLine,
		"(1587955771.851058) can0 123#000000000000000000":     candump.ErrLine,
		"(1587955771.851058) can0 123#R9":                     candump.ErrLine,
		"(1587955771.851058) can0 123#00 X":                   candump.ErrLine,
		"(1587955771.851058) can0 123#00 T T":                 candump.ErrLine,
		"(1587955771.851058) can0 C0000000#":                  candump.ErrLine,
		"(1587955771.851058) can0 123##1AABB":                 candump.ErrFD,
		"(1587955771.851058) can0 20000004#0001000000000000 ": candump.ErrErrorFrame,
	} {
		var r candump.Record
		if err := r.Parse([]byte(in)); !errors.Is(err, want) {
			t.Errorf("Parse(%q) = %+v, %v, want %v", in, r, err, want)
		}
	}
}

func TestReader(t *testing.T) {
	log := strings.Join([]string{line + "\r", "", "rubbish", strings.Repeat("x", 1000), line, "(1587955771.851059) can1 123##0", line}, "\n")
	r := candump.NewReader(strings.NewReader(log))
	var rec candump.Record
	for i, want := range []struct {
		line int
		err  error
	}{{1, nil}, {3, candump.ErrLine}, {4, candump.ErrLine}, {5, nil}, {6, candump.ErrFD}, {7, nil}, {8, io.EOF}} {
		if err := r.Next(&rec); !errors.Is(err, want.err) || r.Line() != want.line {
			t.Errorf("Next %d = %v at line %d, want %v at line %d", i, err, r.Line(), want.err, want.line)
		}
	}
	broken := candump.NewReader(io.MultiReader(strings.NewReader(strings.Repeat("x", 300)), brokenReader{}))
	if err := broken.Next(&rec); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Next of a broken reader = %v, want its error", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestParseAllocatesNothing(t *testing.T) {
	var r candump.Record
	raw := []byte(line)
	if err := r.Parse(raw); err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(100, func() {
		if err := r.Parse(raw); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("a line allocates %v times, want 0", got)
	}
}

func BenchmarkParse(b *testing.B) {
	var r candump.Record
	raw := []byte(line)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mlines/s")
}

// FuzzParse holds that a line that is read can be written and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{line, "(1587955771.851058) can0 123#R8", "(0.000000) can0 7FF# T", "(1.000000) can0 123##1AABB"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r, again candump.Record
		if r.Parse(raw) != nil {
			return
		}
		if err := r.Frame.Validate(); err != nil {
			t.Fatalf("frame of %q: %v", raw, err)
		}
		written := r.Append(nil)
		if bytes.ContainsAny(raw, "\n") {
			return
		}
		if err := again.Parse(written); err != nil || again.Frame != r.Frame || !again.Time.Equal(r.Time) || again.Interface != r.Interface {
			t.Fatalf("%q became %q: %+v, %v", raw, written, again, err)
		}
	})
}
