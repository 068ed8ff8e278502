package dlt645_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/dlt645"
)

func TestItems(t *testing.T) {
	num := func(name string, n float64) protocol.Value { return protocol.Value{Name: name, Number: n} }
	txt := func(name, s string) protocol.Value { return protocol.Value{Name: name, Text: s} }
	// The data is as in the standard's tables, lowest byte first, without 33H.
	for _, tt := range []struct {
		di   dlt645.DI
		data string
		want []protocol.Value
	}{
		{0x00000000, "76170380", []protocol.Value{num("combined_active_energy_kilowatt_hours", -317.76)}},
		{0x00010000, "99999999", []protocol.Value{num("forward_active_energy_kilowatt_hours", 999999.99)}},
		{0x00090C0C, "01000000", []protocol.Value{num("forward_apparent_energy_rate_12_last_12_kilovolt_ampere_hours", 0.01)}},
		{0x00150000, "00010000", []protocol.Value{num("forward_active_a_energy_kilowatt_hours", 1)}},
		{0x00460000, "00010000", []protocol.Value{num("reverse_apparent_c_energy_kilovolt_ampere_hours", 1)}},
		{0x0001FF00, "00300000 00100000 FFFFFFFF 00200000", []protocol.Value{
			num("forward_active_energy_kilowatt_hours", 30), num("forward_active_energy_rate_1_kilowatt_hours", 10), num("forward_active_energy_rate_3_kilowatt_hours", 20),
		}},
		{0x000100FF, "00300000 00200000", []protocol.Value{num("forward_active_energy_kilowatt_hours", 30), num("forward_active_energy_last_1_kilowatt_hours", 20)}},
		{0x01010000, "563412 3015010524", []protocol.Value{num("forward_active_max_demand_kilowatts", 12.3456), txt("forward_active_max_demand_time", "2024-05-01T15:30")}},
		{0x01030200, "000080 0000000000", []protocol.Value{num("combined_reactive_1_max_demand_rate_2_kilovars", 0)}},
		{0x02010300, "0922", []protocol.Value{num("voltage_c_volts", 220.9)}},
		{0x0201FF00, "0922 FFFF FFFF", []protocol.Value{num("voltage_a_volts", 220.9)}},
		{0x02020100, "563482", []protocol.Value{num("current_a_amperes", -23.456)}},
		{0x02030000, "563412", []protocol.Value{num("active_power_kilowatts", 12.3456)}},
		{0x0203FF00, "030000 010000 010000 010080", []protocol.Value{
			num("active_power_kilowatts", 0.0003), num("active_power_a_kilowatts", 0.0001), num("active_power_b_kilowatts", 0.0001), num("active_power_c_kilowatts", -0.0001),
		}},
		{0x02040200, "000010", []protocol.Value{num("reactive_power_b_kilovars", 10)}},
		{0x02050000, "000010", []protocol.Value{num("apparent_power_kilovolt_amperes", 10)}},
		{0x02060000, "9989", []protocol.Value{num("power_factor", -0.999)}},
		{0x02070100, "0012", []protocol.Value{num("phase_angle_a_degrees", 120)}},
		{0x02800001, "010000", []protocol.Value{num("neutral_current_amperes", 0.001)}},
		{0x02800002, "0150", []protocol.Value{num("frequency_hertz", 50.01)}},
		{0x02800004, "563412", []protocol.Value{num("active_demand_kilowatts", 12.3456)}},
		{0x02800007, "5281", []protocol.Value{num("meter_temperature_celsius", -15.2)}},
		{0x02800008, "6003", []protocol.Value{num("clock_battery_volts", 3.6)}},
		{0x0280000A, "10000000", []protocol.Value{num("battery_used_minutes", 10)}},
		{0x04000101, "04290224", []protocol.Value{txt("meter_date", "2024-02-29")}},
		{0x04000102, "075823", []protocol.Value{txt("meter_time", "23:58:07")}},
		{0x04000401, "930003140522", []protocol.Value{txt("meter_address", "220514030093")}},
	} {
		item, err := dlt645.Lookup(tt.di)
		if err != nil {
			t.Errorf("Lookup(%v): %v", tt.di, err)
			continue
		}
		if got, err := item.Append(nil, unhex(t, tt.data)); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("Append(%v, %s) = %v, %v, want %v", tt.di, tt.data, got, err, tt.want)
		}
	}
}

