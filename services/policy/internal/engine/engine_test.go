package engine

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/abi"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/wasmtest"
	"github.com/xinghuo-edge/xinghuo/services/policy/modules"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// put replaces a module as an administrator is told to: by a rename.
func put(t testing.TB, dir, name string, raw []byte) {
	t.Helper()
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Close(), os.Rename(f.Name(), filepath.Join(dir, name+suffix))); err != nil {
		t.Fatal(err)
	}
}

func threshold(t testing.TB) []byte {
	t.Helper()
	raw, err := modules.Read("threshold.wasm")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// open returns an engine on a folder with the given modules.
func open(t testing.TB, cfg Config, files map[string][]byte) *Engine {
	t.Helper()
	cfg.Dir = t.TempDir()
	for name, raw := range files {
		put(t, cfg.Dir, name, raw)
	}
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return e
}

func reading(values ...abi.Value) *abi.Reading {
	return &abi.Reading{Device: "meter-001", Source: "ws", Sequence: 7, UnixNano: 1_165_000_000_000_000_000, Values: values}
}

func number(name string, n float64) abi.Value { return abi.Value{Name: name, Number: n} }

func text(name, s string) abi.Value { return abi.Value{Name: name, Text: s, IsText: true} }

func TestThreshold(t *testing.T) {
	const hot, nan = "temperature above 85 °C", "temperature is not a number"
	for _, interpreter := range []bool{false, true} {
		t.Run(fmt.Sprintf("interpreter=%v", interpreter), func(t *testing.T) {
			e := open(t, Config{Interpreter: interpreter}, map[string][]byte{"threshold": threshold(t)})
			if info := e.Info(); info.Refusal != "" || interpreter != (info.Backend == "interpreter") {
				t.Fatalf("Info() = %+v", info)
			}
			for _, tt := range []struct {
				name   string
				in     []abi.Value
				want   abi.Action
				reason string
			}{
				{"no temperature", []abi.Value{number("voltage_volts", 240)}, abi.Accept, ""},
				{"cool", []abi.Value{number("voltage_volts", 240), number("temperature", 20)}, abi.Accept, ""},
				{"at the limit", []abi.Value{number("temperature", 85)}, abi.Accept, ""},
				{"an ulp over", []abi.Value{number("temperature", math.Nextafter(85, 86))}, abi.Reject, hot},
				{"hot, last of many", append(many(63), number("temperature", 85.5)), abi.Reject, hot},
				{"infinite", []abi.Value{number("temperature", math.Inf(1))}, abi.Reject, hot},
				{"infinitely cold", []abi.Value{number("temperature", math.Inf(-1))}, abi.Accept, ""},
				{"NaN", []abi.Value{number("temperature", math.NaN())}, abi.Reject, nan},
				{"text", []abi.Value{text("temperature", "warm")}, abi.Reject, nan},
				{"another name", []abi.Value{number("temperature_limit", 99), text("note", "temperature")}, abi.Accept, ""},
				{"largest reading", largest().Values, abi.Accept, ""},
			} {
				var v Verdict
				g, err := e.Evaluate(t.Context(), reading(tt.in...), &v)
				if err != nil || g != 1 || v.Action != tt.want || v.Reason != tt.reason || v.Unevaluated {
					t.Errorf("%s: Evaluate() = %+v by %d, %v, want %v %q by 1", tt.name, v, g, err, tt.want, tt.reason)
				}
			}
			m := e.Info().Modules[0]
			if m.Name != "threshold" || m.Evaluations != 11 || m.Rejections != 5 || m.Traps != 0 || len(m.SHA256) != 64 {
				t.Errorf("Info().Modules[0] = %+v, want 11 evaluations, 5 rejections, 0 traps", m)
			}
		})
	}
}

func many(n int) []abi.Value {
	var values []abi.Value
	for i := range n {
		values = append(values, number(fmt.Sprintf("value_%d", i), float64(i)))
	}
	return values
}

func largest() *abi.Reading {
	r := &abi.Reading{Device: strings.Repeat("d", abi.MaxDevice), Source: strings.Repeat("s", abi.MaxSource)}
	for range abi.MaxValues {
		r.Values = append(r.Values, text(strings.Repeat("n", abi.MaxName), strings.Repeat("t", abi.MaxText)))
	}
	return r
}

func TestChain(t *testing.T) {
	guest := func(action byte) []byte { return wasmtest.Module{Evaluate: wasmtest.Answer(action, 0)}.Bytes() }
	trap := wasmtest.Module{Evaluate: []byte{wasmtest.Unreachable}}.Bytes()
	accept, reject, alert := guest(1), guest(2), guest(3)
	for _, tt := range []struct {
		name  string
		mode  FailMode
		files map[string][]byte
		want  Verdict
	}{
		{"none", Open, nil, Verdict{Action: abi.Accept}},
		{"all accept", Open, map[string][]byte{"a": accept, "b": accept}, Verdict{Action: abi.Accept}},
		{"second rejects", Open, map[string][]byte{"a": accept, "b": reject}, Verdict{Action: abi.Reject, Module: "b"}},
		{"first of two rejects", Open, map[string][]byte{"a": reject, "b": reject}, Verdict{Action: abi.Reject, Module: "a"}},
		{"alert stays", Open, map[string][]byte{"a": alert, "b": accept, "c": alert}, Verdict{Action: abi.Alert, Module: "a"}},
		{"reject beats alert", Open, map[string][]byte{"a": alert, "b": reject}, Verdict{Action: abi.Reject, Module: "b"}},
		{
			"trap, open", Open,
			map[string][]byte{"a": accept, "b": trap},
			Verdict{Action: abi.Accept, Module: "b", Reason: "wasm error: unreachable", Unevaluated: true},
		},
		{
			"trap, closed", Closed,
			map[string][]byte{"a": accept, "b": trap},
			Verdict{Action: abi.Reject, Module: "b", Reason: "wasm error: unreachable", Unevaluated: true},
		},
		{"reject after trap", Open, map[string][]byte{"a": trap, "b": reject}, Verdict{Action: abi.Reject, Module: "b"}},
		{"alert after trap", Open, map[string][]byte{"a": trap, "b": alert}, Verdict{Action: abi.Alert, Module: "b", Unevaluated: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t, Config{FailMode: tt.mode}, tt.files)
			for range 3 { // a trapped instance is replaced each time
				var v Verdict
				if _, err := e.Evaluate(t.Context(), reading(number("a", 1)), &v); err != nil || v != tt.want {
					t.Errorf("Evaluate() = %+v, %v, want %+v", v, err, tt.want)
				}
			}
		})
	}
}

