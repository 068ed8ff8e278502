package household

import (
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"
)

const header = "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;Sub_metering_1;Sub_metering_2;Sub_metering_3\n"

const sample = header +
	"16/12/2006;17:24:00;4.216;0.418;234.840;18.400;0.000;1.000;17.000\r\n" +
	"28/4/2007;00:21:00;?;?;?;?;?;?;\n" +
	"28/4/2007;00:22:00;0.5;?;230;2;0;0;1\n"

func TestParse(t *testing.T) {
	rows, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]float64{
		{"active_power_kilowatts": 4.216, "reactive_power_kilovars": 0.418, "voltage_volts": 234.84, "current_amperes": 18.4, "energy_1_watt_hours": 0, "energy_2_watt_hours": 1, "energy_3_watt_hours": 17},
		{},
		{"active_power_kilowatts": 0.5, "voltage_volts": 230, "current_amperes": 2, "energy_1_watt_hours": 0, "energy_2_watt_hours": 0, "energy_3_watt_hours": 1},
	}
	if len(rows) != len(want) {
		t.Fatalf("Parse found %d rows, want %d", len(rows), len(want))
	}
	for i, row := range rows {
		for _, isHot := range []bool{false, true} {
			values := row.Reading(isHot).Values
			celsius := values[len(values)-1]
			if celsius.Name != "temperature" || isHot != (celsius.Number > 85) || !isHot && (celsius.Number < 20 || celsius.Number > 60) {
				t.Errorf("row %d hot %v: last value is %v", i, isHot, celsius)
			}
			if got := len(values) - 1; got != len(want[i]) {
				t.Errorf("row %d has %d values, want %d", i, got, len(want[i]))
			}
			for _, v := range values[:len(values)-1] {
				if w, ok := want[i][v.Name]; !ok || w != v.Number {
					t.Errorf("row %d: %s = %v, want %v", i, v.Name, v.Number, w)
				}
			}
		}
	}
	if want := time.Date(2006, 12, 16, 17, 24, 0, 0, time.UTC); !rows[0].Time.Equal(want) {
		t.Errorf("row 0 is of %v, want %v", rows[0].Time, want)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", "line 1: must be a header"},
		{"no rows", header, "at least one row"},
		{"short row", header + "16/12/2006;17:24:00;1\n", "line 2: must have 9 fields, has 3"},
		{"bad date", header + "2006-12-16;17:24:00;1;1;1;1;1;1;1\n", "line 2: date and time"},
		{"bad number", header + "16/12/2006;17:24:00;1;1;1;x;1;1;1\n", "line 2: current_amperes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestAppendIsWhatTheLibrariesDecode holds the encoder against protobuf and
// protojson themselves.
func TestAppendIsWhatTheLibrariesDecode(t *testing.T) {
	rows, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	items := []Item{
		{Sequence: 1, Time: 0, Row: 0},
		{Sequence: 300, Time: time.Date(2026, 3, 1, 2, 3, 4, 0, time.UTC).UnixNano(), Row: 1, Hot: true},
		{Sequence: math.MaxUint64, Time: time.Date(2026, 3, 1, 2, 3, 4, 999_999_999, time.UTC).UnixNano(), Row: 2},
	}
	batch := &devicev1.ReadingBatch{}
	for _, it := range items {
		r := rows[it.Row].Reading(it.Hot)
		r.Sequence, r.Time = it.Sequence, timestamppb.New(time.Unix(0, it.Time))
		batch.Readings = append(batch.Readings, r)
	}
	want := &devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_Readings{Readings: batch}}
	for _, tt := range []struct {
		name      string
		json      bool
		unmarshal func([]byte, proto.Message) error
	}{{"proto", false, proto.Unmarshal}, {"json", true, protojson.Unmarshal}} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := NewEncoder(rows, tt.json)
			if err != nil {
				t.Fatal(err)
			}
			var got devicev1.DeviceFrame
			if err := tt.unmarshal(e.Append(nil, items), &got); err != nil {
				t.Fatalf("decode: %v", err)
			}
			if !proto.Equal(&got, want) {
				t.Errorf("decoded %v, want %v", &got, want)
			}
			buf := make([]byte, 0, 16<<10)
			if n := testing.AllocsPerRun(100, func() { buf = e.Append(buf[:0], items) }); n != 0 {
				t.Errorf("Append allocates %v times, want 0", n)
			}
		})
	}
}

func TestMarshalAndUnmarshalGoTogether(t *testing.T) {
	rows := []Row{{Values: []*telemetryv1.Value{{Name: "voltage_volts", Number: 230}}}}
	for _, json := range []bool{false, true} {
		e, err := NewEncoder(rows, json)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := e.Marshal(&devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_Hello{Hello: &devicev1.Hello{Session: 7}}})
		if err != nil || len(raw) == 0 {
			t.Errorf("Marshal (json %v) = %q, %v", json, raw, err)
		}
		var f devicev1.NodeFrame
		if err := e.Unmarshal([]byte("\xff"), &f); err == nil {
			t.Errorf("Unmarshal (json %v) of a bad frame succeeded", json)
		}
	}
}
