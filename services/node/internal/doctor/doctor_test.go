package doctor

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckHere(t *testing.T) {
	dir := t.TempDir()
	findings := Check(filepath.Join(dir, "run"), dir)
	names := make(map[string]bool)
	for _, f := range findings {
		names[f.Name] = true
		if f.Detail == "" {
			t.Errorf("%s says nothing", f.Name)
		}
		if f.Grade == Fail && f.Mend == "" {
			t.Errorf("%s failed and says no way to mend it: %s", f.Name, f.Detail)
		}
	}
	for _, want := range []string{"kernel", "BTF", "bpffs", "io_uring", "cgroup", "open files", "locked memory", "capabilities", "port 8600", "port 2379", "run folder", "clock", "memory"} {
		if !names[want] {
			t.Errorf("no finding of %q", want)
		}
	}
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	if err := Report([]Finding{ok("a", "fine"), warn("b", "do x", "so so")}, &out); err != nil {
		t.Errorf("Report without a failure = %v", err)
	}
	if !strings.Contains(out.String(), "warn  b") || !strings.Contains(out.String(), "mend: do x") {
		t.Errorf("Report wrote %q", out.String())
	}
	if err := Report([]Finding{fail("c", "do y", "bad")}, &out); !errors.Is(err, ErrUnfit) {
		t.Errorf("Report with a failure = %v, want ErrUnfit", err)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o750), os.Chmod(open, 0o777), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]Grade{
		dir: OK, filepath.Join(dir, "none"): OK, open: Fail, filepath.Join(dir, "file"): Fail, filepath.Join(dir, "no", "parent"): Warn,
	} {
		if got := folder("f", path); got.Grade != want {
			t.Errorf("folder(%s) = %+v, want %v", path, got, want)
		}
	}
}

func TestJudgeCapabilities(t *testing.T) {
	for status, want := range map[string]Grade{
		"CapEff:\t000001ffffffffff\n": OK,
		"CapEff:\t0000008000001000\n": OK,
		"CapEff:\t0000000000001000\n": Warn,
		"CapEff:\t0000000000000000\n": Warn,
		"":                            Warn,
	} {
		if got := judgeCapabilities("c", status); got.Grade != want {
			t.Errorf("judgeCapabilities(%q) = %+v, want %v", status, got, want)
		}
	}
}

func TestAvailable(t *testing.T) {
	if n, found := available("MemTotal: 5 kB\nMemAvailable:    2048 kB\n"); n != 2<<20 || !found {
		t.Errorf("available = %d, %v, want 2 MiB", n, found)
	}
	if _, found := available("MemTotal: 5 kB\n"); found {
		t.Error("available found what is not there")
	}
}
