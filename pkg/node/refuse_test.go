package node_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// The test binary calls a service under another uid when these are set.
const (
	callTarget = "XH_TEST_CALL_TARGET"
	callMethod = "XH_TEST_CALL_METHOD"
)

// stranger is nobody(5) of Debian.
const stranger = 65534

// callAndTell calls a method that takes an empty message and prints the code.
func callAndTell(target, method string) int {
	conn, err := grpc.NewClient("unix://"+target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// Every message of ours parses as an Empty: what it has is unknown to it.
	err = conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
	_, _ = fmt.Fprint(os.Stdout, status.Code(err))
	return 0
}

func TestAStrangerIsRefusedAndAudited(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to call under another uid")
	}
	const getInfo, setLevel = "/xinghuo.admin.v1.AdminService/GetInfo", "/xinghuo.admin.v1.AdminService/SetLogLevel"
	role := fmt.Sprintf("version: 1\nroles:\n  viewer: {uids: [%d], methods: [\"/xinghuo.*/Get*\"]}\n", stranger)
	tests := []struct {
		name, access, method, want string
	}{
		{"no role", "", getInfo, "PermissionDenied"},
		{"health needs none", "", "/grpc.health.v1.Health/Check", "OK"},
		{"a role that covers it", role, getInfo, "OK"},
		{"a role that does not", role, setLevel, "PermissionDenied"},
		{"reflection", "", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "PermissionDenied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := nodeSettings(t, func(n *settings.Node) {
				if tt.access == "" {
					return
				}
				n.AccessFile = filepath.Join(t.TempDir(), "access.yaml")
				if err := os.WriteFile(n.AccessFile, []byte(tt.access), 0o600); err != nil {
					t.Fatal(err)
				}
			})
			b := start(t, cfg, nil)
			if _, err := healthv1.NewHealthClient(b.conn).Check(within(t), &healthv1.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(cfg.RunDir), 0o755); err != nil {
				t.Fatal(err)
			}
			// Its group may open the socket: 0660 in a folder of 0750.
			got, pid := callAs(t, b, uint32(os.Getegid()), tt.method)
			if got != tt.want {
				t.Errorf("%s as uid %d = %s, want %s", tt.method, stranger, got, tt.want)
			}
			line := b.logs.find(t, "call refused")
			if tt.want == "OK" {
				if line != nil {
					t.Errorf("audit line = %v, want none", line)
				}
				return
			}
			if line == nil || line["audit"] != true || line["uid"] != float64(stranger) || line["method"] != tt.method || line["pid"] != float64(pid) {
				t.Errorf("audit line = %v, want uid %d, pid %d and %s", line, stranger, pid, tt.method)
			}
		})
	}
}

// Who may not open the folder does not reach the guard at all.
func TestTheFolderKeepsOthersOut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to call under another uid")
	}
	b := start(t, nodeSettings(t), nil)
	if err := os.Chmod(filepath.Dir(b.cfg.RunDir), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, _ := callAs(t, b, stranger, "/grpc.health.v1.Health/Check"); got != "Unavailable" {
		t.Errorf("call from outside the group = %s, want Unavailable", got)
	}
}

// callAs calls a method as the stranger and returns the code and the caller's
// pid.
func callAs(t *testing.T, b *bed, gid uint32, method string) (code string, pid int) {
	t.Helper()
	// /proc/self/exe opens for the child, too; the binary's folder may not.
	cmd := exec.CommandContext(within(t), "/proc/self/exe")
	cmd.Env = append(os.Environ(), callTarget+"="+b.socket(), callMethod+"="+method, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: gid}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	return string(out), cmd.Process.Pid
}
