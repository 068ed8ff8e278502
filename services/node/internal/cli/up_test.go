package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	agentv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/agent/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// screen is what `up` writes.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// upRun is a running `xinghuo up`.
type upRun struct {
	t    *testing.T
	dir  string
	out  screen
	cmd  *exec.Cmd
	done chan error
}

func startUp(t *testing.T, args ...string) *upRun {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u := &upRun{t: t, dir: filepath.Join(testkit.SocketDir(t), "node"), done: make(chan error, 1)}
	u.cmd = exec.Command(self, append([]string{"up", "--ports", "free", "--dir", u.dir, "--meters", "8", "--rate", "20"}, args...)...)
	u.cmd.Env = append(os.Environ(), asXinghuo+"=1")
	u.cmd.Stdout, u.cmd.Stderr = &u.out, &u.out
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { u.done <- u.cmd.Wait() }()
	t.Cleanup(func() {
		_ = u.cmd.Process.Kill()
		for _, pid := range u.processes() {
			t.Errorf("process %d is left", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if t.Failed() {
			t.Logf("up wrote:\n%s", u.out.String())
		}
	})
	return u
}

func (u *upRun) wait(limit time.Duration) error {
	u.t.Helper()
	select {
	case err := <-u.done:
		return err
	case <-time.After(limit):
		u.t.Fatalf("waited %v for up to end", limit)
		return nil
	}
}

// processes are those that have the folder among their arguments.
func (u *upRun) processes() []int {
	var pids []int
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		raw, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(raw, []byte(u.dir)) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(name, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// clean checks that nothing is left.
func (u *upRun) clean() {
	u.t.Helper()
	if pids := u.processes(); len(pids) > 0 {
		u.t.Errorf("processes %v are left", pids)
	}
	if _, err := os.Lstat(u.dir); !errors.Is(err, os.ErrNotExist) {
		u.t.Errorf("folder %s is left (%v)", u.dir, err)
	}
}

// flows waits until readings are acknowledged.
func (u *upRun) flows() {
	u.t.Helper()
	flowing := regexp.MustCompile(`acked [1-9]`)
	testkit.Eventually(u.t, 60*time.Second, "readings to flow", func() bool {
		select {
		case err := <-u.done:
			u.t.Fatalf("up ended: %v", err)
		default:
		}
		return flowing.MatchString(u.out.String())
	})
}

var summary = regexp.MustCompile(`in all: sent (\d+), acked (\d+), unacknowledged (\d+), delivered (\d+), rejected (\d+), dropped (\d+), MQTT published (\d+)`)

func (u *upRun) summary() (n [7]int) {
	u.t.Helper()
	m := summary.FindStringSubmatch(u.out.String())
	if m == nil {
		u.t.Fatal("up wrote no summary")
	}
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1])
	}
	return n
}

func (u *upRun) services() map[string]*agentv1.Service {
	conn, err := mesh.Dial(filepath.Join(u.dir, "run"), "agent")
	if err != nil {
		u.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(u.t.Context(), 5*time.Second)
	defer cancel()
	resp, err := agentv1.NewAgentServiceClient(conn).ListServices(ctx, &agentv1.ListServicesRequest{})
	if err != nil {
		return nil // it is away for the moment
	}
	all := make(map[string]*agentv1.Service)
	for _, s := range resp.GetServices() {
		all[s.GetName()] = s
	}
	return all
}

func TestUpForFiveSeconds(t *testing.T) {
	u := startUp(t, "--for", "5s")
	if err := u.wait(60 * time.Second); err != nil {
		t.Errorf("up = %v, want exit 0", err)
	}
	n := u.summary()
	sent, acked, lost, delivered, rejected, dropped, published := n[0], n[1], n[2], n[3], n[4], n[5], n[6]
	if sent == 0 || acked != sent || lost != 0 || delivered+rejected != sent || dropped != 0 || published < 8 {
		t.Errorf("summary %v, want everything sent to be acknowledged and delivered, and each meter's status published", n)
	}
	for _, want := range []string{"grpcurl -plaintext -unix", "SendCommand", "mosquitto_sub", u.dir + "/run/ingest.sock", "devices 8", "p99"} {
		if !strings.Contains(u.out.String(), want) {
			t.Errorf("up did not write %q", want)
		}
	}
	u.clean()
}

func TestUpSurvivesItsAgent(t *testing.T) {
	u := startUp(t)
	u.flows()
	before := u.services()
	var agent int
	raw, err := os.ReadFile(filepath.Join(u.dir, "run", "agent.lock"))
	if err == nil {
		agent, err = strconv.Atoi(string(raw))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 15*time.Second, "the next agent to adopt every service", func() bool {
		after := u.services()
		for name, s := range before {
			if !after[name].GetAdopted() || after[name].GetPid() != s.GetPid() {
				return false
			}
		}
		return len(after) == 6
	})

	// A second up keeps off this folder.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	second := exec.Command(self, "up", "--ports", "free", "--dir", u.dir)
	second.Env = append(os.Environ(), asXinghuo+"=1")
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "another `xinghuo up` runs in it") {
		t.Errorf("a second up = %v %s, want it refused", err, out)
	}

	// Ctrl-C goes to the whole foreground group.
	if err := syscall.Kill(-u.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := u.wait(40 * time.Second); err != nil {
		t.Errorf("up = %v, want exit 0", err)
	}
	if n := u.summary(); n[2] != 0 {
		t.Errorf("summary %v, want nothing unacknowledged", n)
	}
	u.clean()
}

func TestUpForced(t *testing.T) {
	u := startUp(t, "--keep")
	u.flows()
	for range 2 {
		if err := u.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(u.out.String(), "stopping") {
			testkit.Eventually(t, 5*time.Second, "up to say that it stops", func() bool { return strings.Contains(u.out.String(), "stopping") })
		}
	}
	err := u.wait(20 * time.Second)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(u.out.String(), "by force") {
		t.Errorf("up = %v, want exit 1 by force", err)
	}
	if pids := u.processes(); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "state", "nats")); err != nil {
		t.Errorf("--keep: %v, want the state kept", err)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "run")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the sockets' folder is left (%v)", err)
	}
}

// TestUpKilled kills up itself: the agent is told by its parent's death, and
// stops the services; the next up takes the folder over.
func TestUpKilled(t *testing.T) {
	u := startUp(t)
	u.flows()
	if err := u.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 30*time.Second, "every process to end", func() bool { return len(u.processes()) == 0 })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	next := exec.Command(self, "up", "--ports", "free", "--dir", u.dir, "--meters", "0", "--for", "2s", "--plain")
	next.Env = append(os.Environ(), asXinghuo+"=1")
	if out, err := next.CombinedOutput(); err != nil {
		t.Errorf("the next up = %v, want exit 0:\n%s", err, out)
	}
	if _, err := os.Lstat(filepath.Join(u.dir, "state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state is left (%v)", err)
	}
}

func TestUpNamesATakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
	u := startUp(t, "--mqtt", port)
	if err := u.wait(20 * time.Second); err == nil {
		t.Error("up on a taken port = nil, want exit 1")
	}
	for _, want := range []string{"port " + port + " is taken by", fmt.Sprintf("(pid %d)", os.Getpid()), "--mqtt"} {
		if !strings.Contains(u.out.String(), want) {
			t.Errorf("up wrote %q, want %q in it", u.out.String(), want)
		}
	}
	u.clean()
}
