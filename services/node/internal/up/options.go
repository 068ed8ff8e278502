// Package up runs a whole node on this machine for trying it out: NATS and etcd
// inside its own process, the agent and the six services as processes, and
// simulated meters.
package up

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/services/node/internal/ports"
)

const host = "127.0.0.1"

// Options says what to run.
type Options struct {
	Dir       string
	Keep      bool
	Meters    int
	Rate      float64
	For       time.Duration
	Interface string
	Plain     bool
	// Binaries is a folder with an xinghuo-<service> for each service; empty
	// runs all of them from this binary.
	Binaries string

	// Ports on loopback; 0 means any that is free, and is replaced by it.
	WS, MQTT, NATS, Etcd, Agent int
}

const (
	maxMeters = 10_000
	maxRate   = 10_000
	// maxDir leaves room for `/run` in pkg/settings' limit of 76 bytes.
	maxDir = 72
)

const intro = `Usage: xinghuo up [flags]

Runs a whole node in the foreground: NATS (with its MQTT door) and etcd, the
agent, the six services, and simulated meters that replay real household
readings. Ctrl-C stops it and leaves nothing behind; a second Ctrl-C does so by
force.

`

// parse reads the flags. The error is a *settings.Error, or settings.ErrDone
// after help.
func parse(args []string, out io.Writer) (Options, error) {
	o := Options{Dir: filepath.Join(os.TempDir(), "xinghuo-"+strconv.Itoa(os.Getuid()))}
	fs := flag.NewFlagSet("up", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.Dir, "dir", o.Dir, "`folder` of sockets, state, settings and logs; new, empty or of an earlier up")
	fs.BoolVar(&o.Keep, "keep", false, "keep the folder at the end; once kept, it stays kept")
	fs.IntVar(&o.Meters, "meters", 128, "how many simulated meters; 0 for none")
	fs.Float64Var(&o.Rate, "rate", 50, "readings a second of each meter; 0 sends as fast as the node acknowledges")
	fs.DurationVar(&o.For, "for", 0, "how long to run; 0 runs until Ctrl-C")
	fs.StringVar(&o.Interface, "interface", "", "network interface that the firewall guards; empty for none")
	fs.StringVar(&o.Binaries, "binaries", "", "`folder` with an xinghuo-<service> for each service; empty runs them from this binary")
	fs.BoolVar(&o.Plain, "plain", false, "write a line each second instead of a table")
	fs.IntVar(&o.WS, "ws", 8700, "port of the devices' WebSocket door; 0 for any")
	fs.IntVar(&o.MQTT, "mqtt", 1883, "port of MQTT; 0 for any")
	fs.IntVar(&o.NATS, "nats", 4222, "port of NATS; 0 for any")
	fs.IntVar(&o.Etcd, "etcd", 2379, "port of etcd; 0 for any")
	fs.IntVar(&o.Agent, "agent", 8600, "port of the agent's HTTP door; 0 for any")
	which := fs.String("ports", "default", "default, or free: any free port for every door whose port is not given")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			_, _ = fmt.Fprint(out, intro)
			fs.SetOutput(out)
			fs.PrintDefaults()
			return o, settings.ErrDone
		}
		return o, &settings.Error{Service: "up", Faults: []error{err}}
	}
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *which == "free" {
		for name, port := range o.doors() {
			if !given[name] {
				*port = 0
			}
		}
	}
	faults := o.check()
	if *which != "default" && *which != "free" {
		faults = append(faults, fmt.Errorf("--ports: must be default or free, is %q", *which))
	}
	if fs.NArg() > 0 {
		faults = append(faults, fmt.Errorf("arguments: none are taken, found %q", fs.Args()))
	}
	if len(faults) > 0 {
		return o, &settings.Error{Service: "up", Faults: faults}
	}
	return o, nil
}

func (o *Options) doors() map[string]*int {
	return map[string]*int{"ws": &o.WS, "mqtt": &o.MQTT, "nats": &o.NATS, "etcd": &o.Etcd, "agent": &o.Agent}
}

// doorNames is the order in which doors are told of.
var doorNames = []string{"ws", "mqtt", "nats", "etcd", "agent"}

func (o *Options) check() []error {
	var faults []error
	add := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	dir, err := filepath.Abs(o.Dir)
	add(err)
	o.Dir = dir
	if len(dir) > maxDir {
		add(fmt.Errorf("--dir: must be at most %d bytes, so that socket names fit, is %d: %s", maxDir, len(dir), dir))
	}
	if o.Binaries != "" {
		o.Binaries, err = filepath.Abs(o.Binaries)
		add(err)
		for _, name := range services {
			if path := o.binary(name); !executable(path) {
				add(fmt.Errorf("--binaries: must hold an executable %s (make build makes it)", path))
			}
		}
	}
	add(settings.IntIn("--meters", o.Meters, 0, maxMeters))
	if !(o.Rate >= 0 && o.Rate <= maxRate) { // so that NaN is refused
		add(fmt.Errorf("--rate: must be 0 to %d, is %v", maxRate, o.Rate))
	}
	if o.For < 0 {
		add(fmt.Errorf("--for: must not be negative, is %v", o.For))
	}
	seen := make(map[int]string)
	for _, name := range doorNames {
		port := *o.doors()[name]
		add(settings.IntIn("--"+name, port, 0, 65535))
		if other := seen[port]; other != "" && port != 0 {
			add(fmt.Errorf("--%s: must differ from --%s, both are %d", name, other, port))
		}
		seen[port] = name
	}
	return faults
}

// choosePorts checks the ports that are given and finds the others.
func (o *Options) choosePorts() error {
	var errs []error
	free, err := ports.Free(host, len(doorNames))
	if err != nil {
		return err
	}
	for i, name := range doorNames {
		port := o.doors()[name]
		if *port == 0 {
			*port = free[i]
			continue
		}
		if err := ports.Check(host, *port); err != nil {
			errs = append(errs, fmt.Errorf("%w; or choose another by --%s, 0 for any", err, name))
		}
	}
	return errors.Join(errs...)
}

func (o *Options) binary(service string) string {
	return filepath.Join(o.Binaries, "xinghuo-"+service)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
