package firewall_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	firewallv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/firewall/v1"

	bpf "github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/services/firewall"
)

// service is one run of the program, and a client of it.
type service struct {
	firewallv1.FirewallServiceClient
	admin adminv1.AdminServiceClient
	stop  func() // orderly; expects nil
}

func run(t *testing.T, runDir string, args ...string) service {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	args = append([]string{"-run_dir", runDir, "-state_dir", runDir}, args...)
	go func() { done <- firewall.Run(ctx, args, io.Discard) }()
	conn, err := mesh.Dial(runDir, "firewall")
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(conn.Close(), <-done); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return service{firewallv1.NewFirewallServiceClient(conn), adminv1.NewAdminServiceClient(conn), stop}
}

func (s service) info(t *testing.T) *adminv1.GetInfoResponse {
	t.Helper()
	info, err := s.admin.GetInfo(within(t), &adminv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func (s service) packets(t *testing.T) map[string]uint64 {
	t.Helper()
	stats, err := s.GetStats(within(t), &firewallv1.GetStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return stats.GetPackets()
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// skipIfNotSupported skips a test that this machine cannot run; every other
// error is left to fail it.
func skipIfNotSupported(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, bpf.ErrNotSupported) {
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
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) {
			skipIfNotSupported(t, fmt.Errorf("mount bpffs: %w: %w", bpf.ErrNotSupported, err))
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "xinghuo", "firewall")
}

// The guarded end is in the namespace of the test; the far end, with a friend
// and a foe, has one of its own.
const near, friend, foe = "10.78.31.1", "10.78.31.2", "10.78.31.3"

type wire struct{ guarded, ns string }

func newWire(t *testing.T) wire {
	t.Helper()
	id := fmt.Sprintf("xf%d", os.Getpid())
	w := wire{guarded: id, ns: id}
	ip(t, "netns add "+w.ns)
	t.Cleanup(func() { ip(t, "netns del "+w.ns) })
	ip(t, "link add "+w.guarded+" type veth peer name far0 netns "+w.ns)
	// The pair would go with the namespace, but some time after the test.
	t.Cleanup(func() { ip(t, "link del "+w.guarded) })
	ip(t, "link set "+w.guarded+" addrgenmode none")
	ip(t, "-n "+w.ns+" link set far0 addrgenmode none")
	ip(t, "addr add "+near+"/24 dev "+w.guarded)
	ip(t, "-n "+w.ns+" addr add "+friend+"/24 dev far0")
	ip(t, "-n "+w.ns+" addr add "+foe+"/24 dev far0")
	ip(t, "link set "+w.guarded+" up")
	ip(t, "-n "+w.ns+" link set far0 up")
	return w
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

// dial opens a socket at the far end that sends from src to the near end.
func (w wire) dial(t *testing.T, network, src string) net.Conn {
	t.Helper()
	var c net.Conn
	done := make(chan error, 1)
	go func() { // on a thread that ends with it, for its namespace is not ours
		runtime.LockOSThread()
		done <- func() error {
			fd, err := unix.Open("/run/netns/"+w.ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			if network == "udp4" {
				c, err = net.DialUDP(network, &net.UDPAddr{IP: net.ParseIP(src)}, &net.UDPAddr{IP: net.ParseIP(near), Port: port})
			} else {
				c, err = net.DialIP(network, &net.IPAddr{IP: net.ParseIP(src)}, &net.IPAddr{IP: net.ParseIP(near)})
			}
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatalf("dial in %s: %v", w.ns, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

const port = 7031

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(near), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func write(t *testing.T, c net.Conn, payload string) {
	t.Helper()
	if _, err := c.Write([]byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 1500)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}
