package natsd_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/xinghuo-edge/xinghuo/pkg/embedded/natsd"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// TestFullDisk fills the disk of a server and frees it: what was confirmed is
// still there, and what comes after is taken.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=24m"); errors.Is(err, unix.EPERM) {
		t.Skip("needs root to mount a small disk")
	} else if err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	reports := make(chan string, 16)
	s, err := natsd.Start(natsd.Options{
		Name: "test", Port: -1, StoreDir: filepath.Join(disk, "nats"),
		Report: func(fault string) { reports <- fault },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := conn.JetStream(nats.MaxWait(300 * time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "TEL", Subjects: []string{"tel.>"}}); err != nil {
		t.Fatal(err)
	}
	confirmed := uint64(0)
	publish := func() error {
		_, err := js.Publish("tel.a", make([]byte, 1000))
		if err == nil {
			confirmed++
		}
		return err
	}
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(disk, "fill")
	if err := os.WriteFile(fill, make([]byte, 32<<20), 0o600); err == nil {
		t.Fatal("a disk of 24 MiB took 32 MiB")
	}
	testkit.Eventually(t, 20*time.Second, "a publish to fail", func() bool { return publish() != nil })
	if fault := next(t, reports); !strings.Contains(fault, "no space left on device") || !strings.Contains(fault, "must have at least") {
		t.Errorf("report = %q, want the write error and what must be free", fault)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if fault := next(t, reports); fault != "" {
		t.Errorf("report = %q, want none once there is space", fault)
	}
	testkit.Eventually(t, 20*time.Second, "a publish to be confirmed again", func() bool { return publish() == nil })
	info, err := js.StreamInfo("TEL")
	if err != nil || info.State.Msgs < confirmed {
		t.Errorf("messages = %+v, %v, want at least the %d confirmed", info, err, confirmed)
	}
}

func next(t *testing.T, reports <-chan string) string {
	t.Helper()
	select {
	case fault := <-reports:
		return fault
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is reported")
		return ""
	}
}
