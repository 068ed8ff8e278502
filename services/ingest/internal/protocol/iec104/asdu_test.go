package iec104_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/iec104"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("hex %q: %v", s, err)
	}
	return b
}

// telegrams were captured on real lines and published with tritaer/IEC104. The
// double points are short of a byte there (their length byte says so); here the
// first address has its third byte.
var telegrams = []struct {
	raw    string
	format iec104.Format
	send   uint16
	recv   uint16
	typ    iec104.Type
	cause  iec104.Cause
	common uint16
	want   []iec104.Object
}{
	{raw: "680401002200", format: iec104.FormatS, recv: 0x11},
	{raw: "680407000000", format: iec104.FormatU},
	{
		"680fa64404020182140073 00fb0100 0001", iec104.FormatI, 0x2253, 0x0102, iec104.SinglePoint, iec104.Interrogated, 0x73,
		[]iec104.Object{{Address: 507}, {Address: 508, Value: 1}},
	},
	{
		"6812124400020302140073005a000002eb030000", iec104.FormatI, 0x2209, 0x0100, iec104.DoublePoint, iec104.Interrogated, 0x73,
		[]iec104.Object{{Address: 90, Value: 2}, {Address: 1003}},
	},
	{
		"6817a80004000d820157 5700e70b000ad7a3bb007f6abc3c00", iec104.FormatI, 0x54, 0x02, iec104.ShortFloat, iec104.Periodic, 0x57,
		[]iec104.Object{{Address: 3047, Value: float64(float32(-0.005))}, {Address: 3048, Value: float64(float32(0.023))}},
	},
	{
		"681542ebd2011e0103008000b0360001afe11d14700615", iec104.FormatI, 0x75A1, 0xE9, iec104.SinglePointTime, iec104.Spontaneous, 0x80,
		[]iec104.Object{{Address: 14000, Value: 1, Timed: true, Time: iec104.Time{Year: 2021, Month: 6, Day: 16, Weekday: 3, Hour: 20, Minute: 29, Millisecond: 57775}}},
	},
	{
		"680e0000040064010600710000000014", iec104.FormatI, 0, 2, iec104.InterrogationType, iec104.Activation, 0x71,
		[]iec104.Object{{Value: 20}},
	},
}

func objects(a iec104.ASDU) []iec104.Object {
	var os []iec104.Object
	for i := range a.Count {
		os = append(os, a.Object(i))
	}
	return os
}

func TestCapturedTelegrams(t *testing.T) {
	for _, tt := range telegrams {
		raw := unhex(t, tt.raw)
		a, n, err := iec104.ParseAPDU(raw)
		if err != nil || n != len(raw) || a.Format != tt.format || a.Send != tt.send || a.Receive != tt.recv {
			t.Errorf("ParseAPDU(%s) = %+v, %d, %v, want %+v", tt.raw, a, n, err, tt)
			continue
		}
		if again := a.Append(nil); !bytes.Equal(again, raw) {
			t.Errorf("Append(%s) = % x", tt.raw, again)
		}
		if tt.format != iec104.FormatI {
			continue
		}
		asdu, err := iec104.ParseASDU(a.ASDU)
		if err != nil || asdu.Type != tt.typ || asdu.Cause != tt.cause || asdu.Common != tt.common {
			t.Errorf("ParseASDU(%s) = %+v, %v, want %+v", tt.raw, asdu, err, tt)
			continue
		}
		if got := objects(asdu); !slices.Equal(got, tt.want) {
			t.Errorf("objects of %s = %+v, want %+v", tt.raw, got, tt.want)
		}
	}
}

