package abi_test

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/policy/guest/xh"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/abi"
)

func TestAppend(t *testing.T) {
	r := &abi.Reading{Device: "m1", Source: "ws", Sequence: 0x0102, UnixNano: -1, Values: []abi.Value{
		{Name: "v", Number: 1}, {Name: "s", Text: "é", IsText: true},
	}}
	want := "\x02\x01\x00\x00\x00\x00\x00\x00" + // sequence
		"\xff\xff\xff\xff\xff\xff\xff\xff" + // time
		"\x02\x00\x02\x00\x02\x00\x00\x00" + // lengths, count, reserved
		"m1ws" +
		"\x00\x01\x08\x00v\x00\x00\x00\x00\x00\x00\xf0\x3f" +
		"\x01\x01\x02\x00s\xc3\xa9"
	if got, err := abi.Append(nil, r); err != nil || string(got) != want {
		t.Errorf("Append(%+v) = %q, %v, want %q", r, got, err, want)
	}
}

func TestLargestFits(t *testing.T) {
	r := &abi.Reading{Device: strings.Repeat("d", abi.MaxDevice), Source: strings.Repeat("s", abi.MaxSource)}
	for range abi.MaxValues {
		r.Values = append(r.Values, abi.Value{Name: strings.Repeat("n", abi.MaxName), Text: strings.Repeat("t", abi.MaxText), IsText: true})
	}
	raw, err := abi.Append(nil, r)
	if err != nil || len(raw) != 20888 || len(raw) > abi.BufferSize || abi.BufferSize != xh.BufferSize {
		t.Errorf("the largest reading takes %d bytes, %v, want 20888 and at most %d = %d", len(raw), err, abi.BufferSize, xh.BufferSize)
	}
}

func TestUnpack(t *testing.T) {
	a, reason, output := abi.Unpack(xh.Verdict(xh.Alert, 0x123456) | 0x89abcdef)
	if a != abi.Alert || reason != 0x123456 || output != 0x89abcdef {
		t.Errorf("Unpack() = %v, %#x, %#x", a, reason, output)
	}
}

// FuzzParse asserts that what parses is written back the same, and that a guest
// reads the same reading from it.
func FuzzParse(f *testing.F) {
	for _, r := range []abi.Reading{
		{Device: "m1", Source: "ws", Sequence: 1, Values: []abi.Value{{Name: "v", Number: math.NaN()}}},
		{Device: "m1", UnixNano: math.MinInt64, Values: []abi.Value{{Name: "温度", Text: "热", IsText: true}, {Name: "v", Number: math.Inf(-1)}}},
	} {
		raw, err := abi.Append(nil, &r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := abi.Parse(raw)
		readAsGuest(t, raw, r)
		if err != nil {
			return
		}
		again, err := abi.Append(nil, r)
		if err == nil && !bytes.Equal(again, raw) {
			t.Errorf("Append(Parse(%q)) = %q", raw, again)
		}
	})
}

// readAsGuest must not panic for any bytes, and agrees with r when it is there.
func readAsGuest(t *testing.T, raw []byte, r *abi.Reading) {
	g, ok := xh.NewReading(raw)
	if !ok {
		if r != nil {
			t.Errorf("a guest refuses %q", raw)
		}
		return
	}
	got := abi.Reading{Device: g.Device(), Source: g.Source(), Sequence: g.Sequence(), UnixNano: g.UnixNano()}
	for values := g.Values(); values.Next(); {
		v := abi.Value{Name: values.Name()}
		if n, ok := values.Number(); ok {
			v.Number = n
		}
		v.Text, v.IsText = values.Text()
		got.Values = append(got.Values, v)
	}
	if r == nil {
		return
	}
	clean := *r
	clean.Values = slices.Clone(r.Values)
	for i := range got.Values { // NaN is not equal to itself
		if math.Float64bits(got.Values[i].Number) == math.Float64bits(clean.Values[i].Number) {
			got.Values[i].Number, clean.Values[i].Number = 0, 0
		}
	}
	if !reflect.DeepEqual(got, clean) {
		t.Errorf("a guest reads %+v, want %+v", got, clean)
	}
}
