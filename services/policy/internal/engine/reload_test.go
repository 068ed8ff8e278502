package engine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/abi"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/meter"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/wasmtest"
)

func (e *Engine) must(t *testing.T, want bool) {
	t.Helper()
	if changed, err := e.Reload(t.Context()); changed != want || err != nil {
		t.Fatalf("Reload() = %v, %v, want %v", changed, err, want)
	}
}

func TestReload(t *testing.T) {
	e := open(t, Config{}, map[string][]byte{"threshold": threshold(t)})
	dir := e.cfg.Dir
	ask := func(want abi.Action, module string, generation uint64) {
		t.Helper()
		var v Verdict
		g, err := e.Evaluate(t.Context(), reading(number("temperature", 90)), &v)
		if err != nil || v.Action != want || v.Module != module || g != generation {
			t.Errorf("Evaluate() = %+v by %d, %v, want %v of %q by %d", v, g, err, want, module, generation)
		}
	}
	ask(abi.Reject, "threshold", 1)
	e.must(t, false) // nothing changed

	put(t, dir, "first", wasmtest.Module{Evaluate: wasmtest.Answer(2, 0)}.Bytes())
	e.must(t, true)
	ask(abi.Reject, "first", 2)

	put(t, dir, "first", wasmtest.Module{Evaluate: wasmtest.Answer(3, 0)}.Bytes()) // of the same size
	e.must(t, true)
	ask(abi.Reject, "threshold", 3)

	if m := e.Info().Modules[1]; m.Name != "threshold" || m.Generation != 1 || m.Evaluations != 2 {
		t.Errorf("unchanged module = %+v, want its 2 evaluations kept since generation 1", m)
	}

	put(t, dir, "bad", []byte("no module"))
	if changed, err := e.Reload(t.Context()); changed || err == nil {
		t.Fatalf("Reload() with a bad module = %v, %v, want an error", changed, err)
	}
	ask(abi.Reject, "threshold", 3)
	if info := e.Info(); !strings.Contains(info.Refusal, `module "bad"`) || len(info.Modules) != 2 {
		t.Errorf("Info() = %+v, want a refusal that names the module, and 2 modules", info)
	}
	e.must(t, false) // the same fault is not tried again

	if err := os.Remove(filepath.Join(dir, "bad.wasm")); err != nil {
		t.Fatal(err)
	}
	e.must(t, true)
	if info := e.Info(); info.Refusal != "" || info.Generation != 4 {
		t.Errorf("Info() = %+v, want generation 4 without a refusal", info)
	}

	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Reload(t.Context()); err == nil {
		t.Error("Reload() without a folder = nil, want an error")
	}
	ask(abi.Reject, "threshold", 4)
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	e.must(t, true)
}

func TestWatch(t *testing.T) {
	e := open(t, Config{}, map[string][]byte{"threshold": threshold(t)})
	g, ctx := errgroup.WithContext(t.Context())
	ctx, cancel := context.WithCancel(ctx)
	g.Go(func() error { return e.Watch(ctx) })
	put(t, e.cfg.Dir, "other", wasmtest.Module{}.Bytes())
	testkit.Eventually(t, 5*time.Second, "the new module to be taken", func() bool { return len(e.Info().Modules) == 2 })
	cancel()
	if err := g.Wait(); err != nil {
		t.Errorf("Watch() = %v, want nil", err)
	}
}

func TestNoPolicyInForce(t *testing.T) {
	e := open(t, Config{}, map[string][]byte{"bad": nil})
	var v Verdict
	g, err := e.Evaluate(t.Context(), reading(number("a", 1)), &v)
	if want := (Verdict{Action: abi.Accept, Reason: noModules, Unevaluated: true}); err != nil || g != 0 || v != want {
		t.Errorf("open: Evaluate() = %+v by %d, %v, want %+v by 0", v, g, err, want)
	}
	e.SetFailMode(Closed)
	_, err = e.Evaluate(t.Context(), reading(number("a", 1)), &v)
	if want := (Verdict{Action: abi.Reject, Reason: noModules, Unevaluated: true}); err != nil || v != want {
		t.Errorf("closed: Evaluate() = %+v, %v, want %+v", v, err, want)
	}
}

