package supervise_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/services/agent/internal/supervise"
)

const asChild = "XH_TEST_CHILD"

// TestMain lets this binary be its own child process.
func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		child(os.Args[1])
	}
	goleak.VerifyTestMain(m)
}

func child(mode string) {
	stop := make(chan os.Signal, 1)
	switch mode {
	case "wait":
		signal.Notify(stop, syscall.SIGTERM)
		_, _ = fmt.Fprintln(os.Stdout, "ready")
		<-stop
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		_, _ = fmt.Fprintln(os.Stdout, "ready")
		<-stop
	case "refuse":
		fmt.Fprintln(os.Stderr, "bad configuration of refuse, 1 fault(s):\n  window: must be 1 to 9, is 0")
		os.Exit(2)
	case "panic":
		panic("boom")
	case "talk":
		_, _ = fmt.Fprintln(os.Stdout, `{"msg":"json"}`)
		_, _ = fmt.Fprintln(os.Stdout, strings.Repeat("x", 1<<17))
		_, _ = fmt.Fprintln(os.Stdout, "plain")
		_, _ = fmt.Fprint(os.Stdout, "unfinished")
	}
	os.Exit(0)
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func launcher(t *testing.T) (*supervise.Exec, *buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	logs := new(buffer)
	return &supervise.Exec{Command: []string{self, "{service}"}, Env: []string{asChild + "=1"}, Logs: logs}, logs
}

func ended(t *testing.T, p supervise.Process) supervise.Exit {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("waited 10 s for the process to end")
	}
	return p.Exit()
}

func TestExits(t *testing.T) {
	tests := []struct {
		mode   string
		code   int
		output string
	}{
		{"nothing", 0, ""},
		{"refuse", 2, "bad configuration of refuse"},
		{"panic", 2, "goroutine "},
	}
	for _, where := range []string{"pipe", "file"} {
		for _, tt := range tests {
			t.Run(where+"/"+tt.mode, func(t *testing.T) {
				l, _ := launcher(t)
				if where == "file" {
					l.LogDir = t.TempDir()
					if err := os.WriteFile(l.LogFile(tt.mode), []byte("of an earlier life\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				p, err := l.Start(tt.mode)
				if err != nil {
					t.Fatal(err)
				}
				exit := ended(t, p)
				if exit.Code != tt.code || !strings.Contains(exit.Output, tt.output) || strings.Contains(exit.Output, "earlier") {
					t.Errorf("exit = %+v, want code %d and %q", exit, tt.code, tt.output)
				}
			})
		}
	}
}

func TestStartFails(t *testing.T) {
	l := &supervise.Exec{Command: []string{"/nonexistent/{service}"}}
	if _, err := l.Start("ingest"); err == nil || !strings.Contains(err.Error(), "/nonexistent/ingest") {
		t.Errorf("Start = %v, want an error that names the program", err)
	}
}

func TestOutputIsPassedOnByLine(t *testing.T) {
	l, logs := launcher(t)
	p, err := l.Start("talk")
	if err != nil {
		t.Fatal(err)
	}
	ended(t, p)
	got := strings.Split(strings.TrimSuffix(logs.String(), "\n"), "\n")
	if len(got) != 4 || got[0] != `{"msg":"json"}` || got[2] != "talk: plain" || got[3] != "talk: unfinished" {
		t.Fatalf("log = %.200q, want the JSON line as it is and three behind the name", got)
	}
	if n := len(got[1]); n > 17<<10 || !strings.HasSuffix(got[1], "…") {
		t.Errorf("a line of 128 KiB came as %d bytes, want it cut off at 16 KiB", n)
	}
}

func TestAdoptWatchesAndSignals(t *testing.T) {
	for _, tt := range []struct {
		mode string
		end  func(supervise.Process) error
	}{
		{"wait", supervise.Process.Terminate},
		{"stubborn", supervise.Process.Kill},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, tt.mode)
			cmd.Env = append(os.Environ(), asChild+"=1")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			p, err := new(supervise.Exec).Adopt("ingest", cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-p.Done():
				t.Fatal("Done is closed while the process runs")
			default:
			}
			if err := tt.end(p); err != nil {
				t.Fatal(err)
			}
			if exit := ended(t, p); exit.Code != -1 || !strings.Contains(exit.Text, "adopted") {
				t.Errorf("exit = %+v, want that it is not known", exit)
			}
			_ = cmd.Wait()
			if _, err := new(supervise.Exec).Adopt("ingest", cmd.Process.Pid); err == nil {
				t.Error("Adopt of an ended process = nil error")
			}
		})
	}
	p, err := new(supervise.Exec).Adopt("ingest", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p.Release() // goleak sees whether its watcher ends
	if _, err := new(supervise.Exec).Adopt("ingest", 1); err == nil {
		t.Error("Adopt(pid 1) = nil error")
	}
}

func TestTrimBoundsLogs(t *testing.T) {
	l := &supervise.Exec{LogDir: t.TempDir()}
	big := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20)
	if err := os.WriteFile(l.LogFile("ingest"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Trim([]string{"ingest", "never-started"}); err != nil {
		t.Fatal(err)
	}
	now, err := os.Stat(l.LogFile("ingest"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.Stat(filepath.Join(l.LogDir, "ingest.log.1"))
	if err != nil {
		t.Fatal(err)
	}
	if now.Size() != 0 || kept.Size() != 8<<20 {
		t.Errorf("after Trim: %d bytes, %d kept, want 0 and 8 MiB", now.Size(), kept.Size())
	}
}
