// Package policy is the policy service: it judges every reading with the
// WebAssembly modules of a folder.
package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/settings/live"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/engine"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/server"
	"github.com/xinghuo-edge/xinghuo/services/policy/modules"
)

const name = "policy"

type config struct {
	settings.Node `yaml:",inline"`
	ModulesDir    string `yaml:"modules_dir" usage:"folder of the modules, *.wasm, asked in the order of their names; when it holds none, the built-in ones are written there at the start; empty means <state_dir>/policy/modules"`
	FailMode      string `yaml:"fail_mode" usage:"what becomes of a reading that a module could not judge: open lets it pass as unevaluated, closed rejects it; live"`
	Fuel          int    `yaml:"fuel" usage:"what one module may run for one reading, about one WebAssembly instruction each, 10000 to 100000000; live"`
}

// Check implements settings.Checker.
func (c *config) Check() []error {
	faults := c.Node.Check()
	if c.ModulesDir != "" && !filepath.IsAbs(c.ModulesDir) {
		faults = append(faults, fmt.Errorf("modules_dir: must be an absolute path, is %q", c.ModulesDir))
	}
	if _, err := engine.ParseFailMode(c.FailMode); err != nil {
		faults = append(faults, err)
	}
	if err := settings.IntIn("fuel", c.Fuel, engine.MinFuel, engine.MaxFuel); err != nil {
		faults = append(faults, err)
	}
	return faults
}

// Run is the whole service: it serves until ctx ends or Drain is called. The
// error is a *settings.Error for a bad configuration.
func Run(ctx context.Context, args []string, logs io.Writer) error {
	cfg := config{Node: settings.DefaultNode(), FailMode: engine.Open.String(), Fuel: engine.DefaultFuel}
	if err := settings.Load(name, args, &cfg, logs); err != nil {
		return err
	}
	mode, err := engine.ParseFailMode(cfg.FailMode)
	if err != nil {
		return err
	}
	srv, err := node.New(name, cfg.Node, logs)
	if err != nil {
		return err
	}
	defer srv.Close()
	dir, err := modulesDir(srv, cfg.ModulesDir)
	if err != nil {
		return err
	}
	eng, err := engine.New(ctx, engine.Config{
		Dir: dir, FailMode: mode, Fuel: uint64(cfg.Fuel), Log: srv.Log,
		Refused: func(reason string) { srv.Degrade("modules", reason) },
	})
	if err != nil {
		return fmt.Errorf("open modules: %w", err)
	}
	conn, err := mesh.Dial(cfg.RunDir, "config")
	if err != nil {
		return errors.Join(err, eng.Close())
	}
	server.Register(srv, eng)
	srv.Collect(func(s *node.Stats) { collect(s, eng.Info()) })
	srv.SetFact("modules_dir", dir)
	srv.SetFact("backend", eng.Info().Backend)
	err = srv.Run(ctx, eng.Watch, func(ctx context.Context) error {
		return live.Watch(ctx, srv.Log, conn, name, apply(&cfg, eng))
	})
	return errors.Join(err, conn.Close(), eng.Close())
}

// modulesDir returns the modules' folder, with the built-in modules in it when
// it is empty: a fresh node has a policy.
func modulesDir(srv *node.Server, dir string) (string, error) {
	if dir == "" {
		state, err := srv.StateDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(state, "modules")
	}
	seeded, err := modules.Seed(dir)
	if err != nil {
		return "", err
	}
	if seeded {
		srv.Log.Info("built-in modules written", "modules_dir", dir)
	}
	return dir, nil
}

// apply takes the settings that change while the service runs.
func apply(cfg *config, eng *engine.Engine) live.Apply {
	return func(name, value string, removed bool) error {
		switch name {
		case "fail_mode":
			if removed {
				value = cfg.FailMode
			}
			mode, err := engine.ParseFailMode(value)
			if err != nil {
				return err
			}
			eng.SetFailMode(mode)
			return nil
		case "fuel":
			if removed {
				return eng.SetFuel(uint64(cfg.Fuel))
			}
			fuel, err := strconv.ParseUint(value, 10, 64)
			if err != nil || fuel == 0 {
				return fmt.Errorf("fuel: must be %d to %d, is %.80q", engine.MinFuel, engine.MaxFuel, value)
			}
			return eng.SetFuel(fuel)
		}
		return fmt.Errorf("%w: %q", live.ErrUnknown, name)
	}
}

func collect(s *node.Stats, info engine.Info) {
	s.Gauge("xinghuo_policy_generation", float64(info.Generation))
	s.Gauge("xinghuo_policy_modules", float64(len(info.Modules)))
	s.Gauge("xinghuo_policy_fuel", float64(info.Fuel))
	for _, m := range info.Modules {
		s.Counter("xinghuo_policy_evaluations_total", float64(m.Evaluations), "module", m.Name)
		s.Counter("xinghuo_policy_rejections_total", float64(m.Rejections), "module", m.Name)
		s.Counter("xinghuo_policy_traps_total", float64(m.Traps), "module", m.Name)
	}
}
