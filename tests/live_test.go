package tests

import (
	"strings"
	"testing"
	"time"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	configv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/config/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// TestLiveSetting changes ingest's batch delay through the config service; the
// running ingest takes it, refuses a bad one, and goes back when it is removed.
func TestLiveSetting(t *testing.T) {
	n := start(t)
	before := n.pid("ingest")
	config := configv1.NewConfigServiceClient(n.conn("config"))
	put := func(value string) {
		t.Helper()
		if _, err := config.Put(n.ctx(10*time.Second), &configv1.PutRequest{Service: "ingest", Name: "batch_delay", Value: value}); err != nil {
			t.Fatalf("Put %s: %v", value, err)
		}
	}
	fact := func() string {
		info, err := adminv1.NewAdminServiceClient(n.conn("ingest")).GetInfo(n.ctx(10*time.Second), &adminv1.GetInfoRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return info.GetFacts()["batch_delay"]
	}
	if got := fact(); got != "5ms" {
		t.Errorf("batch_delay = %s at the start, want 5ms", got)
	}
	put("12ms")
	testkit.Eventually(t, 5*time.Second, "batch_delay 12ms", func() bool { return fact() == "12ms" })
	put("5h")
	put("17ms")
	testkit.Eventually(t, 5*time.Second, "batch_delay 17ms", func() bool { return fact() == "17ms" })
	if _, err := config.Delete(n.ctx(10*time.Second), &configv1.DeleteRequest{Service: "ingest", Name: "batch_delay"}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 5*time.Second, "batch_delay 5ms", func() bool { return fact() == "5ms" })
	if now := n.pid("ingest"); now != before {
		t.Errorf("ingest's process changed from %d to %d", before, now)
	}
	if log := n.log("ingest"); !strings.Contains(log, "batch_delay: must be 0s to 1s, is 5h0m0s") {
		t.Errorf("ingest's log does not say why 5h was refused:\n%s", log)
	}
}
