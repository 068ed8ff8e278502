package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/pkg/settings/live"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/engine"
)

func TestApply(t *testing.T) {
	eng, err := engine.New(t.Context(), engine.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = eng.Close() })
	set := apply(&config{FailMode: "open", Fuel: engine.DefaultFuel}, eng)
	for _, tt := range []struct {
		name, value string
		removed     bool
		mode        engine.FailMode // after it
		fuel        uint64
		fault       string
	}{
		{"fail_mode", "closed", false, engine.Closed, engine.DefaultFuel, ""},
		{"fuel", "20000", false, engine.Closed, 20_000, ""},
		{"fail_mode", "ajar", false, engine.Closed, 20_000, `must be open or closed, is "ajar"`},
		{"fuel", "0", false, engine.Closed, 20_000, `must be 10000 to 100000000, is "0"`},
		{"fuel", "9999", false, engine.Closed, 20_000, "must be 10000 to 100000000, is 9999"},
		{"fuel", "-1", false, engine.Closed, 20_000, `must be 10000 to 100000000, is "-1"`},
		{"fail_mode", "", true, engine.Open, 20_000, ""},
		{"fuel", "", true, engine.Open, engine.DefaultFuel, ""},
	} {
		err := set(tt.name, tt.value, tt.removed)
		if (err != nil) != (tt.fault != "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("apply(%s, %q, %v) = %v, want %q", tt.name, tt.value, tt.removed, err, tt.fault)
		}
		if info := eng.Info(); info.FailMode != tt.mode || info.Fuel != tt.fuel {
			t.Errorf("after apply(%s, %q, %v): %v, %d, want %v, %d", tt.name, tt.value, tt.removed, info.FailMode, info.Fuel, tt.mode, tt.fuel)
		}
	}
	if err := set("colour", "red", false); !errors.Is(err, live.ErrUnknown) {
		t.Errorf("apply(colour) = %v, want ErrUnknown", err)
	}
}