func TestItemsRefused(t *testing.T) {
	for _, tt := range []struct {
		di   dlt645.DI
		data string
		want error
	}{
		{0x02010100, "", dlt645.ErrDataLength},
		{0x02010100, "09", dlt645.ErrDataLength},
		{0x02010100, "09220922", dlt645.ErrDataLength},
		{0x0201FF00, "0922092209220922", dlt645.ErrDataLength},
		{0x02010100, "0A22", dlt645.ErrNotBCD},
		{0x02010100, "09A2", dlt645.ErrNotBCD},
		{0x04000102, "077523", dlt645.ErrNotBCD},
	} {
		item, err := dlt645.Lookup(tt.di)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := item.Append(nil, unhex(t, tt.data)); !errors.Is(err, tt.want) || got != nil {
			t.Errorf("Append(%v, %s) = %v, %v, want %v", tt.di, tt.data, got, err, tt.want)
		}
	}
	for _, di := range []dlt645.DI{0x00FF0000, 0x000B0000, 0x00004000, 0x0000000D, 0x0001FFFF, 0x00150100, 0x01000000, 0x01150000, 0x02000000, 0x02010000, 0x02010400, 0x02010101, 0x0280000B, 0x02FF0000, 0x04000501, 0xFFFFFFFF} {
		if item, err := dlt645.Lookup(di); !errors.Is(err, dlt645.ErrUnknownDI) {
			t.Errorf("Lookup(%v) = %v, %v, want ErrUnknownDI", di, item, err)
		}
	}
}

// TestNames holds that each name of each known identifier may name a value, and
// that one item has no name twice.
func TestNames(t *testing.T) {
	known := 0
	for di3 := range dlt645.DI(5) {
		for di2 := range dlt645.DI(0x100) {
			for _, low := range []dlt645.DI{0x0000, 0x0100, 0x3F0C, 0xFF0C, 0xFF00, 0x3FFF, 0x0101, 0x0102, 0x0401, 0x0402, 0x000A} {
				item, err := dlt645.Lookup(di3<<24 | di2<<16 | low)
				if err != nil {
					continue
				}
				known++
				seen := map[string]bool{}
				for _, name := range item.Names() {
					if !protocol.IsName(name) || seen[name] {
						t.Errorf("%v: name %q may not be or is twice", item.DI, name)
					}
					seen[name] = true
				}
			}
		}
	}
	if known < 200 {
		t.Errorf("%d identifiers known, want 200 or more", known)
	}
}

func TestReplyToOther(t *testing.T) {
	item, err := dlt645.Lookup(0x02010100)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		control dlt645.Control
		data    string
		want    error
	}{
		{0x91, "00010202 0922", dlt645.ErrOtherDI},
		{0x91, "0001", dlt645.ErrOtherDI},
		{0xB1, "00010102 0922", dlt645.ErrMore},
	} {
		raw, err := dlt645.AppendFrame(nil, address(t, "1"), tt.control, unhex(t, tt.data)...)
		if err != nil {
			t.Fatal(err)
		}
		var f dlt645.Frame
		if _, err := dlt645.Parse(raw, &f); err != nil {
			t.Fatal(err)
		}
		if _, err := item.AppendReply(nil, &f); !errors.Is(err, tt.want) {
			t.Errorf("AppendReply(%02X %s): %v, want %v", tt.control, tt.data, err, tt.want)
		}
	}
}

