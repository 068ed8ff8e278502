package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// skipIfNotSupported skips a test that this machine cannot run; every other
// error is left to fail it.
func skipIfNotSupported(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrNotSupported) {
		t.Skip(err)
	}
}

// newBPFFS mounts a bpffs of the test's own, so that no pin is left on the
// machine, and returns a pin directory on it that is not made yet.
func newBPFFS(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "xh")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		_ = os.Remove(dir)
		skipIfNotSupported(t, supported("mount bpffs", err))
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "xinghuo", "firewall")
}

// Addresses of the two ends; the far end has one friend and one foe.
const (
	near4, friend4, foe4 = "10.77.0.1", "10.77.0.2", "10.77.0.3"
	near6, friend6, foe6 = "fd77::1", "fd77::2", "fd77::3"
	guarded              = "xhguard0"
)

// wire is a veth pair between two network namespaces.
type wire struct{ near, far string }

var wires atomic.Int32

func newWire(t *testing.T) wire {
	t.Helper()
	id := fmt.Sprintf("xh%d-%d", os.Getpid(), wires.Add(1))
	w := wire{near: id + "n", far: id + "f"}
	for _, ns := range []string{w.near, w.far} {
		ip(t, "netns add "+ns)
		t.Cleanup(func() { ip(t, "netns del "+ns) })
	}
	w.plug(t)
	return w
}

// plug makes the veth pair, as the cable is plugged in. It has no addresses of
// the kernel's own and none to be probed for, so that a test's frames are the
// only ones, but for address resolution.
func (w wire) plug(t *testing.T) {
	t.Helper()
	ip(t, "-n "+w.near+" link add "+guarded+" type veth peer name xhfar0 netns "+w.far)
	ip(t, "-n "+w.near+" link set "+guarded+" addrgenmode none")
	ip(t, "-n "+w.far+" link set xhfar0 addrgenmode none")
	ip(t, "-n "+w.near+" addr add "+near4+"/24 dev "+guarded)
	ip(t, "-n "+w.near+" addr add "+near6+"/64 dev "+guarded+" nodad")
	for _, a := range []string{friend4 + "/24", foe4 + "/24"} {
		ip(t, "-n "+w.far+" addr add "+a+" dev xhfar0")
	}
	for _, a := range []string{friend6 + "/64", foe6 + "/64"} {
		ip(t, "-n "+w.far+" addr add "+a+" dev xhfar0 nodad")
	}
	ip(t, "-n "+w.near+" link set "+guarded+" up")
	ip(t, "-n "+w.far+" link set xhfar0 up")
}

func ip(t *testing.T, args string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("ip", strings.Fields(args)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out.String())
	}
}

// inNS runs fn in a network namespace. Sockets that fn opens stay there.
func inNS(t *testing.T, ns string, fn func() error) {
	t.Helper()
	if err := onOwnThread(func() error {
		fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	}); err != nil {
		t.Fatalf("in %s: %v", ns, err)
	}
}

// onOwnThread runs fn on a thread that ends with it, so that fn may change
// what belongs to a thread.
func onOwnThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

// lost returns the frames that the far end could not put on the wire, for the
// near end's queue was full: they never reached the firewall.
func (w wire) lost(t *testing.T) uint64 {
	t.Helper()
	var n uint64
	inNS(t, w.far, func() error {
		dev, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		_, line, _ := strings.Cut(string(dev), "xhfar0:")
		fields := strings.Fields(line) // 8 of reception, then bytes, packets, errs, drop
		if len(fields) < 12 {
			return fmt.Errorf("no counters of xhfar0 in %q", dev)
		}
		n, err = strconv.ParseUint(fields[11], 10, 64)
		return err
	})
	return n
}

// open opens the firewall on the guarded end of w.
func (w wire) open(t *testing.T, opts Options) (f *Firewall, err error) {
	t.Helper()
	if opts.Interface == "" {
		opts.Interface = guarded
	}
	inNS(t, w.near, func() error {
		f, err = Open(opts)
		return nil
	})
	return f, err
}

func (w wire) mustOpen(t *testing.T, opts Options) *Firewall {
	t.Helper()
	f, err := w.open(t, opts)
	if err != nil {
		skipIfNotSupported(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		case <-tick.C:
		}
	}
}
