package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/meter"
)

// generation is a set of modules that judge together.
type generation struct {
	number  uint64
	log     *slog.Logger
	runtime wazero.Runtime // nil without modules
	modules []*module
	lanes   chan *lane
	// refs counts those who hold it: the engine and each evaluation. At 0 it
	// is closed and cannot be held again.
	refs atomic.Int64
}

func newGeneration(number uint64, log *slog.Logger) *generation {
	n := lanes()
	g := &generation{number: number, log: log, lanes: make(chan *lane, n)}
	g.refs.Store(1)
	for range n {
		g.lanes <- &lane{g: g}
	}
	return g
}

// hold keeps g open; false means that it is closed already.
func (g *generation) hold() bool {
	for {
		n := g.refs.Load()
		if n == 0 {
			return false
		}
		if g.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// drop lets go of g; the last one closes it.
func (g *generation) drop() {
	if g.refs.Add(-1) > 0 || g.runtime == nil {
		return
	}
	if err := g.runtime.Close(context.Background()); err != nil {
		g.log.Error("generation not closed", "generation", g.number, "err", err)
	}
}

// leave gives a lane back. It never waits: the channel has room for all lanes.
func (g *generation) leave(l *lane) {
	g.lanes <- l
	g.drop()
}

// file is a module as it was read.
type file struct {
	name string // without .wasm
	raw  []byte
}

// build makes a generation of files. Modules that old has too keep their
// counters.
func build(ctx context.Context, cfg Config, compiler bool, number uint64, files []file, old *generation) (_ *generation, err error) {
	g := newGeneration(number, cfg.Log)
	if len(files) == 0 {
		return g, nil
	}
	rc := wazero.NewRuntimeConfigInterpreter()
	if compiler {
		rc = wazero.NewRuntimeConfigCompiler()
	}
	rc = rc.WithMemoryLimitPages(meter.MaxPages).WithDebugInfoEnabled(false)
	g.runtime = wazero.NewRuntimeWithConfig(ctx, rc)
	defer func() {
		if err != nil {
			g.drop()
		}
	}()
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, g.runtime); err != nil {
		return nil, fmt.Errorf("start wasi: %w", err)
	}
	l := <-g.lanes
	l.grow(len(files))
	for i, f := range files {
		m, err := load(ctx, g, f, old)
		if err != nil {
			return nil, fmt.Errorf("module %q: %w", f.name, err)
		}
		g.modules = append(g.modules, m)
		if l.instances[i], err = m.start(ctx); err != nil {
			return nil, fmt.Errorf("module %q: %w", f.name, err)
		}
		if m.reasons, err = l.instances[i].readReasons(ctx); err != nil {
			return nil, fmt.Errorf("module %q: %w", f.name, err)
		}
	}
	g.lanes <- l
	return g, nil
}

// backend says whether this machine compiles guests or interprets them.
func backend(ctx context.Context, interpreter bool) (name string) {
	const compiler, interpreted = "compiler", "interpreter"
	if interpreter {
		return interpreted
	}
	defer func() {
		if recover() != nil { // wazero's way to say that it has no compiler here
			name = interpreted
		}
	}()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	_ = r.Close(ctx)
	return compiler
}
