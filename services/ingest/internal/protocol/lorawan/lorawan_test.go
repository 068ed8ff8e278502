package lorawan_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/lorawan"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("hex %q: %v", s, err)
	}
	return b
}

// The keys and the frame are the example of the lora-packet library's page:
// FCnt 2, port 1, `test`.
const (
	exampleAddr  = "49BE7DF1"
	exampleNwk   = "44024241ed4ce9a68c6a8bc055233fd3"
	exampleApp   = "ec925802ae430ca77fd3dd73cb2cc588"
	exampleFrame = "40F17DBE4900020001954378762B11FF0D"
)

func device(t testing.TB, addr, nwk, app string) *lorawan.Device {
	t.Helper()
	a, err := lorawan.ParseDevAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := lorawan.ParseKey(nwk)
	if err != nil {
		t.Fatal(err)
	}
	p, err := lorawan.ParseKey(app)
	if err != nil {
		t.Fatal(err)
	}
	d, err := lorawan.NewDevice(a, n, p)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func example(t testing.TB) *lorawan.Device {
	t.Helper()
	return device(t, exampleAddr, exampleNwk, exampleApp)
}

func TestPublishedFrame(t *testing.T) {
	d := example(t)
	u, err := d.Open(unhex(t, exampleFrame))
	if err != nil || u.Counter != 2 || u.Port != 1 || !u.HasPort || u.Confirmed || string(u.Payload) != "test" || u.DevAddr.String() != exampleAddr {
		t.Fatalf("Open = %+v, %v, want `test` on port 1 with counter 2", u, err)
	}
	if c, ok := d.Counter(); c != 2 || !ok {
		t.Errorf("Counter = %d, %v, want 2", c, ok)
	}
	again, err := d.Seal(nil, u)
	if err != nil || !bytes.Equal(again, unhex(t, exampleFrame)) {
		t.Errorf("Seal = %x, %v, want the frame", again, err)
	}
}

func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		raw  string
		want error
	}{
		"empty":                {"", lorawan.ErrFrame},
		"short":                {"40F17DBE49000200954378", lorawan.ErrFrame},
		"long":                 {"40" + hex.EncodeToString(make([]byte, 255)), lorawan.ErrFrame},
		"major version":        {"41F17DBE4900020001954378762B11FF0D", lorawan.ErrFrame},
		"options not there":    {"40F17DBE490F020001954378762B11FF0D", lorawan.ErrFrame},
		"options twice":        {"40F17DBE49010200FF00954378762B11FF0D", lorawan.ErrFrame},
		"join request":         {"00F17DBE4900020001954378762B11FF0D", lorawan.ErrNotDataUp},
		"data down":            {"60F17DBE4900020001954378762B11FF0D", lorawan.ErrNotDataUp},
		"other address":        {"40F27DBE4900020001954378762B11FF0D", lorawan.ErrUnknownDevice},
		"code":                 {"40F17DBE4900020001954378762B11FF0E", lorawan.ErrMIC},
		"payload":              {"40F17DBE4900020001954379762B11FF0D", lorawan.ErrMIC},
		"counter":              {"40F17DBE4900030001954378762B11FF0D", lorawan.ErrMIC},
		"confirmed made of it": {"80F17DBE4900020001954378762B11FF0D", lorawan.ErrMIC},
	} {
		d := example(t)
		if u, err := d.Open(unhex(t, tt.raw)); !errors.Is(err, tt.want) {
			t.Errorf("%s: Open = %+v, %v, want %v", name, u, err, tt.want)
		}
		if _, ok := d.Counter(); ok {
			t.Errorf("%s: a refused frame moved the counter", name)
		}
	}
}