func TestRefused(t *testing.T) {
	nested := func(op byte, depth int) []byte {
		var code []byte
		for range depth {
			code = append(code, op, wasmtest.Void)
		}
		for range depth {
			code = append(code, wasmtest.End)
		}
		return append(code, wasmtest.Answer(1, 0)...)
	}
	good := wasmtest.Module{}.Bytes()
	for _, tt := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"empty", nil, "not a WebAssembly 1.0 binary"},
		{"garbage", []byte("\x7fELF, not a guest"), "not a WebAssembly 1.0 binary"},
		{"version 2", []byte("\x00asm\x02\x00\x00\x00"), "not a WebAssembly 1.0 binary"},
		{"cut short", good[:len(good)-3], "section 10: ends too early"},
		{"oversize", make([]byte, meter.MaxBytes+1), "size must be at most 131072 bytes, is 131073"},
		{"unknown import", wasmtest.Module{Imports: [][2]string{{"env", "system"}}}.Bytes(), `import "env"."system" is not allowed`},
		{"file system", wasmtest.Module{Imports: [][2]string{{abi.WASI, "path_open"}}}.Bytes(), `import "wasi_snapshot_preview1"."path_open" is not allowed`},
		{"shared memory", wasmtest.Module{Imports: [][2]string{{"env", "memory"}}, ImportKind: 2}.Bytes(), "must be a function, is of kind 2"},
		{"ABI version", wasmtest.Module{Version: 2}.Bytes(), "xh_abi_version must be 1, is 2"},
		{"65 pages", wasmtest.Module{Pages: 65}.Bytes(), "minimum must be at most 64 pages (4096 KiB), is 65"},
		{"table", wasmtest.Module{Tables: []uint32{1 << 27}}.Bytes(), "table 0: minimum must be at most 1024 elements, is 134217728"},
		{"tables", wasmtest.Module{Tables: make([]uint32, 5)}.Bytes(), "tables must be at most 4, are 5"},
		{"functions", wasmtest.Module{Functions: 4096}.Bytes(), "functions must be at most 4096, are 4099"},
		{"locals", wasmtest.Module{Locals: 50_000}.Bytes(), "locals must be at most 1024, are 50000"},
		{"nesting", wasmtest.Module{Evaluate: nested(wasmtest.Block, 65)}.Bytes(), "nested at most 64 deep"},
		{"buffer outside", wasmtest.Module{Buffer: 65536 - 24575}.Bytes(), "24576 bytes at 40961 must lie in the memory of 65536 bytes"},
		{"buffer far outside", wasmtest.Module{Buffer: -1}.Bytes(), "24576 bytes at 4294967295 must lie in the memory"},
		{"no xh_evaluate", wasmtest.Module{Without: "xh_evaluate"}.Bytes(), "must export the function xh_evaluate"},
		{"no memory", wasmtest.Module{Without: "memory"}.Bytes(), `must export its memory as "memory"`},
		{"wrong type", wasmtest.Module{Evaluate: []byte{wasmtest.I32Const, 0}}.Bytes(), "compile: "},
		{"looping start", wasmtest.Module{Start: wasmtest.Forever()}.Bytes(), "start: "},
		{
			"own fuel", wasmtest.Module{Globals: 1, Evaluate: append([]byte{wasmtest.GlobalGet, 1, wasmtest.GlobalSet, 1}, wasmtest.Answer(1, 0)...)}.Bytes(),
			"global 1 is not there: the module has 1",
		},
		{"SIMD", wasmtest.Module{Evaluate: []byte{0xfd, 0x0c}}.Bytes(), "instruction 0xfd at byte 1 is not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t, Config{}, map[string][]byte{"m": tt.raw})
			if got := e.Info().Refusal; !strings.Contains(got, tt.want) || !strings.Contains(got, `module "m`) {
				t.Errorf("Refusal = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNotAFile(t *testing.T) {
	e := open(t, Config{}, nil)
	if err := os.Mkdir(filepath.Join(e.cfg.Dir, "m.wasm"), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "must be a regular file") {
		t.Errorf("Reload() with a folder as module = %v", err)
	}
}

// TestSwapUnderLoad has every batch judged by one generation: its modules agree
// within a generation and differ between two.
func TestSwapUnderLoad(t *testing.T) {
	reject := wasmtest.Module{Evaluate: wasmtest.Answer(2, 0)}.Bytes()
	alert := wasmtest.Module{Evaluate: wasmtest.Answer(3, 0)}.Bytes()
	e := open(t, Config{}, map[string][]byte{"m": reject})
	done := make(chan struct{})
	var g errgroup.Group
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	for range 4 {
		g.Go(func() error {
			readings := make([]abi.Reading, 16)
			for i := range readings {
				readings[i] = *reading(number("a", 1))
			}
			verdicts := make([]Verdict, len(readings))
			for {
				select {
				case <-done:
					return nil
				default:
				}
				n, err := e.EvaluateBatch(t.Context(), readings, verdicts)
				if err != nil {
					return err
				}
				want := abi.Reject
				if n%2 == 0 {
					want = abi.Alert
				}
				for _, v := range verdicts {
					if v.Action != want || v.Unevaluated {
						t.Errorf("generation %d answered %+v, want %v", n, v, want)
					}
				}
				mu.Lock()
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	for i := range 50 {
		raw := alert
		if i%2 == 1 {
			raw = reject
		}
		put(t, e.cfg.Dir, "m", raw)
		e.must(t, true)
		e.Info()
	}
	close(done)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d of 51 generations judged", len(seen))
}
