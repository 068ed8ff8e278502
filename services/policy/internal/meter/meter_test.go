package meter_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/meter"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/wasmtest"
	"github.com/xinghuo-edge/xinghuo/services/policy/modules"
)

const tank = 1_000_000

func none(meter.Import) bool { return false }

// run calls xh_evaluate(n) with a tank of fuel and returns what is left.
func run(t *testing.T, rc wazero.RuntimeConfig, metered []byte, n uint64) (left int64, err error) {
	t.Helper()
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, rc)
	defer func() { _ = r.Close(ctx) }()
	mod, err := r.Instantiate(ctx, metered)
	if err != nil {
		t.Fatalf("instantiate: %v", err)
	}
	fuel := mod.ExportedGlobal(meter.FuelExport).(api.MutableGlobal)
	fuel.Set(tank)
	_, err = mod.ExportedFunction("xh_evaluate").Call(ctx, n)
	return int64(fuel.Get()), err
}

// countdown runs its loop n times, n > 0.
func countdown() []byte {
	const tee, sub, brIf = 0x22, 0x6b, 0x0d
	code := []byte{
		wasmtest.Loop, wasmtest.Void,
		wasmtest.LocalGet, 0, wasmtest.I32Const, 1, sub, tee, 0,
		brIf, 0, wasmtest.End,
	}
	return append(code, wasmtest.Answer(1, 0)...)
}

func TestFuel(t *testing.T) {
	const (
		function = 3 // loop, i64.const, end
		pass     = 6 // local.get, i32.const, i32.sub, local.tee, br_if, end
	)
	metered, err := meter.Inject(wasmtest.Module{Evaluate: countdown(), Globals: 3}.Bytes(), tank, none)
	if err != nil {
		t.Fatal(err)
	}
	for name, rc := range map[string]wazero.RuntimeConfig{
		"default": wazero.NewRuntimeConfig(), "interpreter": wazero.NewRuntimeConfigInterpreter(),
	} {
		for _, n := range []uint64{1, 10, 1000, (tank - function) / pass} {
			left, err := run(t, rc, metered, n)
			if want := int64(tank - function - pass*n); err != nil || left != want {
				t.Errorf("%s: %d passes left %d, %v, want %d", name, n, left, err, want)
			}
		}
		left, err := run(t, rc, metered, (tank-function)/pass+1)
		if err == nil || left >= 0 || left < -pass {
			t.Errorf("%s: one pass too many left %d, %v, want a trap just below 0", name, left, err)
		}
	}
}

func TestCosts(t *testing.T) {
	w := func(code ...byte) []byte { return append(code, wasmtest.Answer(1, 0)...) }
	for _, tt := range []struct {
		name string
		code []byte
		want int64
	}{
		{"plain", w(), 2},
		{"block", w(wasmtest.Block, wasmtest.Void, wasmtest.End), 4},
		{"grow", w(wasmtest.I32Const, 0, wasmtest.MemoryGrow, 0, wasmtest.Drop), 5 + 1<<14},
		{"fill", w(wasmtest.I32Const, 0, wasmtest.I32Const, 0, wasmtest.I32Const, 0, 0xfc, 11, 0), 6 + 1<<14},
		{"call of a cheap function", w(wasmtest.Call, 0, wasmtest.Drop), 4 + 2},
	} {
		metered, err := meter.Inject(wasmtest.Module{Evaluate: tt.code}.Bytes(), tank, none)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if left, err := run(t, wazero.NewRuntimeConfig(), metered, 0); err != nil || tank-left != tt.want {
			t.Errorf("%s: used %d, %v, want %d", tt.name, tank-left, err, tt.want)
		}
	}
}

