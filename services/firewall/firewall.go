// Package firewall is the node's guard: it tells the kernel whose frames an
// interface takes in, and leaves the kernel to it.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	bpf "github.com/xinghuo-edge/xinghuo/bpf/firewall"

	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/guard"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/server"
)

const (
	name = "firewall"
	// maxEntries caps the kernel's memory for entries at 80 MiB a family.
	maxEntries = 1 << 20
)

type config struct {
	settings.Node `yaml:",inline"`
	Interface     string `yaml:"interface" usage:"interface to guard, for example eth0; empty means the one that an earlier Attach left guarded, or none"`
	PinDir        string `yaml:"pin_dir" usage:"folder on a bpffs where entries, counters and the attachment outlive the process"`
	MaxEntries    int    `yaml:"max_entries" usage:"entries of IPv4, and again of IPv6, that fit, 1 to 1048576; fixed while attached"`
	Mode          string `yaml:"mode" usage:"auto, native (in the driver) or generic (any driver); fixed while attached"`
	Default       string `yaml:"default" usage:"allow or deny: what becomes of packets that no entry names; for a fresh attachment only, SetDefault changes it later"`
}

func defaults() config {
	return config{
		Node:   settings.DefaultNode(),
		PinDir: "/sys/fs/bpf/xinghuo/firewall", MaxEntries: bpf.DefaultMaxEntries,
		Mode: "auto", Default: "allow",
	}
}

var (
	modes    = map[string]bpf.Mode{"auto": bpf.ModeAuto, "native": bpf.ModeNative, "generic": bpf.ModeGeneric}
	verdicts = map[string]bpf.Verdict{"allow": bpf.Allow, "deny": bpf.Deny}
)

// Check implements settings.Checker.
func (c *config) Check() []error {
	faults := c.Node.Check()
	if c.Interface != "" {
		if err := guard.CheckInterface(c.Interface); err != nil {
			faults = append(faults, err)
		}
	}
	if !filepath.IsAbs(c.PinDir) {
		faults = append(faults, fmt.Errorf("pin_dir: must be an absolute path, is %q", c.PinDir))
	}
	if err := settings.IntIn("max_entries", c.MaxEntries, 1, maxEntries); err != nil {
		faults = append(faults, err)
	}
	if _, ok := modes[c.Mode]; !ok {
		faults = append(faults, fmt.Errorf("mode: must be auto, native or generic, is %q", c.Mode))
	}
	if _, ok := verdicts[c.Default]; !ok {
		faults = append(faults, fmt.Errorf("default: must be allow or deny, is %q", c.Default))
	}
	return faults
}

func (c *config) options() bpf.Options {
	return bpf.Options{
		PinDir: c.PinDir, Interface: c.Interface, MaxEntries: uint32(c.MaxEntries),
		Mode: modes[c.Mode], Default: verdicts[c.Default],
	}
}

// Run is the whole service: it serves until ctx ends or Drain is called. The
// kernel goes on enforcing afterwards. The error is a *settings.Error for a bad
// configuration; a machine that cannot enforce is no error but a degradation.
func Run(ctx context.Context, args []string, logs io.Writer) error {
	cfg := defaults()
	if err := settings.Load(name, args, &cfg, logs); err != nil {
		return err
	}
	srv, err := node.New(name, cfg.Node, logs)
	if err != nil {
		return err
	}
	g := guard.New(guard.Linux{}, cfg.options(), srv, srv.Log)
	svc := server.Register(srv, g)
	srv.Collect(func(s *node.Stats) { svc.Stats(s) })
	g.Start(ctx) // before the first call is served, and before health says so
	err = srv.Run(ctx, g.Keep)
	if cerr := g.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("let go of the interface: %w", cerr))
	}
	return err
}