func TestObjects(t *testing.T) {
	// Behind type and qualifier: cause 3, common address 1.
	for name, tt := range map[string]struct {
		raw  string
		want []iec104.Object
	}{
		"single point, each quality": {"01 05 0300 0100 010000 01 020000 11 030000 20 040000 41 050000 80", []iec104.Object{
			{Address: 1, Value: 1},
			{Address: 2, Value: 1, Quality: iec104.Blocked},
			{Address: 3, Quality: iec104.Substituted},
			{Address: 4, Value: 1, Quality: iec104.NotTopical},
			{Address: 5, Quality: iec104.Invalid},
		}},
		"double point":           {"03 82 0300 0100 feffff 81 03", []iec104.Object{{Address: 1<<24 - 2, Value: 1, Quality: iec104.Invalid}, {Address: 1<<24 - 1, Value: 3}}},
		"normalised":             {"09 02 0300 0100 010000 0080 00 020000 ff7f 01", []iec104.Object{{Address: 1, Value: -1}, {Address: 2, Value: 1 - 1.0/32768, Quality: iec104.Overflow}}},
		"scaled":                 {"0b 01 0300 0100 010000 0080 00", []iec104.Object{{Address: 1, Value: -32768}}},
		"double point with time": {"1f 01 0300 0100 010000 02 00009e8b1d0546", []iec104.Object{{Address: 1, Value: 2, Timed: true, Time: iec104.Time{Invalid: true, SummerTime: true, Year: 1970, Month: 5, Day: 29, Hour: 11, Minute: 30}}}},
		"normalised with time":   {"22 01 0300 0100 010000 0040 00 5fea3b17df0c45", []iec104.Object{{Address: 1, Value: 0.5, Timed: true, Time: iec104.Time{Year: 2069, Month: 12, Day: 31, Weekday: 6, Hour: 23, Minute: 59, Millisecond: 59999}}}},
		"scaled with time":       {"23 01 0300 0100 010000 0100 00 00000000010118", []iec104.Object{{Address: 1, Value: 1, Timed: true, Time: iec104.Time{Year: 2024, Month: 1, Day: 1}}}},
		"float with bad time":    {"24 01 0300 0100 010000 0000803f 00 60ea0000010118", []iec104.Object{{Address: 1, Value: 1, Timed: true, Time: iec104.Time{Invalid: true, Year: 2024, Month: 1, Day: 1, Millisecond: 60000}}}},
		"end of initialisation":  {"46 01 0400 0100 000000 02", []iec104.Object{{Value: 2}}},
	} {
		asdu, err := iec104.ParseASDU(unhex(t, tt.raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := objects(asdu); !slices.Equal(got, tt.want) {
			t.Errorf("%s = %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for raw, want := range map[string]error{
		"":                                       iec104.ErrShort,
		"68":                                     iec104.ErrShort,
		"6804010000":                             iec104.ErrShort,
		"6812124400020302140073005a0002eb030000": iec104.ErrShort, // as published
		"67":                                     iec104.ErrFrame,
		"6803":                                   iec104.ErrFrame,
		"68fe":                                   iec104.ErrFrame,
		"680400000000":                           iec104.ErrFrame, // I without a data unit
		"68050100000000":                         iec104.ErrFrame, // S with one
		"680403000000":                           iec104.ErrFrame, // U without a function
		"68040f000000":                           iec104.ErrFrame, // two functions
		"680407000100":                           iec104.ErrFrame,
		"680401000100":                           iec104.ErrFrame,
		"680405000000":                           iec104.ErrFrame,
		"680401010000":                           iec104.ErrFrame,
		"680a 0000 0100 010103000100":            iec104.ErrFrame,
	} {
		if a, n, err := iec104.ParseAPDU(unhex(t, raw)); !errors.Is(err, want) || n != 0 {
			t.Errorf("ParseAPDU(%s) = %+v, %d, %v, want %v", raw, a, n, err, want)
		}
	}
	for raw, want := range map[string]error{
		"":                              iec104.ErrASDU,
		"0101030001":                    iec104.ErrASDU,
		"0100 0300 0100":                iec104.ErrASDU, // no object
		"0101 0300 0100":                iec104.ErrASDU,
		"0101 0300 0100 010000 01 00":   iec104.ErrASDU,
		"0181 0300 0100 01":             iec104.ErrASDU,
		"0182 0300 0100 ffffff 0101":    iec104.ErrASDU, // the second address does not exist
		"02 01 0300 0100 010000 010000": iec104.ErrUnknownType,
		"ff 01 0300 0100":               iec104.ErrUnknownType,
	} {
		if a, err := iec104.ParseASDU(unhex(t, raw)); !errors.Is(err, want) {
			t.Errorf("ParseASDU(%s) = %+v, %v, want %v", raw, a, err, want)
		}
	}
}

func TestTimeUTC(t *testing.T) {
	at := iec104.Time{Year: 2021, Month: 6, Day: 16, Hour: 20, Minute: 29, Millisecond: 57775}
	summer := at
	summer.SummerTime = true
	for _, tt := range []struct {
		t        iec104.Time
		standard time.Duration
		want     string
	}{
		{at, 0, "2021-06-16T20:29:57.775Z"},
		{at, 8 * time.Hour, "2021-06-16T12:29:57.775Z"},
		{summer, time.Hour, "2021-06-16T18:29:57.775Z"},
	} {
		if got := tt.t.UTC(tt.standard).Format(time.RFC3339Nano); got != tt.want {
			t.Errorf("%+v.UTC(%v) = %s, want %s", tt.t, tt.standard, got, tt.want)
		}
	}
}

func TestQuality(t *testing.T) {
	for q, want := range map[iec104.Quality]string{0: "good", iec104.Invalid | iec104.Overflow: "overflow,invalid", iec104.Blocked | iec104.Substituted | iec104.NotTopical: "blocked,substituted,not_topical"} {
		if got := q.String(); got != want {
			t.Errorf("Quality %02x = %q, want %q", uint8(q), got, want)
		}
	}
	if !iec104.NotTopical.Usable() || iec104.Invalid.Usable() || iec104.Overflow.Usable() {
		t.Error("Usable: want all but invalid and overflow")
	}
}

func TestPoints(t *testing.T) {
	points, err := iec104.NewPoints([]iec104.Point{
		{Common: 0x57, Address: 3047, Name: "current_a_amperes", Scale: 1000, Offset: 5},
		{Common: 0x73, Address: 508, Name: "breaker_closed"},
	})
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := iec104.ParseAPDU(unhex(t, telegrams[4].raw))
	if err != nil {
		t.Fatal(err)
	}
	asdu, err := iec104.ParseASDU(a.ASDU)
	if err != nil {
		t.Fatal(err)
	}
	got, unnamed := points.Append(nil, &asdu)
	if len(got) != 1 || unnamed != 1 || got[0].Name != "current_a_amperes" || math.Abs(got[0].Number) > 1e-6 {
		t.Errorf("Append = %+v, %d unnamed", got, unnamed)
	}
	for name, bad := range map[string][]iec104.Point{
		"name":    {{Name: "Breaker"}},
		"address": {{Name: "a", Address: 1 << 24}},
		"twice":   {{Name: "a", Address: 1}, {Name: "b", Address: 1}},
		"count":   make([]iec104.Point, iec104.MaxPoints+1),
	} {
		if _, err := iec104.NewPoints(bad); err == nil {
			t.Errorf("NewPoints with a bad %s = nil, want an error", name)
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	raw, points, readings := benchmarkInput(t)
	if got := testing.AllocsPerRun(100, func() {
		a, _, err := iec104.ParseAPDU(raw)
		if err != nil {
			t.Fatal(err)
		}
		asdu, err := iec104.ParseASDU(a.ASDU)
		if err != nil {
			t.Fatal(err)
		}
		readings, _ = points.Append(readings[:0], &asdu)
	}); got != 0 || len(readings) != 2 {
		t.Errorf("a frame allocates %v times and gives %d readings, want 0 and 2", got, len(readings))
	}
}

func benchmarkInput(t testing.TB) ([]byte, *iec104.Points, []iec104.Reading) {
	t.Helper()
	points, err := iec104.NewPoints([]iec104.Point{{Common: 0x57, Address: 3047, Name: "a_volts"}, {Common: 0x57, Address: 3048, Name: "b_volts"}})
	if err != nil {
		t.Fatal(err)
	}
	return unhex(t, telegrams[4].raw), points, make([]iec104.Reading, 0, iec104.MaxObjects)
}

func BenchmarkDecode(b *testing.B) {
	raw, points, readings := benchmarkInput(b)
	b.ReportAllocs()
	for b.Loop() {
		a, _, err := iec104.ParseAPDU(raw)
		if err != nil {
			b.Fatal(err)
		}
		asdu, err := iec104.ParseASDU(a.ASDU)
		if err != nil {
			b.Fatal(err)
		}
		readings, _ = points.Append(readings[:0], &asdu)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
}

func FuzzAPDU(f *testing.F) {
	for _, tt := range telegrams {
		f.Add(unhex(f, tt.raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, n, err := iec104.ParseAPDU(raw)
		if err != nil {
			if n != 0 || (errors.Is(err, iec104.ErrShort) && len(raw) >= iec104.MaxAPDU) {
				t.Fatalf("ParseAPDU took %d of %d bytes with %v", n, len(raw), err)
			}
			return
		}
		if again := a.Append(nil); !bytes.Equal(again, raw[:n]) {
			t.Fatalf("% x became % x", raw[:n], again)
		}
		if a.Format != iec104.FormatI {
			return
		}
		asdu, err := iec104.ParseASDU(a.ASDU)
		if err != nil {
			return
		}
		if asdu.Count < 1 || asdu.Count > iec104.MaxObjects {
			t.Fatalf("%d objects", asdu.Count)
		}
		for i, o := range objects(asdu) {
			if o.Address >= 1<<24 || (math.IsNaN(o.Value) && asdu.Type != iec104.ShortFloat && asdu.Type != iec104.ShortFloatTime) {
				t.Fatalf("object %d: %+v", i, o)
			}
			if o.Timed && !o.Time.Invalid && (o.Time.Month < 1 || o.Time.Month > 12 || o.Time.Year < 1970 || o.Time.Year > 2069) {
				t.Fatalf("object %d: %+v", i, o)
			}
		}
	})
}
