package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/abi"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/meter"
)

// startFuel bounds what a module does before its first reading: its start
// function, _initialize and the texts of its reasons, each.
const startFuel = 10_000_000

// module is one module of a generation.
type module struct {
	name, sum string
	size      int
	compiled  wazero.CompiledModule
	config    wazero.ModuleConfig
	runtime   wazero.Runtime
	reasons   []string // reasons[i] has the id i+1
	stats     *stats
}

// stats outlive a generation when the next one has the same bytes under the
// same name.
type stats struct {
	generation                     uint64
	loaded                         time.Time
	evaluations, rejections, traps atomic.Uint64
	log                            *guestLog
}

func load(ctx context.Context, g *generation, f file, old *generation) (*module, error) {
	metered, err := meter.Inject(f.raw, startFuel, func(i meter.Import) bool { return abi.ImportAllowed(i.Module, i.Name) })
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(f.raw)
	m := &module{name: f.name, sum: hex.EncodeToString(sum[:]), size: len(f.raw), runtime: g.runtime}
	if m.compiled, err = g.runtime.CompileModule(ctx, metered); err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	if err := checkExports(m.compiled); err != nil {
		return nil, err
	}
	if old != nil {
		for _, was := range old.modules {
			if was.name == m.name && was.sum == m.sum {
				m.stats = was.stats
			}
		}
	}
	if m.stats == nil {
		m.stats = &stats{generation: g.number, loaded: time.Now(), log: newGuestLog(g.log, f.name)}
	}
	m.config = wazero.NewModuleConfig().
		WithName("").         // instances of one module live side by side
		WithStartFunctions(). // called by start, with its errors named
		WithStdout(m.stats.log).WithStderr(m.stats.log).
		WithSysWalltime().WithSysNanotime().
		WithRandSource(rand.Reader)
	return m, nil
}

func checkExports(c wazero.CompiledModule) error {
	if len(c.ExportedMemories()) != 1 || c.ExportedMemories()[abi.ExportMemory] == nil {
		return fmt.Errorf("must export its memory as %q", abi.ExportMemory)
	}
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	type types = []api.ValueType
	var faults []error
	for _, want := range []struct {
		name            string
		optional        bool
		params, results types
	}{
		{abi.ExportVersion, false, nil, types{i32}},
		{abi.ExportBuffer, false, nil, types{i32}},
		{abi.ExportEvaluate, false, types{i32}, types{i64}},
		{abi.ExportReason, true, types{i32}, types{i64}},
		{abi.ExportInitialize, true, nil, nil},
	} {
		f, ok := c.ExportedFunctions()[want.name]
		switch {
		case !ok && want.optional:
		case !ok:
			faults = append(faults, fmt.Errorf("must export the function %s", want.name))
		case !slices.Equal(f.ParamTypes(), want.params) || !slices.Equal(f.ResultTypes(), want.results):
			faults = append(faults, fmt.Errorf("export %s must be %s, is %s", want.name,
				signature(want.params, want.results), signature(f.ParamTypes(), f.ResultTypes())))
		}
	}
	return errors.Join(faults...)
}

func signature(params, results []api.ValueType) string {
	names := func(types []api.ValueType) string {
		var s []string
		for _, t := range types {
			s = append(s, api.ValueTypeName(t))
		}
		return "(" + strings.Join(s, ", ") + ")"
	}
	return names(params) + " -> " + names(results)
}

// start makes an instance that is ready for readings.
func (m *module) start(ctx context.Context) (*instance, error) {
	mod, err := m.runtime.InstantiateModule(ctx, m.compiled, m.config)
	if err != nil {
		return nil, fmt.Errorf("start: %s", firstLine(err))
	}
	in := &instance{mod: mod, memory: mod.Memory(), evaluate: mod.ExportedFunction(abi.ExportEvaluate)}
	if err := in.prepare(ctx); err != nil {
		_ = mod.Close(ctx)
		return nil, err
	}
	return in, nil
}

func (in *instance) prepare(ctx context.Context) error {
	fuel, ok := in.mod.ExportedGlobal(meter.FuelExport).(api.MutableGlobal)
	if !ok {
		return errors.New("has no meter")
	}
	in.fuel = fuel
	if in.mod.ExportedFunction(abi.ExportInitialize) != nil {
		if _, err := in.ask(ctx, abi.ExportInitialize); err != nil {
			return err
		}
	}
	version, err := in.ask(ctx, abi.ExportVersion)
	if err != nil {
		return err
	}
	if uint32(version) != abi.Version {
		return fmt.Errorf("%s must be %d, is %d", abi.ExportVersion, abi.Version, uint32(version))
	}
	address, err := in.ask(ctx, abi.ExportBuffer)
	if err != nil {
		return err
	}
	in.buffer = uint32(address)
	if size := in.memory.Size(); uint64(in.buffer)+abi.BufferSize > uint64(size) {
		return fmt.Errorf("%s: %d bytes at %d must lie in the memory of %d bytes", abi.ExportBuffer, abi.BufferSize, in.buffer, size)
	}
	return nil
}

// ask calls a function of the guest outside of an evaluation.
func (in *instance) ask(ctx context.Context, name string, params ...uint64) (uint64, error) {
	in.fuel.Set(startFuel)
	results, err := in.mod.ExportedFunction(name).Call(ctx, params...)
	if err != nil {
		return 0, fmt.Errorf("%s: %s", name, in.cause(err))
	}
	if len(results) == 0 {
		return 0, nil
	}
	return results[0], nil
}

func (in *instance) readReasons(ctx context.Context) ([]string, error) {
	if in.mod.ExportedFunction(abi.ExportReason) == nil {
		return nil, nil
	}
	var reasons []string
	for id := 1; id <= abi.MaxReasons+1; id++ {
		packed, err := in.ask(ctx, abi.ExportReason, uint64(id))
		if err != nil {
			return nil, err
		}
		address, size := abi.UnpackText(packed)
		if size == 0 {
			return reasons, nil
		}
		if size > abi.MaxReasonBytes {
			return nil, fmt.Errorf("reason %d must be at most %d bytes, is %d", id, abi.MaxReasonBytes, size)
		}
		text, ok := in.memory.Read(address, size)
		if !ok || !utf8.Valid(text) {
			return nil, fmt.Errorf("reason %d at %d must be UTF-8 within the memory", id, address)
		}
		reasons = append(reasons, string(text))
	}
	return nil, fmt.Errorf("reasons must be at most %d", abi.MaxReasons)
}

// cause says in a few words why the guest stopped.
func (in *instance) cause(err error) string {
	var exit *sys.ExitError
	switch {
	case errors.As(err, &exit):
		return fmt.Sprintf("exited with code %d", exit.ExitCode())
	case int64(in.fuel.Get()) < 0:
		return "ran out of fuel"
	}
	return firstLine(err)
}

// firstLine leaves the guest's stack trace out.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
