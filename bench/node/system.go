package node

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
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
)

const (
	startLimit = 60 * time.Second
	stopLimit  = 30 * time.Second
	pollEvery  = 50 * time.Millisecond
	askLimit   = time.Second
	host       = "127.0.0.1"
)

// system is a running node, and the peer beside it.
type system struct {
	dir        string
	ws, naive  string // doors, host:port
	node, peer *exec.Cmd
	key        *devicetoken.Key
	ingest     ingestv1.IngestServiceClient
	policy     policyv1.PolicyServiceClient
	nats       *nats.Conn
	js         jetstream.JetStream

	closers []func() error // in the order of opening
}

// start starts `<binary> up` with more flags on free ports in a folder of its
// own, and the peer on its services.
func start(ctx context.Context, binary, self string, flags ...string) (_ *system, err error) {
	dir, err := os.MkdirTemp("", "xhbench")
	if err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	s := &system{dir: dir}
	s.closers = append(s.closers, func() error { return os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	port, err := freePorts(6)
	if err != nil {
		return nil, err
	}
	s.ws, s.naive = address(port[0]), address(port[5])
	natsURL, mqttURL := "nats://"+address(port[2]), "tcp://"+address(port[1])
	home := filepath.Join(dir, "n") // short: it holds sockets
	s.node, err = s.spawn(ctx, "xinghuo", binary, append([]string{
		"up", "--dir", home, "--meters", "0", "--plain",
		"--ws", port[0], "--mqtt", port[1], "--nats", port[2], "--etcd", port[3], "--agent", port[4],
	}, flags...)...)
	if err != nil {
		return nil, err
	}
	run := filepath.Join(home, "run")
	for _, name := range []string{"ingest", "policy"} {
		conn, err := mesh.Dial(run, name)
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, conn.Close)
		switch name {
		case "ingest":
			s.ingest = ingestv1.NewIngestServiceClient(conn)
		case "policy":
			s.policy = policyv1.NewPolicyServiceClient(conn)
		}
	}
	if err := s.ready(ctx); err != nil {
		return nil, s.tell("xinghuo", err)
	}
	if s.key, err = devicetoken.Load(filepath.Join(home, "etc", "token.key")); err != nil {
		return nil, err
	}
	if s.nats, err = nats.Connect(natsURL); err != nil {
		return nil, fmt.Errorf("connect to the node's nats: %w", err)
	}
	s.closers = append(s.closers, func() error { s.nats.Close(); return nil })
	if s.js, err = jetstream.New(s.nats); err != nil {
		return nil, err
	}
	s.peer, err = s.spawn(ctx, "naive", self, "naive",
		"-listen", s.naive, "-policy", filepath.Join(run, "policy.sock"), "-nats", natsURL, "-mqtt", mqttURL)
	if err != nil {
		return nil, err
	}
	if err := poll(ctx, startLimit, func(ctx context.Context) error { return dials(ctx, s.naive) }); err != nil {
		return nil, s.tell("naive", fmt.Errorf("wait for the naive peer: %w", err))
	}
	return s, nil
}

// ready waits until the node takes readings in: its door is open, and policy
// has its module.
func (s *system) ready(ctx context.Context) error {
	return poll(ctx, startLimit, func(ctx context.Context) error {
		if err := dials(ctx, s.ws); err != nil {
			return err
		}
		if _, err := s.ingest.GetStats(ctx, &ingestv1.GetStatsRequest{}, grpc.WaitForReady(false)); err != nil {
			return fmt.Errorf("ask ingest: %w", err)
		}
		modules, err := s.policy.ListModules(ctx, &policyv1.ListModulesRequest{}, grpc.WaitForReady(false))
		if err != nil {
			return fmt.Errorf("ask policy: %w", err)
		}
		if len(modules.GetModules()) == 0 {
			return errors.New("policy has no module")
		}
		return nil
	})
}

// spawn starts a program whose output goes to a file of its name.
func (s *system) spawn(ctx context.Context, name, binary string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopLimit
	// An interrupt at the terminal is ours to pass on, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s.closers = append(s.closers, func() error {
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		kill := time.AfterFunc(stopLimit, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			return s.tell(name, fmt.Errorf("stop %s: %w", name, err))
		}
		return nil
	})
	return cmd, nil
}

// tell adds the end of a program's output to an error.
func (s *system) tell(name string, err error) error {
	const end = 2 << 10
	raw, rerr := os.ReadFile(filepath.Join(s.dir, name+".log"))
	if rerr != nil {
		return err
	}
	return fmt.Errorf("%w; %s wrote at the end:\n%s", err, name, bytes.TrimSpace(raw[max(0, len(raw)-end):]))
}

// close ends everything, the last first.
func (s *system) close() error {
	var errs []error
	for len(s.closers) > 0 {
		last := len(s.closers) - 1
		errs = append(errs, s.closers[last]())
		s.closers = s.closers[:last]
	}
	return errors.Join(errs...)
}

func address(port string) string { return net.JoinHostPort(host, port) }

// freePorts returns ports that nobody listens on now.
func freePorts(n int) ([]string, error) {
	ports := make([]string, n)
	for i := range ports {
		ln, err := net.Listen("tcp", address("0"))
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer ln.Close() // all at the end, so that none comes twice
		addr, ok := ln.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("find a free port: %v is no TCP address", ln.Addr())
		}
		ports[i] = strconv.Itoa(addr.Port)
	}
	return ports, nil
}

func dials(ctx context.Context, address string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// poll asks until it gets no error; after the limit it returns the last one.
func poll(ctx context.Context, limit time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, askLimit)
		err := ask(asking)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited %v: %w", limit, err)
		}
	}
}

// service is the name of a process of the node: `xinghuo ingest …` is ingest.
func service(args []string) string {
	if len(args) > 1 && !strings.HasPrefix(args[1], "-") {
		return args[1]
	}
	return strings.TrimPrefix(filepath.Base(args[0]), "xinghuo-")
}
