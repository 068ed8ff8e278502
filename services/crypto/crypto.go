// Package crypto is the node's cipher room: SM2, SM3 and SM4 by RPC, with keys
// that never leave it.
package crypto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver/soft"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/keyring"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/server"
)

const (
	name = "crypto"
	// closeWait bounds the last write of the nonces. Without it nothing is
	// lost but up to 16,384 nonces a key.
	closeWait = 5 * time.Second
)

type config struct {
	settings.Node `yaml:",inline"`
	MasterKeyFile string `yaml:"master_key_file" usage:"file of mode 0400 with the 16 bytes that the keys are sealed under, made when absent; empty means <state_dir>/crypto/master.key"`
}

// Check implements settings.Checker.
func (c *config) Check() []error {
	faults := c.Node.Check()
	if c.MasterKeyFile != "" && !filepath.IsAbs(c.MasterKeyFile) {
		faults = append(faults, fmt.Errorf("master_key_file: must be an absolute path, is %q", c.MasterKeyFile))
	}
	return faults
}

// Run is the whole service: it serves until ctx ends or Drain is called. The
// error is a *settings.Error for a bad configuration.
func Run(ctx context.Context, args []string, logs io.Writer) error {
	cfg := config{Node: settings.DefaultNode()}
	if err := settings.Load(name, args, &cfg, logs); err != nil {
		return err
	}
	drivers, err := driver.NewSet(soft.Driver{})
	if err != nil {
		return fmt.Errorf("test drivers: %w", err)
	}
	keys, err := openKeys(ctx, cfg, drivers)
	if err != nil {
		return err
	}
	err = serve(ctx, cfg, drivers, keys, logs)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	if cerr := keys.Close(closing); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close keyring: %w", cerr))
	}
	return err
}

func openKeys(ctx context.Context, cfg config, drivers *driver.Set) (*keyring.Keyring, error) {
	state := filepath.Join(cfg.StateDir, name)
	if err := os.MkdirAll(state, 0o750); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	master := cfg.MasterKeyFile
	if master == "" {
		master = filepath.Join(state, "master.key")
	}
	keys, err := keyring.Open(ctx, drivers, filepath.Join(state, "keys"), master)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	return keys, nil
}

func serve(ctx context.Context, cfg config, drivers *driver.Set, keys *keyring.Keyring, logs io.Writer) error {
	srv, err := node.New(name, cfg.Node, logs)
	if err != nil {
		return err
	}
	if damaged := keys.Damaged(); len(damaged) > 0 {
		srv.Degrade("keys", fmt.Sprintf("%d keys do not load, put their files back; the first: %v", len(damaged), damaged[0]))
	}
	for _, m := range drivers.Members() {
		if m.Active {
			srv.SetFact("driver."+m.Driver.Name(), m.Driver.Implementation())
		}
	}
	svc := server.Register(srv, keys, drivers)
	srv.Collect(func(s *node.Stats) { svc.Stats(s) })
	return srv.Run(ctx)
}
