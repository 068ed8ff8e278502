// Package engine judges readings with the WebAssembly modules of a folder.
//
// The modules in force are a generation: all are compiled, checked and started
// before the first reading meets them, then one pointer makes them the current
// ones. An evaluation holds the generation that it began with, so a batch is
// never judged by a mix, and the generation before is closed when the last
// evaluation lets go of it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/abi"
)

// The range of Config.Fuel. The default is about 500 times what a policy needs
// for ten values, and runs dry within a few milliseconds on a compiling
// machine; a guest can hold a thread, and with it a garbage collection, no
// longer than that.
const (
	MinFuel     = 10_000
	DefaultFuel = 1_000_000
	MaxFuel     = 100_000_000
)

// MaxModules is how many modules one folder may hold.
const MaxModules = 64

// FailMode says what becomes of a reading that a module could not judge.
type FailMode uint32

// Open lets the reading pass, marked as unevaluated, if no other module rejects
// it. Closed rejects it.
const (
	Open FailMode = iota
	Closed
)

// ParseFailMode returns the fail mode of a name: open or closed.
func ParseFailMode(name string) (FailMode, error) {
	switch name {
	case "open":
		return Open, nil
	case "closed":
		return Closed, nil
	}
	return Open, fault.Invalid("fail_mode", "must be open or closed, is %q", name)
}

func (m FailMode) String() string {
	if m == Closed {
		return "closed"
	}
	return "open"
}

// Config is what an engine needs.
type Config struct {
	Dir         string // with the modules, *.wasm; must be there
	FailMode    FailMode
	Fuel        uint64 // for one module and one reading; MinFuel to MaxFuel, 0 is DefaultFuel
	Log         *slog.Logger
	Refused     func(reason string) // told after each change of the folder; empty when it was taken; may be nil
	Interpreter bool                // do not compile to machine code, even where it is possible
}

// Verdict is what the modules say of one reading. Its texts live as long as the
// verdict does.
type Verdict struct {
	Action      abi.Action
	Module      string // that decided; empty when all accepted without a word
	Reason      string
	Unevaluated bool // no module rejected it, and at least one could not judge
}

// Engine judges readings. All methods may be called by several at once.
type Engine struct {
	cfg      Config
	backend  string
	mode     atomic.Uint32
	fuel     atomic.Uint64
	current  atomic.Pointer[generation] // nil once closed
	reloadMu sync.Mutex                 // held while a generation is made; guards seen
	seen     listing                    // the folder as it was at the last try
	infoMu   sync.Mutex                 // guards refusal
	refusal  string
}

// New returns an engine with the modules of cfg.Dir in force. When they are
// refused the engine is there all the same, with no module in force and the
// refusal in Info: readings then get the fail mode, and a mended folder is
// taken by Watch.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Refused == nil {
		cfg.Refused = func(string) {}
	}
	e := &Engine{cfg: cfg, backend: backend(ctx, cfg.Interpreter)}
	if err := e.SetFuel(cfg.Fuel); err != nil {
		return nil, err
	}
	e.SetFailMode(cfg.FailMode)
	e.current.Store(newGeneration(0, cfg.Log))
	if _, err := e.Reload(ctx); err != nil && ctx.Err() != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// SetFailMode changes the fail mode from the next batch on.
func (e *Engine) SetFailMode(m FailMode) { e.mode.Store(uint32(m)) }

// FailMode returns the fail mode.
func (e *Engine) FailMode() FailMode { return FailMode(e.mode.Load()) }

// SetFuel changes what one module may use for one reading, from the next batch
// on: MinFuel to MaxFuel, 0 is DefaultFuel.
func (e *Engine) SetFuel(fuel uint64) error {
	if fuel == 0 {
		fuel = DefaultFuel
	}
	if fuel < MinFuel || fuel > MaxFuel {
		return fault.Invalid("fuel", "must be %d to %d, is %d", MinFuel, MaxFuel, fuel)
	}
	e.fuel.Store(fuel)
	return nil
}

