package statusjson

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"
)

func TestAppend(t *testing.T) {
	at := time.Date(2026, 1, 2, 11, 4, 5, 600_000_000, time.FixedZone("CST", 8*3600))
	tests := []struct {
		name string
		give Status
		want string
	}{
		{
			"whole",
			Status{"m1", at, true, 7, []*telemetryv1.Value{{Name: "voltage_volts", Number: 231.4}, {Name: "mode", Text: "节能\"\\\n\x7f"}}},
			`{"device":"m1","time":"2026-01-02T03:04:05.6Z","connected":true,"sequence":7,"values":{"voltage_volts":231.4,"mode":"节能\"\\\u000a\u007f"}}`,
		},
		{"bare", Status{Device: "m1"}, `{"device":"m1","time":"0001-01-01T00:00:00Z","connected":false,"sequence":0,"values":{}}`},
		{
			"no numbers",
			Status{Device: "m", Time: at, Sequence: math.MaxUint64, Values: []*telemetryv1.Value{{Name: "a", Number: math.NaN()}, {Name: "b", Number: math.Inf(1)}, {Name: "c", Number: math.Inf(-1)}}},
			`{"device":"m","time":"2026-01-02T03:04:05.6Z","connected":false,"sequence":18446744073709551615,"values":{"a":"NaN","b":"Infinity","c":"-Infinity"}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := string(Append(nil, &tt.give))
			if got != tt.want {
				t.Errorf("Append(%v) = %s, want %s", tt.give, got, tt.want)
			}
		})
	}
}

func TestAppendAllocatesOnce(t *testing.T) {
	s := Status{Device: "meter-0001", Time: time.Unix(1, 123456789), Connected: true, Sequence: math.MaxUint64}
	for range 64 {
		s.Values = append(s.Values, &telemetryv1.Value{Name: "x", Number: -math.MaxFloat64 / 3})
	}
	if n := testing.AllocsPerRun(10, func() { Append(make([]byte, 0, Size(&s)), &s) }); n > 1 {
		t.Errorf("allocations = %v, want 1", n)
	}
}

func FuzzAppend(f *testing.F) {
	f.Add("on", 1.5)
	f.Add("\xff\u2028\x00\"", math.SmallestNonzeroFloat64)
	f.Add("", -1e21)
	f.Fuzz(func(t *testing.T, text string, number float64) {
		s := Status{Device: "d", Time: time.Unix(0, 0), Values: []*telemetryv1.Value{{Name: "v", Number: number, Text: text}}}
		raw := Append(nil, &s)
		var got struct{ Values map[string]any }
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatalf("Unmarshal(%q) = %v", raw, err)
		}
		switch v := got.Values["v"].(type) {
		case string:
			if text != "" && v != strings.ToValidUTF8(text, "") && len([]rune(v)) != len([]rune(text)) {
				t.Errorf("text = %q, want %q", v, text)
			}
		case float64:
			if text != "" || v != number {
				t.Errorf("number = %v, want %v (text %q)", v, number, text)
			}
		default:
			t.Errorf("value = %v", v)
		}
	})
}