// reply is one frame of a meter in a test of assembly.
func reply(t testing.TB, c dlt645.Control, data ...byte) *dlt645.Frame {
	t.Helper()
	raw, err := dlt645.AppendFrame(nil, dlt645.Address{1}, c, data...)
	if err != nil {
		t.Fatal(err)
	}
	f := new(dlt645.Frame)
	if _, err := dlt645.Parse(raw, f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAssembly(t *testing.T) {
	di := []byte{0x00, 0xFF, 0x01, 0x00}
	part := func(c dlt645.Control, body ...byte) *dlt645.Frame {
		return reply(t, c, append(slices.Clone(di), body...)...)
	}
	a := dlt645.NewAssembly(0x0001FF00)
	for i, f := range []*dlt645.Frame{part(0xB1, 0, 0x30, 0, 0, 0, 0x10), part(0xB2, 0, 0, 0, 1), part(0x92, 0x20, 0, 0, 2)} {
		if int(a.Next()) != i {
			t.Errorf("Next() = %d, want %d", a.Next(), i)
		}
		done, err := a.Add(f)
		if err != nil || done != (i == 2) {
			t.Fatalf("Add(part %d) = %v, %v", i, done, err)
		}
	}
	item, err := dlt645.Lookup(0x0001FF00)
	if err != nil {
		t.Fatal(err)
	}
	got, err := item.Append(nil, a.Data())
	if err != nil || len(got) != 3 || got[2].Number != 20 {
		t.Errorf("assembled: %v, %v", got, err)
	}

	for name, frames := range map[string][]*dlt645.Frame{
		"follow-up first":       {part(0x92, 1)},
		"wrong sequence":        {part(0xB1, 0), part(0x92, 0, 2)},
		"no sequence":           {part(0xB1, 0), part(0x92)},
		"read reply again":      {part(0xB1, 0), part(0xB1, 0)},
		"after the end":         {part(0x91, 0), part(0x92, 0, 1)},
		"other identifier":      {reply(t, 0xB1, 1, 2, 3, 4)},
		"refused":               {part(0xB1, 0), reply(t, 0xD2, 2)},
		"request of the master": {part(0x11)},
	} {
		a := dlt645.NewAssembly(0x0001FF00)
		var err error
		for _, f := range frames {
			_, err = a.Add(f)
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAssemblyIsBounded(t *testing.T) {
	for _, size := range []int{0, 190} {
		a := dlt645.NewAssembly(0)
		body := append(make([]byte, 4), bytes.Repeat([]byte{0x11}, size)...)
		_, err := a.Add(reply(t, 0xB1, body...))
		frames := 1
		for ; err == nil && frames < 1000; frames++ {
			_, err = a.Add(reply(t, 0xB2, append(slices.Clone(body), a.Next())...))
		}
		if !errors.Is(err, dlt645.ErrTooLong) || len(a.Data()) > dlt645.MaxAssembled || frames > 256 {
			t.Errorf("endless follow-ups of %d bytes: %v after %d frames, %d bytes", size, err, frames, len(a.Data()))
		}
	}
}

// FuzzItem holds that whatever data a meter sends, values have legal names and
// no more than two for each element.
func FuzzItem(f *testing.F) {
	f.Add(uint32(0x02010100), []byte{0x09, 0x22})
	f.Add(uint32(0x0101FF00), unhex(f, "5634123015010524 5634123015010524"))
	f.Add(uint32(0x04000401), unhex(f, "930003140522"))
	f.Add(uint32(0x0203FF00), unhex(f, "030000010000FFFFFF010080"))
	f.Fuzz(func(t *testing.T, di uint32, data []byte) {
		item, err := dlt645.Lookup(dlt645.DI(di))
		if err != nil {
			return
		}
		values, err := item.Append(nil, data)
		if err != nil {
			if values != nil {
				t.Fatalf("Append = %v with %v", values, err)
			}
			return
		}
		if len(values) > 2*len(item.Names()) || len(values) > len(data) {
			t.Fatalf("%d values of %d bytes", len(values), len(data))
		}
		for _, v := range values {
			if !protocol.IsName(v.Name) || len(v.Text) > 256 || (v.Text == "" && fmt.Sprint(v.Number) == "NaN") {
				t.Fatalf("value %+v", v)
			}
		}
	})
}
