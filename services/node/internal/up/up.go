package up

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/embedded/etcdd"
	"github.com/xinghuo-edge/xinghuo/pkg/embedded/natsd"
)

const (
	tableEvery = time.Second
	// doorLimit is how long the meters wait for ingest's door at the start.
	doorLimit = 30 * time.Second
	// fleetLimit is what the meters get to end: they wait 5 s for what is not
	// acknowledged.
	fleetLimit = 8 * time.Second
	// settleLimit is how long readings on their way are waited for at the end.
	settleLimit = 2 * time.Second
	// agentLimit is what the agent gets to stop the services in order.
	agentLimit = 45 * time.Second
)

// ErrForced says that the end was not an orderly one.
var ErrForced = errors.New("stopped by force")

// node is what runs.
type node struct {
	opts   Options
	self   string
	folder *folder
	screen *screen
	nats   *server.Server
	etcd   *etcdd.Member
	agent  *program
	fleet  *program // nil without meters
	report bytes.Buffer
	gauges *gauges
}

// Run is `xinghuo up`. It returns when ctx, or the time that the arguments
// give, has ended and everything is stopped. When force is closed it stops
// waiting for order.
func Run(ctx context.Context, args []string, out io.Writer, force <-chan struct{}) (err error) {
	opts, err := parse(args, out)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	n := &node{opts: opts, self: self, screen: newScreen(out, opts.Plain)}
	if n.folder, err = openFolder(opts.Dir, opts.Keep); err != nil {
		return err
	}
	defer func() {
		if cerr := n.folder.close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("clear folder: %w", cerr))
		}
	}()
	// What an earlier up left when it was killed must not meet the new node.
	hard, cancelHard := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelHard()
	stopForce := make(chan struct{})
	defer close(stopForce)
	go func() { // ends with Run
		select {
		case <-force:
			cancelHard()
		case <-stopForce:
		}
	}()
	sweep(hard, n.folder, grace)
	if err := n.opts.choosePorts(); err != nil {
		return err
	}
	if opts.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.For)
		defer cancel()
	}
	defer n.stopServers()
	if err := n.startServers(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		return err
	}
	return n.run(ctx, hard)
}

func (n *node) startServers(ctx context.Context) error {
	if err := n.screen.say("starting NATS and etcd in %s", n.folder.path); err != nil {
		return err
	}
	if _, err := devicetoken.LoadOrCreate(n.folder.tokenKey()); err != nil {
		return err
	}
	if err := n.folder.layout(n.opts, n.self); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		n.nats, err = natsd.Start(natsd.Options{
			Name: "xinghuo-up", Port: n.opts.NATS, MQTTPort: n.opts.MQTT, StoreDir: n.folder.sub("state", "nats"),
		})
		return err
	})
	g.Go(func() (err error) {
		n.etcd, err = etcdd.Start(ctx, etcdd.Options{Dir: n.folder.sub("state", "etcd"), Client: address(n.opts.Etcd)})
		return err
	})
	return g.Wait()
}

func (n *node) stopServers() {
	if n.nats != nil {
		n.nats.Shutdown()
		n.nats.WaitForShutdown()
	}
	if n.etcd != nil {
		n.etcd.Stop()
	}
	if !n.folder.kept() {
		_ = os.RemoveAll(n.folder.pinDir()) // unpinning is removing
	}
}

