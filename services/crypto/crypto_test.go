package crypto_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	cryptov1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/crypto/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/services/crypto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run starts the service and returns clients and a stop that expects nil.
func run(t *testing.T, runDir, stateDir string) (cryptov1.CryptoServiceClient, adminv1.AdminServiceClient, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- crypto.Run(ctx, []string{"-run_dir", runDir, "-state_dir", stateDir}, io.Discard) }()
	conn, err := mesh.Dial(runDir, "crypto")
	if err != nil {
		t.Fatal(err)
	}
	return cryptov1.NewCryptoServiceClient(conn), adminv1.NewAdminServiceClient(conn), func() {
		t.Helper()
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
}

func TestRun(t *testing.T) {
	runDir, stateDir := testkit.SocketDir(t), t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	c, _, stop := run(t, runDir, stateDir)
	if _, err := c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: "k", Kind: cryptov1.KeyKind_KEY_KIND_SM4}); err != nil {
		t.Fatal(err)
	}
	sealed, err := c.Seal(ctx, &cryptov1.SealRequest{KeyHandle: "k", Items: []*cryptov1.SealItem{{Plaintext: []byte("kept")}}})
	if err != nil {
		t.Fatal(err)
	}
	stop()

	c, admin, stop := run(t, runDir, stateDir)
	opened, err := c.Open(ctx, &cryptov1.OpenRequest{KeyHandle: "k", Items: []*cryptov1.OpenItem{{Box: sealed.GetBoxes()[0]}}})
	if err != nil || string(opened.GetPlaintexts()[0]) != "kept" {
		t.Errorf("Open after a restart = %v, %v, want kept", opened, err)
	}
	if _, err := c.Sign(ctx, &cryptov1.SignRequest{KeyHandle: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("Sign(none) = %v, want NotFound", err)
	}
	info, err := admin.GetInfo(ctx, &adminv1.GetInfoRequest{})
	if err != nil || info.GetFacts()["driver.soft"] == "" || len(info.GetDegradations()) != 0 {
		t.Errorf("GetInfo = %v, %v, want the driver and no degradation", info, err)
	}
	stats, err := admin.GetStats(ctx, &adminv1.GetStatsRequest{})
	if err != nil || !strings.Contains(stats.String(), "xinghuo_crypto_items_total") {
		t.Errorf("GetStats = %v, %v, want xinghuo_crypto_items_total", stats, err)
	}
	stop()

	// One damaged key of two: the service runs, and says so.
	c, _, stop = run(t, runDir, stateDir)
	if _, err := c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: "bad", Kind: cryptov1.KeyKind_KEY_KIND_SM2}); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.WriteFile(filepath.Join(stateDir, "crypto", "keys", "bad.1.key"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, admin, stop = run(t, runDir, stateDir)
	defer stop()
	info, err = admin.GetInfo(ctx, &adminv1.GetInfoRequest{})
	if err != nil || len(info.GetDegradations()) != 1 || !strings.Contains(info.GetDegradations()[0].GetReason(), `key "bad"`) {
		t.Errorf("GetInfo = %v, %v, want keys degraded", info, err)
	}
}

func TestRunRefuses(t *testing.T) {
	var bad *settings.Error
	err := crypto.Run(t.Context(), []string{"-run_dir", "x", "-state_dir", "y", "-master_key_file", "z"}, io.Discard)
	if !errors.As(err, &bad) || len(bad.Faults) != 3 {
		t.Errorf("Run(three bad paths) = %v, want three faults", err)
	}
	dir := t.TempDir()
	master := filepath.Join(dir, "m")
	if err := os.WriteFile(master, make([]byte, 16), 0o644); err != nil {
		t.Fatal(err)
	}
	err = crypto.Run(t.Context(), []string{"-run_dir", testkit.SocketDir(t), "-state_dir", dir, "-master_key_file", master}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "must have mode 0400, has 0644") {
		t.Errorf("Run(readable master key) = %v, want a refusal", err)
	}
}