func TestFailedEvaluations(t *testing.T) {
	w := func(code ...byte) []byte { return append(code, wasmtest.Answer(1, 0)...) }
	grow := w(wasmtest.Loop, wasmtest.Void, wasmtest.I32Const, 1, wasmtest.MemoryGrow, 0, wasmtest.Drop, wasmtest.Br, 0, wasmtest.End)
	recurse := []byte{wasmtest.LocalGet, 0, wasmtest.Call, 2}
	for _, tt := range []struct {
		name   string
		module wasmtest.Module
		want   string
	}{
		{"endless loop", wasmtest.Module{Evaluate: w(wasmtest.Forever()...)}, "ran out of fuel"},
		{"endless recursion", wasmtest.Module{Evaluate: recurse}, "ran out of fuel"},
		{"endless growth", wasmtest.Module{Evaluate: grow}, "ran out of fuel"},
		{"trap", wasmtest.Module{Evaluate: []byte{wasmtest.Unreachable}}, "wasm error: unreachable"},
		{"exit", wasmtest.Module{
			Imports:  [][2]string{{abi.WASI, "proc_exit"}},
			Evaluate: w(wasmtest.I32Const, 3, wasmtest.Call, 0),
		}, "exited with code 3"},
		{"no answer", wasmtest.Module{Evaluate: wasmtest.Answer(0, 0)}, "answered with action 0, must be 1 to 4"},
		{"unknown answer", wasmtest.Module{Evaluate: wasmtest.Answer(9, 0)}, "answered with action 9, must be 1 to 4"},
		{"transform", wasmtest.Module{Evaluate: wasmtest.Answer(4, 0)}, errTransform.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t, Config{}, map[string][]byte{"m": tt.module.Bytes()})
			var v Verdict
			want := Verdict{Action: abi.Accept, Module: "m", Reason: tt.want, Unevaluated: true}
			if _, err := e.Evaluate(t.Context(), reading(number("a", 1)), &v); err != nil || v != want {
				t.Errorf("Evaluate() = %+v, %v, want %+v", v, err, want)
			}
			if got := e.Info().Modules[0].Traps; got != 1 {
				t.Errorf("Traps = %d, want 1", got)
			}
		})
	}
}

