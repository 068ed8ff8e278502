package agent_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	agentv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/agent/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/services/agent"
)

// asProgram makes this binary a service or the agent.
const asProgram = "XH_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		run := service
		if os.Args[1] == "agent" {
			run = func(ctx context.Context, args []string, logs io.Writer) error { return agent.Run(ctx, args[1:], logs) }
		}
		os.Exit(node.Exec("test", os.Args[1:], run))
	}
	goleak.VerifyTestMain(m)
}

// service is `<name> <dir>`: a real service of that name, which writes its name
// to <dir>/ended when it ends.
func service(ctx context.Context, args []string, logs io.Writer) error {
	name, dir := args[0], args[1]
	if name == "refuses" {
		return &settings.Error{Service: name, Faults: []error{fmt.Errorf("window: must be 1 to 9, is 0")}}
	}
	cfg := settings.DefaultNode()
	cfg.RunDir, cfg.StateDir = dir, dir
	srv, err := node.New(name, cfg, logs)
	if err != nil {
		return err
	}
	err = srv.Run(ctx)
	f, ferr := os.OpenFile(filepath.Join(dir, "ended"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if ferr != nil {
		return ferr
	}
	defer func() { _ = f.Close() }()
	_, ferr = fmt.Fprintln(f, name)
	if err != nil {
		return err
	}
	return ferr
}

type rig struct {
	t      *testing.T
	dir    string
	args   []string
	client agentv1.AgentServiceClient
}

func newRig(t *testing.T, services string, more ...string) *rig {
	t.Helper()
	t.Setenv(asProgram, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := testkit.SocketDir(t)
	conn, err := mesh.Dial(dir, "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &rig{t: t, dir: dir, client: agentv1.NewAgentServiceClient(conn), args: append([]string{
		"-run_dir", dir, "-state_dir", dir, "-listen", "127.0.0.1:0", "-services", services, "-grace_timeout", "2s",
		"-command", fmt.Sprintf("[%q, %q, %q]", self, "{service}", dir),
	}, more...)}
}

// start runs the agent in this process; stop ends it in order.
func (r *rig) start() (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx, r.args, r.t.Output()) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run = %v, want nil", err)
		}
	}
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) list() map[string]*agentv1.Service {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	resp, err := r.client.ListServices(ctx, &agentv1.ListServicesRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	all := make(map[string]*agentv1.Service)
	for _, s := range resp.GetServices() {
		all[s.GetName()] = s
	}
	return all
}

func (r *rig) await(what string, limit time.Duration, cond func(map[string]*agentv1.Service) bool) map[string]*agentv1.Service {
	r.t.Helper()
	var last map[string]*agentv1.Service
	testkit.Eventually(r.t, limit, what, func() bool {
		last = r.list()
		return cond(last)
	})
	return last
}

func serving(names ...string) func(map[string]*agentv1.Service) bool {
	return func(all map[string]*agentv1.Service) bool {
		for _, n := range names {
			if all[n].GetState() != agentv1.ServiceState_SERVICE_STATE_SERVING {
				return false
			}
		}
		return true
	}
}

func kill(t *testing.T, pid int32) {
	t.Helper()
	if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestAgent(t *testing.T) {
	r := newRig(t, "[config, policy, ingest, refuses]")
	stop := r.start()
	names := []string{"config", "policy", "ingest"}
	all := r.await("all to serve", 10*time.Second, serving(names...))
	ingest := all["ingest"]
	if ingest.GetPid() == 0 || ingest.GetRssBytes() < 1<<20 || ingest.GetPssBytes() == 0 || ingest.GetStartTime() == nil || ingest.GetAdopted() {
		t.Errorf("ingest = %v, want a pid, memory and a start time", ingest)
	}
	r.await("refuses to be misconfigured", 5*time.Second, func(all map[string]*agentv1.Service) bool {
		s := all["refuses"]
		return s.GetState() == agentv1.ServiceState_SERVICE_STATE_MISCONFIGURED && strings.Contains(s.GetLastExit(), "window: must be 1 to 9")
	})

	// Killed as soon as it serves, it is back within 3 s. Lives as short as
	// these make a crash loop from the fifth on; longer ones never do, see
	// supervise.TestKilledServiceIsBackAtOnce.
	for range 3 {
		pid := ingest.GetPid()
		kill(t, pid)
		all = r.await("ingest to serve again", 3*time.Second, func(all map[string]*agentv1.Service) bool {
			return all["ingest"].GetPid() != pid && serving("ingest")(all)
		})
		ingest = all["ingest"]
	}
	if ingest.GetRestarts() != 3 || ingest.GetLastExit() != "signal: killed" {
		t.Errorf("ingest = %v, want 3 restarts after signal: killed", ingest)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	policy := all["policy"].GetPid()
	resp, err := r.client.RestartService(ctx, &agentv1.RestartServiceRequest{Name: "policy"})
	if err != nil || resp.GetService().GetPid() == policy || resp.GetService().GetState() != agentv1.ServiceState_SERVICE_STATE_SERVING {
		t.Errorf("RestartService(policy) = %v, %v, want a new process that serves", resp, err)
	}
	for name, want := range map[string]codes.Code{"": codes.InvalidArgument, "nobody": codes.NotFound, "refuses": codes.FailedPrecondition} {
		if _, err := r.client.RestartService(ctx, &agentv1.RestartServiceRequest{Name: name}); status.Code(err) != want {
			t.Errorf("RestartService(%q) = %v, want %v", name, err, want)
		}
	}

	// One that drains in order comes back too.
	conn, err := mesh.Dial(r.dir, "config")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	config := all["config"].GetPid()
	if _, err := adminv1.NewAdminServiceClient(conn).Drain(ctx, &adminv1.DrainRequest{}); err != nil {
		t.Fatal(err)
	}
	r.await("config to be back after its drain", 5*time.Second, func(all map[string]*agentv1.Service) bool {
		return all["config"].GetPid() != config && serving("config")(all)
	})
	r.door()

	if err := os.Remove(filepath.Join(r.dir, "ended")); err != nil {
		t.Fatal(err)
	}
	stop()
	ended, err := os.ReadFile(filepath.Join(r.dir, "ended"))
	if err != nil || string(ended) != "ingest\npolicy\nconfig\n" {
		t.Errorf("services ended in the order %q (%v), want ingest first and config last", ended, err)
	}
}

// door asks the HTTP door, whose address GetInfo tells.
func (r *rig) door() {
	r.t.Helper()
	conn, err := mesh.Dial(r.dir, "agent")
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	info, err := adminv1.NewAdminServiceClient(conn).GetInfo(ctx, &adminv1.GetInfoRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	for path, want := range map[string]string{
		"/metrics":                   `xinghuo_service_up{service="ingest"} 1`,
		"/healthz":                   `"degraded"`,
		"/debug/pprof/ingest/allocs": "\x1f\x8b",
	} {
		resp, err := http.Get(info.GetFacts()["http"] + path)
		if err != nil {
			r.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			r.t.Errorf("GET %s = %d %.300q, want %q in it", path, resp.StatusCode, body, want)
		}
	}
}

// TestAgentKilled kills the agent itself: its services serve on, and the next
// agent takes them over.
func TestAgentKilled(t *testing.T) {
	for _, logs := range []string{"pipe", "file"} {
		t.Run(logs, func(t *testing.T) {
			r := newRig(t, "[config, ingest]")
			if logs == "file" {
				r.args = append(r.args, "-log_dir", t.TempDir())
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			first := exec.Command(self, append([]string{"agent"}, r.args...)...)
			out, err := first.StderrPipe() // goes away with the agent, as a supervisor's log does
			if err != nil {
				t.Fatal(err)
			}
			if err := first.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the agent
			before := r.await("both to serve", 10*time.Second, serving("config", "ingest"))
			if err := first.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = first.Wait()

			stop := r.start()
			after := r.await("both to serve under the next agent", 10*time.Second, serving("config", "ingest"))
			for name, s := range after {
				if !s.GetAdopted() || s.GetPid() != before[name].GetPid() {
					t.Errorf("%s = %v, want pid %d adopted", name, s, before[name].GetPid())
				}
			}
			kill(t, after["ingest"].GetPid())
			r.await("ingest to be the agent's own", 3*time.Second, func(all map[string]*agentv1.Service) bool {
				return !all["ingest"].GetAdopted() && serving("ingest")(all)
			})
			stop()
			ended, err := os.ReadFile(filepath.Join(r.dir, "ended"))
			if err != nil || string(ended) != "ingest\nconfig\n" {
				t.Errorf("services ended in the order %q (%v), want ingest, then config, which was adopted", ended, err)
			}
		})
	}
}

// TestAgentLeaves runs with stop_services: false.
func TestAgentLeaves(t *testing.T) {
	r := newRig(t, "[ingest]", "-log_dir", t.TempDir())
	args := r.args
	r.args = append(args, "-stop_services=false")
	stop := r.start()
	pid := r.await("ingest to serve", 10*time.Second, serving("ingest"))["ingest"].GetPid()
	stop()
	if err := syscall.Kill(int(pid), 0); err != nil {
		t.Errorf("ingest after the agent's end: %v, want it running", err)
	}
	r.args = args
	stop = r.start()
	if s := r.await("ingest to serve", 10*time.Second, serving("ingest"))["ingest"]; s.GetPid() != pid || !s.GetAdopted() {
		t.Errorf("ingest = %v, want pid %d adopted", s, pid)
	}
	stop()
}

func TestBadSettings(t *testing.T) {
	err := agent.Run(t.Context(), []string{
		"-listen", "8600", "-services", "[ingest, ingest, agent, 'a b']", "-command", "[xinghuo]", "-log_dir", "log",
	}, io.Discard)
	for _, want := range []string{
		`listen: must be host:port or empty, is "8600"`, `services: "ingest" stands twice`, "services: must not hold the agent itself",
		`services: must be 1 to 64 of [A-Za-z0-9_-], is "a b"`, "command: must hold {service}", "log_dir: must be an absolute path",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run = %v, want %q in it", err, want)
		}
	}
}
