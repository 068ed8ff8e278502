// Package natstest gives a test a NATS server of its own.
package natstest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/embedded/natsd"
)

// Start starts a server with JetStream and MQTT on free ports; it ends with the
// test.
func Start(t testing.TB) *server.Server {
	t.Helper()
	s, err := natsd.Start(natsd.Options{Name: "test", Port: -1, MQTTPort: -1, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// MQTT returns the URL of the server's MQTT door.
func MQTT(t testing.TB, s *server.Server) string {
	t.Helper()
	v, err := s.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("tcp://127.0.0.1:%d", v.MQTT.Port)
}

// Restart starts a server on the port and folder of one that was shut down; it
// ends with the test.
func Restart(t testing.TB, port int, storeDir string) *server.Server {
	t.Helper()
	// NATS appends its own folder to the one that it is given.
	s, err := natsd.Start(natsd.Options{Name: "test", Port: port, MQTTPort: -1, StoreDir: filepath.Dir(storeDir)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// Leaks returns what a server may leave running: one that shuts down while it
// still makes a stream, whose client has gone, forgets the stream's goroutines.
// Give it to goleak.VerifyTestMain.
func Leaks() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
	}
}
