// Package doctor checks whether this machine can run a node, and says how to
// mend what it lacks.
package doctor

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// Grade is how a check came out.
type Grade int

// The grades. Warn means that the node runs with less, Fail that it does not.
const (
	OK Grade = iota
	Warn
	Fail
)

// String returns the grade as it is printed.
func (g Grade) String() string { return [...]string{"ok", "warn", "fail"}[g] }

// Finding is the result of one check.
type Finding struct {
	Name   string
	Grade  Grade
	Detail string
	Mend   string // how to mend it; empty when there is nothing to
}

func ok(name, format string, args ...any) Finding {
	return Finding{Name: name, Detail: fmt.Sprintf(format, args...)}
}

func warn(name, mend, format string, args ...any) Finding {
	return Finding{Name: name, Grade: Warn, Detail: fmt.Sprintf(format, args...), Mend: mend}
}

func fail(name, mend, format string, args ...any) Finding {
	return Finding{Name: name, Grade: Fail, Detail: fmt.Sprintf(format, args...), Mend: mend}
}

// ErrUnfit says that a check failed.
var ErrUnfit = errors.New("this machine cannot run the node as it is")

const intro = `Usage: xinghuo doctor [flags]

Checks the kernel, limits, rights, ports, folders, clock and memory. Each line is
ok, warn (the node runs with less) or fail (it does not run). Exit code 1 when
one failed.

`

// Run is the command `xinghuo doctor`.
func Run(args []string, out io.Writer) error {
	base := settings.DefaultNode()
	fs := flag.NewFlagSet("doctor", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	runDir := fs.String("run-dir", base.RunDir, "`folder` of the services' sockets")
	stateDir := fs.String("state-dir", base.StateDir, "`folder` of the services' state")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			_, _ = fmt.Fprint(out, intro)
			fs.SetOutput(out)
			fs.PrintDefaults()
			return settings.ErrDone
		}
		return &settings.Error{Service: "doctor", Faults: []error{err}}
	}
	if fs.NArg() > 0 {
		return &settings.Error{Service: "doctor", Faults: []error{fmt.Errorf("arguments: none are taken, found %q", fs.Args())}}
	}
	return Report(Check(*runDir, *stateDir), out)
}

// Check makes every check. The folders need not be there.
func Check(runDir, stateDir string) []Finding {
	findings := []Finding{kernel(), btf(), bpffs(), cgroup(), ioUring(), capabilities(), files(), memlock()}
	findings = append(findings, doors()...)
	findings = append(findings, folder("run folder", runDir), folder("state folder", stateDir), tempFolder(os.TempDir()))
	return append(findings, clock(), memory())
}

// Report prints findings, and returns ErrUnfit when one of them failed.
func Report(findings []Finding, out io.Writer) error {
	var count [3]int
	for _, f := range findings {
		count[f.Grade]++
		if _, err := fmt.Fprintf(out, "%-5s %-14s %s\n", f.Grade, f.Name, f.Detail); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		if f.Mend != "" {
			_, _ = fmt.Fprintf(out, "      %-14s mend: %s\n", "", strings.TrimSpace(f.Mend))
		}
	}
	if _, err := fmt.Fprintf(out, "%d ok, %d to warn of, %d failed\n", count[OK], count[Warn], count[Fail]); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if count[Fail] > 0 {
		return ErrUnfit
	}
	return nil
}