// Evaluate judges one reading and returns the generation that did. Errors:
// fault.ErrInvalid for a reading over its limits, fault.ErrUnavailable after
// Close, and ctx's.
func (e *Engine) Evaluate(ctx context.Context, r *abi.Reading, v *Verdict) (uint64, error) {
	g, l, err := e.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer g.leave(l)
	return g.number, l.judge(ctx, r, v)
}

// EvaluateBatch judges readings into as many verdicts, all by one generation.
// Errors are those of Evaluate; a field is named within `readings[i]`. After an
// error the verdicts mean nothing.
func (e *Engine) EvaluateBatch(ctx context.Context, readings []abi.Reading, verdicts []Verdict) (uint64, error) {
	if len(readings) != len(verdicts) {
		return 0, fmt.Errorf("%w: %d readings for %d verdicts", fault.ErrInvalid, len(readings), len(verdicts))
	}
	g, l, err := e.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer g.leave(l)
	for i := range readings {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := l.judge(ctx, &readings[i], &verdicts[i]); err != nil {
			var field *fault.FieldError
			if errors.As(err, &field) {
				err = fault.Invalid(fmt.Sprintf("readings[%d].%s", i, field.Field), "%s", field.Description)
			}
			return 0, err
		}
	}
	return g.number, nil
}

// enter takes the current generation and a lane of it.
func (e *Engine) enter(ctx context.Context) (*generation, *lane, error) {
	for {
		g := e.current.Load()
		if g == nil {
			return nil, nil, fmt.Errorf("%w: policy engine is closed", fault.ErrUnavailable)
		}
		if !g.hold() {
			continue // it was replaced since the load
		}
		select {
		case l := <-g.lanes:
			l.mode, l.fuel = e.FailMode(), e.fuel.Load()
			return g, l, nil
		case <-ctx.Done():
			g.drop()
			return nil, nil, ctx.Err()
		}
	}
}

// Close lets go of the modules. Evaluations that run end undisturbed.
func (e *Engine) Close() error {
	e.reloadMu.Lock()
	defer e.reloadMu.Unlock()
	if g := e.current.Swap(nil); g != nil {
		g.drop()
	}
	return nil
}

// Info is the engine's state.
type Info struct {
	Backend    string // compiler or interpreter
	Generation uint64 // 0 until modules were taken
	Refusal    string // why the newest change of the folder was refused
	FailMode   FailMode
	Fuel       uint64
	Modules    []ModuleInfo // in the order they are asked
}

// ModuleInfo is one module in force.
type ModuleInfo struct {
	Name                           string // its file's name without .wasm
	SHA256                         string // of the file, in lowercase hex
	SizeBytes                      int
	Generation                     uint64 // that it came with
	Loaded                         time.Time
	Evaluations, Rejections, Traps uint64 // since it was loaded
}

// Info returns the engine's state.
func (e *Engine) Info() Info {
	info := Info{Backend: e.backend, FailMode: e.FailMode(), Fuel: e.fuel.Load()}
	e.infoMu.Lock()
	info.Refusal = e.refusal
	e.infoMu.Unlock()
	g := e.current.Load()
	if g == nil {
		return info
	}
	info.Generation = g.number
	for _, m := range g.modules {
		info.Modules = append(info.Modules, ModuleInfo{
			Name: m.name, SHA256: m.sum, SizeBytes: m.size,
			Generation: m.stats.generation, Loaded: m.stats.loaded,
			Evaluations: m.stats.evaluations.Load(),
			Rejections:  m.stats.rejections.Load(),
			Traps:       m.stats.traps.Load(),
		})
	}
	return info
}

// lanes is how many evaluations run at once: more would only wait for a core.
func lanes() int { return max(1, min(runtime.GOMAXPROCS(0), math.MaxUint8)) }
