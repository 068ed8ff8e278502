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
}

// ready is how long a server may take to start, with streams to recover.
const ready = 10 * time.Second

// Start starts a server and waits for it. Shutdown and WaitForShutdown end it.
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
	s.Start()
	if !s.ReadyForConnections(ready) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, errors.New("start nats: not ready; is its port taken?")
	}
	return s, nil
}
