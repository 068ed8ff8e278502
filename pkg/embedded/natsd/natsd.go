// Package natsd runs a NATS server with JetStream and its MQTT door inside this
// process: for `xinghuo up`, and for tests.
package natsd

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options says where the server listens and keeps its streams.
type Options struct {
	Name     string
	Host     string // empty means 127.0.0.1
	Port     int    // -1 means any
	MQTTPort int    // -1 means any, 0 none
	StoreDir string
	// MaxMemory and MaxStore bound JetStream; 0 means 64 MiB and 1 GiB.
	MaxMemory, MaxStore int64
	// Report is told why streams cannot be written, such as a full disk, and
	// with "" when they can again; nil tells nobody. It is called by one
	// goroutine, and must not wait for the server to shut down.
	Report func(fault string)
}

// ready is how long a server may take to start, with streams to recover.
const ready = 10 * time.Second

// look is how long one look at it takes when it is not.
const look = 50 * time.Millisecond

// Start starts a server and waits for it. Shutdown and WaitForShutdown end it.
// While it runs, streams that a full disk has closed are opened again once
// there is space.
func Start(o Options) (*server.Server, error) {
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.MaxMemory == 0 {
		o.MaxMemory = 64 << 20
	}
	if o.MaxStore == 0 {
		o.MaxStore = 1 << 30
	}
	opts := &server.Options{
		ServerName: o.Name, Host: o.Host, Port: o.Port,
		JetStream: true, StoreDir: o.StoreDir, JetStreamMaxMemory: o.MaxMemory, JetStreamMaxStore: o.MaxStore,
		NoSigs: true, NoLog: true,
	}
	if o.MQTTPort != 0 {
		opts.MQTT.Host, opts.MQTT.Port = o.Host, o.MQTTPort
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("start nats: %w", err)
	}
	faults := make(fatal, 1)
	s.SetLoggerV2(faults, false, false, false)
	s.Start()
	if err := await(s, faults); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("start nats: %w", err)
	}
	k := &keeper{server: s, dir: o.StoreDir, memory: o.MaxMemory, store: o.MaxStore, report: o.Report}
	go k.run() // ends when the server has shut down
	return s, nil
}

func await(s *server.Server, faults fatal) error {
	for end := time.Now().Add(ready); time.Now().Before(end); {
		if s.ReadyForConnections(look) {
			return nil
		}
		select {
		case text := <-faults:
			return errors.New(text)
		default:
		}
	}
	return fmt.Errorf("not ready within %v", ready)
}

// fatal keeps the first fault that the server would have ended the process for:
// a port that is taken, a folder that it may not write.
type fatal chan string

// Fatalf implements server.Logger.
func (f fatal) Fatalf(format string, v ...any) {
	select {
	case f <- fmt.Sprintf(format, v...):
	default: // the first is the cause
	}
}

// The rest of server.Logger goes nowhere, as with NoLog.

func (fatal) Noticef(string, ...any) {}
func (fatal) Warnf(string, ...any)   {}
func (fatal) Errorf(string, ...any)  {}
func (fatal) Debugf(string, ...any)  {}
func (fatal) Tracef(string, ...any)  {}