func TestUnnamedReason(t *testing.T) {
	e := open(t, Config{}, map[string][]byte{"m": wasmtest.Module{Evaluate: wasmtest.Answer(2, 17)}.Bytes()})
	var v Verdict
	if _, err := e.Evaluate(t.Context(), reading(number("a", 1)), &v); err != nil || v.Reason != "reason 17, which the module does not name" {
		t.Errorf("Evaluate() = %+v, %v", v, err)
	}
}

func TestInvalidReadings(t *testing.T) {
	e := open(t, Config{}, map[string][]byte{"threshold": threshold(t)})
	good := reading(number("a", 1))
	for _, tt := range []struct {
		name  string
		in    func(r *abi.Reading)
		field string
	}{
		{"no device", func(r *abi.Reading) { r.Device = "" }, "readings[1].device_id"},
		{"long device", func(r *abi.Reading) { r.Device = strings.Repeat("d", 65) }, "readings[1].device_id"},
		{"long source", func(r *abi.Reading) { r.Source = strings.Repeat("s", 65) }, "readings[1].source"},
		{"no values", func(r *abi.Reading) { r.Values = nil }, "readings[1].reading.values"},
		{"many values", func(r *abi.Reading) { r.Values = many(65) }, "readings[1].reading.values"},
		{"no name", func(r *abi.Reading) { r.Values = []abi.Value{number("", 1)} }, "readings[1].reading.values[0].name"},
		{"long text", func(r *abi.Reading) { r.Values = []abi.Value{text("a", strings.Repeat("t", 257))} }, "readings[1].reading.values[0].text"},
	} {
		bad := *good
		tt.in(&bad)
		var field *fault.FieldError
		_, err := e.EvaluateBatch(t.Context(), []abi.Reading{*good, bad}, make([]Verdict, 2))
		if !errors.As(err, &field) || field.Field != tt.field {
			t.Errorf("%s: EvaluateBatch() = %v, want field %s", tt.name, err, tt.field)
		}
	}
	if _, err := e.EvaluateBatch(t.Context(), []abi.Reading{*good}, nil); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("EvaluateBatch(1 reading, 0 verdicts) = %v, want ErrInvalid", err)
	}
}

func TestClosed(t *testing.T) {
	e := open(t, Config{}, map[string][]byte{"threshold": threshold(t)})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Evaluate(t.Context(), reading(number("a", 1)), new(Verdict)); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("Evaluate() after Close = %v, want ErrUnavailable", err)
	}
	if _, err := e.Reload(t.Context()); err != nil {
		t.Errorf("Reload() after Close = %v", err)
	}
}

func TestAllocations(t *testing.T) {
	e := open(t, Config{}, map[string][]byte{"threshold": threshold(t)})
	cool, hot := reading(append(many(9), number("temperature", 20))...), reading(number("temperature", 90))
	batch := []abi.Reading{*cool, *hot, *cool}
	verdicts := make([]Verdict, len(batch))
	var v Verdict
	evaluate := func() {
		for _, r := range []*abi.Reading{cool, hot} {
			if _, err := e.Evaluate(t.Context(), r, &v); err != nil {
				t.Error(err)
			}
		}
		if _, err := e.EvaluateBatch(t.Context(), batch, verdicts); err != nil {
			t.Error(err)
		}
	}
	for range 2 * lanes() { // each lane starts its instances once
		evaluate()
	}
	if n := testing.AllocsPerRun(100, evaluate); n != 0 {
		t.Errorf("allocations per run = %v, want 0", n)
	}
}

func TestGuestLogIsBounded(t *testing.T) {
	var out bytes.Buffer
	g := newGuestLog(slog.New(slog.NewTextHandler(&out, nil)), "m")
	g.second = math.MaxInt64 // the first line begins a second
	for range 1000 {
		if n, err := g.Write(bytes.Repeat([]byte{0xff}, 1<<16)); n != 1<<16 || err != nil {
			t.Fatalf("Write() = %d, %v", n, err)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines < linesPerSecond || lines > 3*linesPerSecond || out.Len() > 1<<16 {
		t.Errorf("1000 writes made %d lines of %d bytes in all, want about %d short ones", lines, out.Len(), linesPerSecond)
	}
}