func seal(t testing.TB, d *lorawan.Device, counter uint32) []byte {
	t.Helper()
	raw, err := d.Seal(nil, lorawan.Uplink{Counter: counter, HasPort: true, Port: 2, Payload: []byte{byte(counter)}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestCounter(t *testing.T) {
	type step struct {
		counter uint32
		want    error
	}
	for name, steps := range map[string][]step{
		"in order, with gaps":    {{0, nil}, {1, nil}, {5, nil}, {5 + lorawan.MaxGap, nil}},
		"heard by two gateways":  {{7, nil}, {7, lorawan.ErrDuplicate}, {8, nil}},
		"replayed":               {{7, nil}, {8, nil}, {7, lorawan.ErrReplay}, {0, lorawan.ErrReplay}, {9, nil}},
		"too far ahead":          {{7, nil}, {8 + lorawan.MaxGap, lorawan.ErrMIC}},
		"over 16 bits":           {{65535, nil}, {65536, nil}, {65537, nil}, {65535, lorawan.ErrReplay}},
		"replayed after 16 bits": {{60000, nil}, {70000, nil}, {80000, nil}, {70000, lorawan.ErrReplay}, {60000, lorawan.ErrReplay}, {80001, nil}},
		"long ago":               {{0, nil}, {16000, nil}, {32000, nil}, {48000, nil}, {64000, nil}, {80000, nil}, {96000, nil}, {112000, nil}, {128000, nil}, {144000, nil}, {0, lorawan.ErrMIC}},
		"first with upper bits":  {{70000, lorawan.ErrMIC}},
	} {
		d, sender := example(t), example(t)
		for i, s := range steps {
			u, err := d.Open(seal(t, sender, s.counter))
			if !errors.Is(err, s.want) || (err == nil && (u.Counter != s.counter || u.Payload[0] != byte(s.counter))) {
				t.Errorf("%s: step %d: Open(%d) = %+v, %v, want %v", name, i, s.counter, u, err, s.want)
			}
			if errors.Is(err, lorawan.ErrDuplicate) != errors.Is(s.want, lorawan.ErrDuplicate) {
				t.Errorf("%s: step %d: Open(%d): %v, want %v", name, i, s.counter, err, s.want)
			}
		}
	}
}

func TestRestore(t *testing.T) {
	d, sender := example(t), example(t)
	d.Restore(70000)
	for _, tt := range []struct {
		counter uint32
		want    error
	}{{70000, lorawan.ErrReplay}, {69999, lorawan.ErrReplay}, {70001, nil}} {
		if _, err := d.Open(seal(t, sender, tt.counter)); !errors.Is(err, tt.want) {
			t.Errorf("Open(%d) = %v, want %v", tt.counter, err, tt.want)
		}
	}
	d.Restore(0xFFFFFFFF)
	if _, err := d.Open(seal(t, sender, 0)); err == nil {
		t.Error("the counter began again at 0")
	}
}

func TestPortZeroAndOptions(t *testing.T) {
	d := example(t)
	for i, u := range []lorawan.Uplink{
		{HasPort: true, Port: 0, Payload: []byte("mac")},
		{Options: []byte{2, 3}, ADR: true, Ack: true},
		{Options: make([]byte, 15), HasPort: true, Port: 223, Payload: make([]byte, 227), Confirmed: true, ADRAckReq: true, ClassB: true},
	} {
		u.Counter = uint32(i)
		raw, err := d.Seal(nil, u)
		if err != nil {
			t.Fatalf("Seal(%+v): %v", u, err)
		}
		got, err := example(t).Open(raw)
		if err != nil || !same(got, u) {
			t.Errorf("Open(Seal(%+v)) = %+v, %v", u, got, err)
		}
	}
	for name, u := range map[string]lorawan.Uplink{
		"options": {Options: make([]byte, 16)}, "payload": {HasPort: true, Port: 1, Payload: make([]byte, 243)}, "both": {Options: []byte{2}, HasPort: true, Payload: []byte{2}},
	} {
		if raw, err := d.Seal(nil, u); err == nil {
			t.Errorf("Seal with bad %s = %x, want an error", name, raw)
		}
	}
}

func same(a, b lorawan.Uplink) bool {
	return a.Counter == b.Counter && a.Confirmed == b.Confirmed && a.ADR == b.ADR && a.ADRAckReq == b.ADRAckReq && a.Ack == b.Ack && a.ClassB == b.ClassB &&
		slices.Equal(a.Options, b.Options) && a.HasPort == b.HasPort && a.Port == b.Port && slices.Equal(a.Payload, b.Payload)
}

func TestTable(t *testing.T) {
	const otherKey = "00000000000000000000000000000001"
	var table lorawan.Table
	one, two := device(t, exampleAddr, otherKey, otherKey), example(t)
	for _, d := range []*lorawan.Device{one, two} {
		if err := table.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	d, u, err := table.Open(unhex(t, exampleFrame))
	if err != nil || d != two || string(u.Payload) != "test" {
		t.Errorf("Open = %v, %+v, %v, want the second device", d, u, err)
	}
	if d, _, err := table.Open(unhex(t, exampleFrame)); !errors.Is(err, lorawan.ErrDuplicate) || d != two {
		t.Errorf("Open again = %v, %v, want ErrDuplicate of the second device", d, err)
	}
	if _, _, err := table.Open(unhex(t, "40F27DBE4900020001954378762B11FF0D")); !errors.Is(err, lorawan.ErrUnknownDevice) {
		t.Errorf("Open of another: %v, want ErrUnknownDevice", err)
	}
	for range 6 {
		if err := table.Add(example(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Add(example(t)); err == nil {
		t.Error("the ninth device with one address is taken")
	}
}

func TestParseKey(t *testing.T) {
	for _, s := range []string{"", "00", exampleNwk + "00", "zz024241ed4ce9a68c6a8bc055233fd3"} {
		if _, err := lorawan.ParseKey(s); err == nil {
			t.Errorf("ParseKey(%q) = nil, want an error", s)
		}
	}
	if _, err := lorawan.ParseDevAddr("49BE7DF"); err == nil {
		t.Error("ParseDevAddr of 7 digits = nil, want an error")
	}
}

func TestOpenAllocatesNothing(t *testing.T) {
	d, sender := example(t), example(t)
	frames := make([][]byte, 102)
	for i := range frames {
		frames[i] = seal(t, sender, uint32(i))
	}
	i := 0
	if got := testing.AllocsPerRun(100, func() {
		if _, err := d.Open(frames[i]); err != nil {
			t.Fatal(err)
		}
		i++
	}); got != 0 {
		t.Errorf("a frame allocates %v times, want 0", got)
	}
}

func BenchmarkOpen(b *testing.B) {
	d, raw := example(b), unhex(b, exampleFrame)
	b.ReportAllocs()
	for b.Loop() {
		d.Restore(1)
		if _, err := d.Open(raw); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
}

// FuzzOpen holds that no bytes but a device's own frames are opened, and that
// what is sealed comes back.
func FuzzOpen(f *testing.F) {
	f.Add(unhex(f, exampleFrame), uint32(3), uint8(1))
	f.Add(unhex(f, "80F17DBE49"), uint32(70000), uint8(0x93))
	f.Add([]byte{}, uint32(0), uint8(0))
	f.Fuzz(func(t *testing.T, raw []byte, counter uint32, bits uint8) {
		d := example(t)
		if u, err := d.Open(raw); err == nil && (len(raw) < 12 || !bytes.EqualFold(raw, unhex(t, exampleFrame))) {
			again, serr := d.Seal(nil, u)
			if serr != nil || !bytes.Equal(again, raw) {
				t.Fatalf("% x opens as %+v, which seals as % x, %v", raw, u, again, serr)
			}
		}
		u := lorawan.Uplink{Counter: counter, Confirmed: bits&1 != 0, ADR: bits&2 != 0, HasPort: bits&4 != 0}
		if n := int(bits >> 4); n <= len(raw) {
			u.Options = raw[:n]
		}
		if u.HasPort {
			u.Port, u.Payload = bits, raw
		}
		sealed, err := d.Seal(nil, u)
		if err != nil {
			return
		}
		receiver := example(t)
		if counter > 0 {
			receiver.Restore(counter - 1)
		}
		got, err := receiver.Open(sealed)
		if err != nil || !same(got, u) {
			t.Fatalf("%+v sealed opens as %+v, %v", u, got, err)
		}
		if _, err := receiver.Open(sealed); !errors.Is(err, lorawan.ErrDuplicate) {
			t.Fatalf("opened twice: %v", err)
		}
	})
}