// run runs the programs until ctx ends or one of them cannot run, and stops
// them: the meters first, so that nothing they sent is lost, then the agent,
// which stops the services.
func (n *node) run(ctx, hard context.Context) error {
	n.agent = &program{
		name: "agent", args: []string{"agent", "-config", n.folder.settings("agent")}, self: n.self,
		log: n.folder.sub("log", "agent.log"), again: true,
	}
	n.fleetProgram()
	var err error
	if n.gauges, err = newGauges(n.folder.sub("run"), n.fleetPID); err != nil {
		return err
	}
	defer func() { _ = n.gauges.close() }()
	for _, t := range tips(n.folder, n.opts) {
		if err := n.screen.say("%s", t); err != nil {
			return err
		}
	}

	g, gctx := errgroup.WithContext(ctx)
	agentCtx, stopAgent := context.WithCancel(hard)
	defer stopAgent()
	agentDone := make(chan struct{})
	g.Go(func() error {
		defer close(agentDone)
		return n.agent.run(agentCtx, agentLimit)
	})
	fleetCtx, stopFleet := context.WithCancel(hard)
	defer stopFleet()
	fleetDone := make(chan struct{})
	g.Go(func() error {
		defer close(fleetDone)
		return n.runFleet(fleetCtx)
	})
	showing, stopShow := context.WithCancel(hard)
	shown := make(chan struct{})
	g.Go(func() error {
		defer close(shown)
		return n.show(showing)
	})

	select {
	case <-gctx.Done(): // told to stop, or one of the three failed
	case <-hard.Done():
	}
	stopShow()
	<-shown
	serr := n.screen.say("stopping: meters, services, NATS, etcd (Ctrl-C again forces)")
	stopFleet()
	n.await(hard, fleetDone, n.fleet)
	last := n.settle(hard)
	stopAgent()
	n.await(hard, agentDone, n.agent)
	swept := sweep(hard, n.folder, grace)
	err = errors.Join(g.Wait(), serr)
	if werr := n.screen.say("%s", n.summary(last)); werr != nil {
		err = errors.Join(err, werr)
	}
	if hard.Err() != nil {
		return errors.Join(err, ErrForced)
	}
	if len(swept) > 0 {
		err = errors.Join(err, fmt.Errorf("the agent had left %v running", swept))
	}
	return err
}

// await waits for a program's end, and kills it when hard ends.
func (n *node) await(hard context.Context, done <-chan struct{}, p *program) {
	for p != nil {
		select {
		case <-done:
			return
		case <-hard.Done():
			p.kill()
			<-done
			return
		}
	}
	<-done
}

func (n *node) fleetProgram() {
	if n.opts.Meters == 0 {
		return
	}
	n.fleet = &program{
		name: "fleet", self: n.self, log: n.folder.sub("log", "fleet.log"), stdout: &n.report,
		args: []string{
			"fleet", "-n", strconv.Itoa(n.opts.Meters), "-rate", strconv.FormatFloat(n.opts.Rate, 'f', -1, 64),
			"-url", "ws://" + address(n.opts.WS), "-token-key", n.folder.tokenKey(), "-json",
		},
	}
}

func (n *node) fleetPID() int {
	if n.fleet == nil {
		return 0
	}
	return n.fleet.pid()
}

// runFleet waits for the devices' door and starts the meters.
func (n *node) runFleet(ctx context.Context) error {
	if n.fleet == nil {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, doorLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var d net.Dialer
	for {
		c, err := d.DialContext(wait, "tcp", address(n.opts.WS))
		if err == nil {
			_ = c.Close()
			break
		}
		select {
		case <-tick.C:
		case <-wait.Done():
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("ingest's door on port %d did not open within %v; its log ends:\n%s",
				n.opts.WS, doorLimit, tail(n.folder.sub("log", "ingest.log")))
		}
	}
	if err := n.fleet.run(ctx, fleetLimit); err != nil {
		return fmt.Errorf("%w; its log ends:\n%s", err, tail(n.fleet.log))
	}
	return nil
}

// show draws the figures each second until ctx ends.
func (n *node) show(ctx context.Context) error {
	tick := time.NewTicker(tableEvery)
	defer tick.Stop()
	for {
		f := n.gauges.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := n.screen.show(f); err != nil {
			return fmt.Errorf("write table: %w", err) // nobody reads any more
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// settle waits for what is on its way, and returns the last figures.
func (n *node) settle(ctx context.Context) figures {
	limit, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		f := n.gauges.read(ctx)
		if f.inFlight == 0 && f.allServing {
			return f
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			return f
		}
	}
}

func (n *node) summary(f figures) string {
	sent, acked, lost := f.received, f.acked, uint64(0)
	var r struct {
		Sent  uint64 `json:"sent"`
		Acked uint64 `json:"acked"`
		Lost  uint64 `json:"lost"`
	}
	if json.Unmarshal(n.report.Bytes(), &r) == nil && r.Sent > 0 { // a killed fleet reports nothing
		sent, acked, lost = r.Sent, r.Acked, r.Lost
	}
	return fmt.Sprintf("in all: sent %d, acked %d, unacknowledged %d, delivered %d, rejected %d, dropped %d, MQTT published %d, MQTT dropped %d, left in flight %d",
		sent, acked, lost, f.delivered, f.rejected, f.drops, f.published, f.mqttDrops, f.inFlight)
}
