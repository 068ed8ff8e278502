// Package tests holds what the whole node promises, tested on its built binary
// with real servers, real sockets and real kills.
package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"

	"github.com/xinghuo-edge/xinghuo/fleet"
	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// services are the sockets of a node.
var services = []string{"agent", "broadcast", "config", "crypto", "firewall", "ingest", "policy"}

// binary is the built xinghuo.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "xhbin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	binary = filepath.Join(dir, "xinghuo")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "github.com/xinghuo-edge/xinghuo/services/node/cmd/xinghuo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build xinghuo:", err)
		return 1
	}
	return m.Run()
}

// node is a running `xinghuo up`.
type node struct {
	t     *testing.T
	dir   string
	ports map[string]int
	cmd   *exec.Cmd
	out   *lockedBuffer
	exit  chan error
	conns map[string]*grpc.ClientConn
}

type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start starts a node on free ports and waits until every service serves. It
// ends with the test, in good order and without a trace.
func start(t *testing.T, env ...string) *node {
	t.Helper()
	n := &node{t: t, dir: testkit.SocketDir(t), ports: make(map[string]int), out: new(lockedBuffer), exit: make(chan error, 1), conns: make(map[string]*grpc.ClientConn)}
	args := []string{"up", "--dir", filepath.Join(n.dir, "n"), "--meters", "0", "--plain"}
	for _, door := range []string{"ws", "mqtt", "nats", "etcd", "agent"} {
		n.ports[door] = freePort(t)
		args = append(args, "--"+door, strconv.Itoa(n.ports[door]))
	}
	n.dir = filepath.Join(n.dir, "n")
	n.cmd = exec.Command(binary, args...)
	n.cmd.Env = append(os.Environ(), env...)
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { n.exit <- n.cmd.Wait() }()
	t.Cleanup(n.stop)
	for _, s := range services {
		testkit.Eventually(t, 30*time.Second, s+" to serve", func() bool { return n.serving(s) })
	}
	return n
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // only its port is wanted
	return ln.Addr().(*net.TCPAddr).Port
}

// stop interrupts the node as Ctrl-C does, and checks that nothing is left.
func (n *node) stop() {
	pids := n.pids()
	for _, c := range n.conns {
		_ = c.Close()
	}
	_ = n.cmd.Process.Signal(os.Interrupt)
	select {
	case err := <-n.exit:
		if err != nil {
			n.t.Errorf("xinghuo up: %v\n%s", err, n.out)
		}
	case <-time.After(40 * time.Second):
		_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL)
		n.t.Errorf("xinghuo up did not stop within 40 s\n%s", n.out)
		return
	}
	for name, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			n.t.Errorf("%s (pid %d) outlived its node", name, pid)
		}
	}
	if _, err := os.Stat(n.dir); !errors.Is(err, os.ErrNotExist) {
		n.t.Errorf("%s is left behind", n.dir)
	}
	if n.t.Failed() {
		n.t.Logf("xinghuo up said:\n%s", n.out)
	}
}

func (n *node) conn(service string) *grpc.ClientConn {
	n.t.Helper()
	if c := n.conns[service]; c != nil {
		return c
	}
	c, err := mesh.Dial(filepath.Join(n.dir, "run"), service)
	if err != nil {
		n.t.Fatal(err)
	}
	n.conns[service] = c
	return c
}

// ctx is enough for one call.
func (n *node) ctx(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	n.t.Cleanup(cancel)
	return ctx
}

func (n *node) serving(service string) bool {
	resp, err := healthv1.NewHealthClient(n.conn(service)).Check(n.ctx(time.Second), &healthv1.HealthCheckRequest{Service: service})
	return err == nil && resp.GetStatus() == healthv1.HealthCheckResponse_SERVING
}

func (n *node) pid(service string) int {
	info, err := adminv1.NewAdminServiceClient(n.conn(service)).GetInfo(n.ctx(5*time.Second), &adminv1.GetInfoRequest{})
	if err != nil {
		return 0
	}
	return int(info.GetPid())
}

// log returns what a service has logged.
func (n *node) log(service string) string {
	n.t.Helper()
	raw, err := os.ReadFile(filepath.Join(n.dir, "log", service+".log"))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(raw)
}

func (n *node) pids() map[string]int {
	pids := make(map[string]int)
	for _, s := range services {
		if pid := n.pid(s); pid > 0 {
			pids[s] = pid
		}
	}
	return pids
}

func sum(byReason map[string]uint64) (total uint64) {
	for _, n := range byReason {
		total += n
	}
	return total
}

func (n *node) ingest() *ingestv1.GetStatsResponse {
	n.t.Helper()
	s, err := ingestv1.NewIngestServiceClient(n.conn("ingest")).GetStats(n.ctx(10*time.Second), &ingestv1.GetStatsRequest{})
	if err != nil {
		n.t.Fatalf("ingest GetStats: %v", err)
	}
	dropped := sum(s.GetDropped())
	if got := s.GetDelivered() + s.GetRejected() + s.GetInFlight() + dropped; got != s.GetReceived() {
		n.t.Errorf("ingest's ledger: received %d, accounted for %d", s.GetReceived(), got)
	}
	return s
}

func (n *node) broadcast() *broadcastv1.GetStatsResponse {
	n.t.Helper()
	s, err := broadcastv1.NewBroadcastServiceClient(n.conn("broadcast")).GetStats(n.ctx(10*time.Second), &broadcastv1.GetStatsRequest{})
	if err != nil {
		n.t.Fatalf("broadcast GetStats: %v", err)
	}
	dropped := sum(s.GetDropped())
	if got := s.GetDelivered() + s.GetQueued() + dropped; got != s.GetAccepted() {
		n.t.Errorf("broadcast's ledger: accepted %d, accounted for %d", s.GetAccepted(), got)
	}
	return s
}

// meters returns a fleet of this node.
func (n *node) meters(change func(*fleet.Options)) *fleet.Fleet {
	n.t.Helper()
	key, err := devicetoken.Load(filepath.Join(n.dir, "etc", "token.key"))
	if err != nil {
		n.t.Fatal(err)
	}
	o := fleet.DefaultOptions()
	o.URL = fmt.Sprintf("ws://127.0.0.1:%d", n.ports["ws"])
	o.Key = key
	change(&o)
	f, err := fleet.New(o)
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}
