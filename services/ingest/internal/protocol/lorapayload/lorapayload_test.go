package lorapayload_test

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/lorapayload"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("hex %q: %v", s, err)
	}
	return b
}

func num(name string, v float64) protocol.Value { return protocol.Value{Name: name, Number: v} }
func txt(name, s string) protocol.Value         { return protocol.Value{Name: name, Text: s} }

func TestDecode(t *testing.T) {
	for name, tt := range map[string]struct {
		model string
		port  uint8
		raw   string
		want  []protocol.Value
	}{
		// The first of each model is an example of TheThingsNetwork/lorawan-devices.
		"LHT65": {"dragino-lht65", 2, "cbf60b0d0376010add7fff", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), num("temperature_celsius", 28.29), num("humidity_percent", 88.6),
			txt("external_sensor", "temperature"), num("external_temperature_celsius", 27.81),
		}},
		"LHT65 below zero, nothing external": {"dragino-lht65", 2, "8bb8fc18006400ffffffff", []protocol.Value{
			num("battery_volts", 3), num("battery_status", 2), num("temperature_celsius", -10), num("humidity_percent", 10), txt("external_sensor", "none"),
		}},
		"LHT65 cable pulled": {"dragino-lht65", 2, "cbf60b0d0376810add7fff", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), num("temperature_celsius", 28.29), num("humidity_percent", 88.6), txt("external_sensor", "not_connected"),
		}},
		"LHT65 no thermometer": {"dragino-lht65", 2, "cbf67fff0376017fff7fff", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), num("humidity_percent", 88.6), txt("external_sensor", "temperature"),
		}},
		"LHT65 count": {"dragino-lht65", 2, "cbf60b0d03760800010000", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), num("temperature_celsius", 28.29), num("humidity_percent", 88.6),
			txt("external_sensor", "count"), num("interrupt_count", 65536),
		}},
		"LHT65 interrupt": {"dragino-lht65", 2, "cbf60b0d0376040100ffff", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), num("temperature_celsius", 28.29), num("humidity_percent", 88.6),
			txt("external_sensor", "interrupt"), num("interrupt_level", 1), num("interrupt_raised", 0),
		}},
		"LHT65 illumination": {"dragino-lht65", 2, "cbf60b0d0376050102ffff", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), num("temperature_celsius", 28.29), num("humidity_percent", 88.6),
			txt("external_sensor", "illumination"), num("illumination_lux", 258),
		}},
		"LHT65 adc": {"dragino-lht65", 2, "cbf60b0d03760603e8ffff", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), num("temperature_celsius", 28.29), num("humidity_percent", 88.6),
			txt("external_sensor", "adc"), num("external_volts", 1),
		}},
		"LHT65 short count": {"dragino-lht65", 2, "cbf60b0d03760700070000", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), num("temperature_celsius", 28.29), num("humidity_percent", 88.6),
			txt("external_sensor", "count"), num("interrupt_count", 7),
		}},
		"LHT65 with time": {"dragino-lht65", 2, "0add0b0dc3760965000000", []protocol.Value{
			num("battery_status", 3), num("temperature_celsius", 28.29), num("humidity_percent", 88.6),
			txt("external_sensor", "temperature_and_time"), num("external_temperature_celsius", 27.81), num("measured_unix_seconds", 0x65000000),
		}},
		"LHT65 identity": {"dragino-lht65", 2, "cbf6010203040f05060708", []protocol.Value{
			num("battery_volts", 3.062), num("battery_status", 3), txt("external_sensor", "identity"), txt("external_sensor_id", "0102030405060708"),
		}},
		"EM300-TH": {"milesight-em300-th", 1, "0175320367c80004683c", []protocol.Value{
			num("battery_percent", 50), num("temperature_celsius", 20), num("humidity_percent", 30),
		}},
		"EM300-TH on its factory port, below zero": {"milesight-em300-th", 85, "03679cff", []protocol.Value{num("temperature_celsius", -10)}},
		"EM300-TH after a join":                    {"milesight-em300-th", 85, "ff0bffff0101ff166136b12345670000ff090310ff0a0101ff0f00", nil},
	} {
		decode, err := lorapayload.Lookup(tt.model)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(nil, tt.port, unhex(t, tt.raw)); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s = %v, %v, want %v", name, got, err, tt.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		model string
		port  uint8
		raw   string
		want  error
		says  string
	}{
		"LHT65 port":            {"dragino-lht65", 42, "cbf60b0d0376010add7fff", lorapayload.ErrPort, "port 42"},
		"LHT65 short":           {"dragino-lht65", 2, "cbf60b0d0376010add7f", lorapayload.ErrPayload, "10"},
		"LHT65 long":            {"dragino-lht65", 2, "cbf60b0d0376010add7fffff", lorapayload.ErrPayload, "12"},
		"LHT65 stored":          {"dragino-lht65", 2, "cbf60b0d0376410add7fff", lorapayload.ErrStored, "LHT65"},
		"LHT65 external sensor": {"dragino-lht65", 2, "cbf60b0d0376020add7fff", lorapayload.ErrPayload, "sensor 2"},
		"EM300 port":            {"milesight-em300-th", 2, "017532", lorapayload.ErrPort, "port 2"},
		"EM300 half channel":    {"milesight-em300-th", 1, "01753203", lorapayload.ErrPayload, "byte 3"},
		"EM300 short value":     {"milesight-em300-th", 1, "0367c8", lorapayload.ErrPayload, "0367"},
		"EM300 channel":         {"milesight-em300-th", 1, "057f00", lorapayload.ErrPayload, "057F"},
		"EM300 stored":          {"milesight-em300-th", 1, "20ce9e74466310015d", lorapayload.ErrStored, "EM300-TH"},
		"EM300 twice":           {"milesight-em300-th", 1, "017532017532", lorapayload.ErrPayload, "0175 twice"},
	} {
		decode, err := lorapayload.Lookup(tt.model)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(nil, tt.port, unhex(t, tt.raw)); !errors.Is(err, tt.want) || got != nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s = %v, %v, want %v that says %q", name, got, err, tt.want, tt.says)
		}
	}
	if _, err := lorapayload.Lookup("lht66"); !errors.Is(err, lorapayload.ErrModel) {
		t.Errorf("Lookup(lht66): %v, want ErrModel", err)
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	lht, em := unhex(t, "cbf60b0d0376010add7fff"), unhex(t, "0175320367c80004683c")
	values := make([]protocol.Value, 0, 16)
	if got := testing.AllocsPerRun(100, func() {
		var err error
		if values, err = lorapayload.LHT65(values[:0], 2, lht); err != nil {
			t.Fatal(err)
		}
		if values, err = lorapayload.EM300TH(values, 1, em); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("two payloads allocate %v times, want 0", got)
	}
}

func BenchmarkDecode(b *testing.B) {
	raw := map[string]string{"dragino-lht65": "cbf60b0d0376010add7fff", "milesight-em300-th": "0175320367c80004683c"}
	ports := map[string]uint8{"dragino-lht65": 2, "milesight-em300-th": 1}
	for _, model := range lorapayload.Models() {
		b.Run(model, func(b *testing.B) {
			decode, err := lorapayload.Lookup(model)
			if err != nil {
				b.Fatal(err)
			}
			p, values := unhex(b, raw[model]), make([]protocol.Value, 0, 16)
			b.ReportAllocs()
			for b.Loop() {
				if values, err = decode(values[:0], ports[model], p); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mpayloads/s")
		})
	}
}

// FuzzDecode holds that whatever a sensor sends, its values have legal and
// distinct names, are few, and that a refusal gives none.
func FuzzDecode(f *testing.F) {
	f.Add(uint8(2), unhex(f, "cbf60b0d0376010add7fff"))
	f.Add(uint8(1), unhex(f, "0175320367c80004683c"))
	f.Add(uint8(85), unhex(f, "ff166136b12345670000"))
	f.Fuzz(func(t *testing.T, port uint8, payload []byte) {
		for _, model := range lorapayload.Models() {
			decode, err := lorapayload.Lookup(model)
			if err != nil {
				t.Fatal(err)
			}
			values, err := decode(nil, port, payload)
			if err != nil {
				if values != nil {
					t.Fatalf("%s: %v with %v", model, values, err)
				}
				continue
			}
			if len(values) > 8 {
				t.Fatalf("%s: %d values", model, len(values))
			}
			seen := map[string]bool{}
			for _, v := range values {
				if !protocol.IsName(v.Name) || len(v.Text) > 256 || seen[v.Name] {
					t.Fatalf("%s: value %+v of %+v", model, v, values)
				}
				seen[v.Name] = true
			}
		}
	})
}