// TestLies has lengths that their bytes do not bear out, and forms of later
// versions that wazero knows and this package does not.
func TestLies(t *testing.T) {
	const lie = "\xff\xff\xff\xff\x0f"
	for _, tt := range []struct{ name, section, want string }{
		{"types", "\x01\x05" + lie, "type section: ends too early"},
		{"parameters", "\x01\x07\x01\x60" + lie, "type section: ends too early"},
		{"recursive types", "\x01\x04\x01\x4e\x00\x00", "form of a type 0x4e at byte 1 is not supported"},
		{"concrete reference", "\x01\x06\x01\x60\x01\x63\x00\x00", "value type 0x63 at byte 3 is not supported"},
		{"imports", "\x02\x05" + lie, "import section: ends too early"},
		{"functions", "\x03\x05" + lie, "function section: ends too early"},
		{"tables", "\x04\x05" + lie, "table section: ends too early"},
		{"table with a start value", "\x04\x09\x01\x40\x00\x70\x00\x01\xd0\x70\x0b", "reference type 0x40 at byte 1 is not supported"},
		{"memories", "\x05\x05\x02\x00\x01\x00\x01", "memories must be at most 1, are 2"},
		{"shared memory", "\x05\x04\x01\x03\x01\x01", "limits 0x03 at byte 1 is not supported"},
		{"globals", "\x06\x05" + lie, "global section: ends too early"},
		{"exports", "\x07\x05" + lie, "export section: ends too early"},
		{"export of the meter", "\x07\x0b\x01\x07xh_fuel\x03\x00", `export "xh_fuel" is the engine's`},
		{"elements", "\x09\x05" + lie, "element section: ends too early"},
		{"elements of a segment", "\x09\x0a\x01\x00\x41\x00\x0b" + lie, "element section: ends too early"},
		{"functions' code", "\x0a\x05" + lie, "code section: ends too early"},
		{"locals", "\x0a\x07\x01\x05" + lie, "function 0: ends too early"},
		{"data", "\x0b\x05" + lie, "data section: ends too early"},
		{"a segment's data", "\x0b\x07\x01\x01" + lie, "data section: ends too early"},
		{"data count", "\x0c\x05" + lie, "data segments must be at most 131072, are 4294967295"},
		{"tags", "\x0d\x05" + lie, "section 13 is unknown"},
		{"section", "\x01" + lie, "section 1: ends too early"},
		{"section twice", "\x01\x01\x00\x01\x01\x00", "section 1 is unknown, twice there or out of order"},
		{"bytes too many", "\x01\x02\x00\x00", "type section: has 1 bytes too many"},
		{"block of a concrete reference", "\x0a\x08\x01\x06\x00\x02\x63\x00\x0b\x0b", "block type 0x63 at byte 2 is not supported"},
		{"memory 1", "\x0a\x09\x01\x07\x00\x41\x00\x28\x42\x00\x0b", "alignment 0x42 at byte 4 is not supported"},
		{"tail call", "\x0a\x06\x01\x04\x00\x12\x00\x0b", "instruction 0x12 at byte 1 is not supported"},
		{"exceptions", "\x0a\x07\x01\x05\x00\x1f\x40\x00\x0b", "instruction 0x1f at byte 1 is not supported"},
	} {
		_, err := meter.Inject([]byte("\x00asm\x01\x00\x00\x00"+tt.section), tank, none)
		if !errors.Is(err, meter.ErrRefused) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Inject() = %v, want %q", tt.name, err, tt.want)
		}
	}
}

// FuzzInject asserts that no bytes make Inject or what follows it fail in
// another way than by an error, and that what comes out stays within bounds.
func FuzzInject(f *testing.F) {
	threshold, err := modules.Read("threshold.wasm")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(threshold)
	f.Add(wasmtest.Module{Evaluate: countdown(), Globals: 2, Tables: []uint32{4}}.Bytes())
	f.Add(wasmtest.Module{Imports: [][2]string{{"env", "f"}}, Start: wasmtest.Forever()}.Bytes())
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	rc := wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(meter.MaxPages)
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		metered, err := meter.Inject(raw, tank, func(meter.Import) bool { return true })
		if !bytes.Equal(raw, before) {
			t.Fatal("Inject changed its input")
		}
		if err != nil {
			if !errors.Is(err, meter.ErrRefused) {
				t.Fatalf("Inject() = %v, want ErrRefused", err)
			}
			return
		}
		if len(metered) > 32*meter.MaxBytes {
			t.Fatalf("%d bytes became %d", len(raw), len(metered))
		}
		ctx := context.Background()
		r := wazero.NewRuntimeWithConfig(ctx, rc)
		defer func() { _ = r.Close(ctx) }()
		if c, err := r.CompileModule(ctx, metered); err == nil {
			// A module that is valid with its meter was valid without, but for
			// its custom sections, which are left out unread.
			if _, err := r.CompileModule(ctx, raw); err != nil && !strings.Contains(err.Error(), "custom") {
				t.Errorf("metering made an invalid module valid: %v", err)
			}
			_ = c.Close(ctx)
		}
	})
}
