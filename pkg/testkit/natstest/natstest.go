// Package natstest gives a test a NATS server of its own.
package natstest

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

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
