package natsd_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/embedded/natsd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStartOpensBothDoors(t *testing.T) {
	s, err := natsd.Start(natsd.Options{Name: "test", Port: -1, MQTTPort: -1, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AccountInfo(); err != nil {
		t.Errorf("AccountInfo = %v, want JetStream", err)
	}
	v, err := s.Varz(nil)
	if err != nil || v.MQTT.Port <= 0 || v.JetStream.Config.MaxStore != 1<<30 || v.JetStream.Config.MaxMemory != 64<<20 {
		t.Errorf("Varz = port %v, %+v, %v, want an MQTT door, 1 GiB and 64 MiB", v.MQTT.Port, v.JetStream.Config, err)
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		o    natsd.Options
		want string
	}{
		{"NATS port taken", natsd.Options{Name: "test", Port: port, StoreDir: t.TempDir()}, "address already in use"},
		{"MQTT port taken", natsd.Options{Name: "test", Port: -1, MQTTPort: port, StoreDir: t.TempDir()}, "address already in use"},
		{"folder is a file", natsd.Options{Name: "test", Port: -1, StoreDir: file}, "not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := natsd.Start(tt.o)
			if err == nil {
				s.Shutdown()
				s.WaitForShutdown()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start = %v, want an error with %q", err, tt.want)
			}
		})
	}
}
