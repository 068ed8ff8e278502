package bus_test

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"
)

// The names are a contract with everyone who subscribes: docs/architecture.md
// states them, and none may change.
func TestSubjects(t *testing.T) {
	s, err := bus.NewSubjects("harbour", "box-7")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ what, got, want string }{
		{"Telemetry", s.Telemetry("ws", "meter_1"), "xh.v1.harbour.box-7.tel.ws.meter_1"},
		{"AllTelemetry", s.AllTelemetry(), "xh.v1.harbour.box-7.tel.>"},
		{"Event", s.Event("firewall"), "xh.v1.harbour.box-7.evt.firewall"},
		{"AllEvents", s.AllEvents(), "xh.v1.harbour.box-7.evt.>"},
		{"Status", s.Status("meter_1"), "xh.v1.harbour.box-7.status.meter_1"},
		{"TelemetryStream", s.TelemetryStream(), "XH_TEL_harbour_box-7"},
		{"EventStream", s.EventStream(), "XH_EVT_harbour_box-7"},
		{"MsgID", s.MsgID(3, 42), "box-7/3/42"},
		{"MsgID of the greatest", s.MsgID(math.MaxUint64, math.MaxUint64), "box-7/18446744073709551615/18446744073709551615"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s = %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}

func TestNewSubjectsRefuses(t *testing.T) {
	tests := []struct{ site, node, field string }{
		{"", "node", "site"},
		{"a.b", "node", "site"},
		{"site", "*", "node"},
		{"site", ">", "node"},
		{"site", strings.Repeat("n", 65), "node"},
	}
	for _, tt := range tests {
		if _, err := bus.NewSubjects(tt.site, tt.node); err == nil || !strings.HasPrefix(err.Error(), tt.field+": must be 1 to 64") {
			t.Errorf("NewSubjects(%q, %q) = %v, want an error about %s", tt.site, tt.node, err, tt.field)
		}
	}
}

func FuzzIsToken(f *testing.F) {
	for _, s := range []string{"", "meter-1", "a.b", "*", ">", "/", "..", "µ", "\x00", strings.Repeat("a", 64), strings.Repeat("a", 65)} {
		f.Add(s)
	}
	token := regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	f.Fuzz(func(t *testing.T, s string) {
		// In Go, unlike in Perl, $ does not match before a newline at the end.
		if got, want := bus.IsToken(s), token.MatchString(s); got != want {
			t.Errorf("IsToken(%q) = %v, want %v", s, got, want)
		}
	})
}
