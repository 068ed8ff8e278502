package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/fleet"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// TestDocumentedCalls runs every grpcurl command of the README and the docs
// against a running node, as a reader would.
func TestDocumentedCalls(t *testing.T) {
	bin := grpcurl(t)
	commands := documented(t)
	n := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	f := n.meters(func(o *fleet.Options) { o.Meters, o.Rate = 4, 10 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := f.Run(ctx); err != nil {
			t.Errorf("fleet: %v", err)
		}
	}()
	defer func() { cancel(); <-done }()
	testkit.Eventually(t, 10*time.Second, "meters' readings", func() bool { return f.Snapshot().Acked > 40 })

	did := make(map[string]bool)
	for _, c := range commands {
		line := defaultDir.ReplaceAllLiteralString(c.line, n.dir)
		cmd := exec.CommandContext(n.ctx(30*time.Second), "sh", "-c", line)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %s\n%v\n%s", c.file, line, err, out)
		}
		for _, s := range services {
			if !strings.Contains(line, "/"+s+".sock") {
				continue
			}
			switch {
			case strings.HasSuffix(line, " list"):
				did[s+" list"] = true
			case strings.Contains(line, " describe"):
				did[s+" describe"] = true
			default:
				did[s+" call"] = true
			}
		}
	}
	for _, s := range services {
		for _, kind := range []string{"list", "describe", "call"} {
			if !did[s+" "+kind] {
				t.Errorf("no document shows how to %s on %s.sock", kind, s)
			}
		}
	}
}

// defaultDir is where `make run` keeps its node.
var defaultDir = regexp.MustCompile(`/tmp/xinghuo-(\$\(id -u\)|0)`)

type documentedCommand struct{ file, line string }

// documented collects the lines that call grpcurl, loops over all sockets
// included, from the README and docs. A line that ends in a backslash goes on.
func documented(t *testing.T) []documentedCommand {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []documentedCommand
	for _, file := range append(files, "../README.md", "../README.zh-CN.md") {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(raw), "\\\n", " ")
		for line := range strings.Lines(text) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			if strings.HasPrefix(line, "grpcurl ") || strings.HasPrefix(line, "for s in ") && strings.Contains(line, "grpcurl ") {
				all = append(all, documentedCommand{file, line})
			}
		}
	}
	return expand(all)
}

// expand turns `for s in a b; do CMD; done` into its commands, so that each
// socket is seen on its own.
func expand(commands []documentedCommand) []documentedCommand {
	loop := regexp.MustCompile(`^for s in ([a-z ]+); do (.*); done$`)
	var out []documentedCommand
	for _, c := range commands {
		m := loop.FindStringSubmatch(c.line)
		if m == nil {
			out = append(out, c)
			continue
		}
		for _, s := range strings.Fields(m[1]) {
			line := strings.NewReplacer("${s}", s, "$s", s).Replace(m[2])
			out = append(out, documentedCommand{c.file, strings.TrimSpace(line)})
		}
	}
	return out
}

// grpcurl returns the pinned grpcurl, built when it is not there.
func grpcurl(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../bin/tools/grpcurl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path = filepath.Join(t.TempDir(), "grpcurl")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-C", "../tools", "-o", path, "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("build grpcurl: %w\n%s", err, out))
	}
	return path
}
