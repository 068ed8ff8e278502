package node_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/node"
)

// The umask of the process must neither widen nor narrow the modes.
func TestModesWhateverTheUmask(t *testing.T) {
	for _, mask := range []int{0o000, 0o022, 0o077} {
		t.Run(fmt.Sprintf("%03o", mask), func(t *testing.T) {
			cfg := nodeSettings(t)
			old := unix.Umask(mask)
			srv, err := node.New("policy", cfg, io.Discard)
			left := unix.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Close()
			if left != mask {
				t.Errorf("umask after New = %03o, want %03o", left, mask)
			}
			for path, want := range map[string]os.FileMode{
				cfg.RunDir:                  os.ModeDir | 0o750,
				cfg.RunDir + "/policy.sock": os.ModeSocket | 0o660,
				cfg.RunDir + "/policy.lock": 0o600,
			} {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != want {
					t.Errorf("mode of %s = %v, want %v", path, info.Mode(), want)
				}
			}
		})
	}
}

// A watcher in a tight loop sees the socket with its mode, or nothing.
func TestSocketIsBornWithItsMode(t *testing.T) {
	cfg := nodeSettings(t)
	path := cfg.RunDir + "/policy.sock"
	stop, seen := make(chan struct{}), make(chan map[os.FileMode]int)
	go func() {
		modes := make(map[os.FileMode]int)
		for {
			select {
			case <-stop:
				seen <- modes
				return
			default:
			}
			if info, err := os.Lstat(path); err == nil {
				modes[info.Mode()]++
			}
		}
	}()
	for range 200 {
		srv, err := node.New("policy", cfg, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Fatal(err)
		}
		srv.Close()
	}
	close(stop)
	for mode, n := range <-seen {
		if mode != os.ModeSocket|0o660 {
			t.Errorf("saw mode %v %d times, want only %v", mode, n, os.ModeSocket|0o660)
		}
	}
}

func TestSecondOwnerIsRefused(t *testing.T) {
	cfg := nodeSettings(t)
	first, err := node.New("policy", cfg, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, err = node.New("policy", cfg, io.Discard)
	if want := fmt.Sprintf("pid %d", os.Getpid()); !errors.Is(err, node.ErrRunning) || !strings.Contains(err.Error(), want) {
		t.Errorf("second New = %v, want ErrRunning with %q", err, want)
	}
	if _, err := os.Stat(cfg.RunDir + "/policy.sock"); err != nil {
		t.Errorf("the refused owner took the socket away: %v", err)
	}
	first.Close()
	third, err := node.New("policy", cfg, io.Discard)
	if err != nil {
		t.Fatalf("New after the first owner left = %v, want nil", err)
	}
	third.Close()
}

// A process that was killed leaves its socket and its lock file.
func TestStaleSocketIsTakenOver(t *testing.T) {
	cfg := nodeSettings(t)
	if err := os.MkdirAll(cfg.RunDir, 0o750); err != nil {
		t.Fatal(err)
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.RunDir + "/policy.sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.RunDir+"/policy.lock", []byte("4194304"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := start(t, cfg, nil)
	info, err := adminv1.NewAdminServiceClient(b.conn).GetInfo(within(t), &adminv1.GetInfoRequest{})
	if err != nil || info.GetPid() != int32(os.Getpid()) {
		t.Errorf("GetInfo = %v, %v, want this process", info, err)
	}
}

func TestNothingButTheLockStays(t *testing.T) {
	cfg := nodeSettings(t)
	b := start(t, cfg, nil)
	if _, err := adminv1.NewAdminServiceClient(b.conn).GetInfo(within(t), &adminv1.GetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	b.stop()
	if err := b.wait(t); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	entries, err := os.ReadDir(cfg.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "policy.lock" {
		t.Errorf("left in %s: %v, want policy.lock alone", cfg.RunDir, entries)
	}
}
