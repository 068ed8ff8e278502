// Package house holds the rules of the house as tests: who may import whom, and
// what every room and file is like.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/xinghuo-edge/xinghuo/"

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	Doc          string
	ForTest      string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Deps         []string
}

// room is the package's path below the root, for example services/ingest/internal/ws.
func (p pkg) room() string { return strings.TrimPrefix(p.ImportPath, module) }

// all lists the packages of every module of the workspace.
func all(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json", "work")
	cmd.Dir = root(t)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list work: %v\n%s", err, errs.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 20 {
		t.Fatalf("go list work lists %d packages, want the whole house", len(pkgs))
	}
	return pkgs
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.work")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// within reports whether an import path is below one of the folders.
func within(path string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return path == module+f || strings.HasPrefix(path, module+f+"/")
	})
}

// service returns the service that a path belongs to, or "".
func service(path string) string {
	rest, ok := strings.CutPrefix(path, module+"services/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// wall says why from may not import to; "" when it may.
func wall(from, to string) string {
	switch {
	case within(from, "proto") && strings.HasPrefix(to, module) && !within(to, "proto"):
		return "proto imports nothing of ours"
	case within(from, "pkg") && strings.HasPrefix(to, module) && !within(to, "proto", "pkg"):
		return "pkg imports nothing of ours but proto"
	case within(from, "bpf") && strings.HasPrefix(to, module) && !within(to, "bpf"):
		return "bpf imports nothing of ours"
	case within(from, "fleet") && within(to, "services", "bpf"):
		return "the fleet knows the node by its protocols alone"
	case service(from) != "" && service(from) != "node" && service(to) != "" && service(to) != service(from):
		return "services never import each other"
	case strings.HasPrefix(to, "github.com/cilium/ebpf") && !within(from, "bpf", "services/firewall", "services/ingest"):
		return "only bpf, firewall and ingest touch cilium/ebpf"
	case within(to, "bpf") && !within(from, "bpf", "services/firewall", "services/ingest"):
		return "only firewall and ingest load programs into the kernel"
	case strings.HasPrefix(to, "go.opentelemetry.io/otel/sdk") && !within(from, "pkg/telemetry"):
		return "only pkg/telemetry imports the otel SDK"
	case (within(to, "pkg/testkit") || to == "testing") && !within(from, "pkg/testkit", "tests"):
		return "tests only"
	}
	return ""
}

func TestWall(t *testing.T) {
	tests := []struct {
		from, to string
		ok       bool
	}{
		{"services/ingest", "github.com/cilium/ebpf", true},
		{"services/policy", "github.com/cilium/ebpf/link", false},
		{"services/policy/internal/engine", module + "services/policy/internal/abi", true},
		{"services/policy", module + "services/ingest", false},
		{"services/node/internal/cli", module + "services/ingest", true},
		{"services/firewall", module + "bpf/firewall", true},
		{"services/agent", module + "bpf/firewall", false},
		{"pkg/mesh", module + "proto/xinghuo/admin/v1", true},
		{"pkg/mesh", module + "services/agent", false},
		{"pkg/mesh", module + "pkgs", false},
		{"proto/xinghuo/admin/v1", module + "pkg/fault", false},
		{"bpf/firewall", module + "pkg/fault", false},
		{"fleet", module + "services/ingest", false},
		{"services/ingest", module + "pkg/testkit", false},
	}
	for _, tt := range tests {
		if got := wall(module+tt.from, tt.to); (got == "") != tt.ok {
			t.Errorf("wall(%s, %s) = %q, want open %v", tt.from, tt.to, got, tt.ok)
		}
	}
}

func TestWallsHold(t *testing.T) {
	for _, p := range all(t) {
		for _, to := range p.Imports {
			if why := wall(p.ImportPath, to); why != "" && !holdsTestHelpers(p) {
				t.Errorf("%s imports %s: %s", p.room(), to, why)
			}
		}
		for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
			if why := wall(p.ImportPath, to); why != "" && why != "tests only" {
				t.Errorf("a test of %s imports %s: %s", p.room(), to, why)
			}
		}
	}
}

// holdsTestHelpers reports whether a package is for tests by its name, such as
// mqtttest: it may use testing and the testkit.
func holdsTestHelpers(p pkg) bool { return strings.HasSuffix(p.Name, "test") }

// What a service links is what it costs on a small box: none brings another in
// by a way around the direct imports.
func TestServicesStayApart(t *testing.T) {
	for _, p := range all(t) {
		own := service(p.ImportPath)
		if own == "" || own == "node" {
			continue
		}
		for _, dep := range p.Deps {
			if other := service(dep); other != "" && other != own {
				t.Errorf("%s depends on %s: services never import each other", p.room(), dep)
			}
			if strings.HasPrefix(dep, "github.com/nats-io/nats-server") || strings.HasPrefix(dep, "go.etcd.io/etcd/server") {
				t.Errorf("%s links the server %s", p.room(), dep)
			}
		}
	}
}
