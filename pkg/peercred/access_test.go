package peercred_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/pkg/peercred"
)

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAllows(t *testing.T) {
	access, err := peercred.LoadAccess(write(t, `
version: 1
roles:
  operator: {uids: [70001], methods: ["/xinghuo.*/*"]}
  viewer: {uids: [70002], methods: ["/xinghuo.*/Get*", "/xinghuo.*/List*"]}
`))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		uid    uint32
		method string
		role   string
		want   bool
	}{
		{0, "/xinghuo.ingest.v1.IngestService/SendCommand", "root", true},
		{uint32(os.Geteuid()), "/xinghuo.ingest.v1.IngestService/SendCommand", "", true},
		{70001, "/xinghuo.ingest.v1.IngestService/SendCommand", "operator", true},
		{70001, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", false},
		{70002, "/xinghuo.ingest.v1.IngestService/GetDevice", "viewer", true},
		{70002, "/xinghuo.ingest.v1.IngestService/SendCommand", "", false},
		{70003, "/xinghuo.ingest.v1.IngestService/GetDevice", "", false},
		{70003, "/grpc.health.v1.Health/Check", "public", true},
	}
	for _, tt := range tests {
		role, got := access.Allows(tt.uid, tt.method)
		if got != tt.want || (tt.role != "" && role != tt.role) {
			t.Errorf("Allows(%d, %s) = %q, %v, want %q, %v", tt.uid, tt.method, role, got, tt.role, tt.want)
		}
	}
}

func TestLoadAccessRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown key", "version: 1\nrolls: {}\n", "rolls"},
		{"version", "version: 2\n", "must be 1, is 2"},
		{"pattern", "version: 1\nroles: {a: {uids: [1], methods: [Get]}}\n", `is "Get"`},
		{"bad uid", "version: 1\nroles: {a: {uids: [-1], methods: []}}\n", "-1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := peercred.LoadAccess(write(t, tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("LoadAccess(%q) = %v, want an error with %q", tt.text, err, tt.want)
			}
		})
	}
	if _, err := peercred.LoadAccess("/nonexistent/access.yaml"); err == nil {
		t.Error("LoadAccess of a missing file = nil, want an error")
	}
}
