package firewall_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	firewallv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/firewall/v1"

	bpf "github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/services/firewall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is denied does not arrive, also while the service is away; what it left
// is there when it is back; Detach takes it away.
func TestRealTraffic(t *testing.T) {
	pins := newBPFFS(t)
	w := newWire(t)
	// A probe tells a machine that cannot from a service that does not.
	probe, err := bpf.Open(bpf.Options{PinDir: pins, Interface: w.guarded})
	if err != nil {
		skipIfNotSupported(t, err)
		t.Fatal(err)
	}
	if err := probe.Detach(); err != nil {
		t.Fatal(err)
	}
	runDir := testkit.SocketDir(t)
	args := []string{"-pin_dir", pins, "-interface", w.guarded, "-max_entries", "16"}
	s := run(t, runDir, args...)
	info := s.info(t)
	if f := info.GetFacts(); len(info.GetDegradations()) != 0 || f["adopted"] != "false" || f["interface"] != w.guarded || f["mode"] == "" || f["default"] != "allow" {
		t.Fatalf("GetInfo = %v, want it attached", info)
	}
	if _, err := s.PutEntry(within(t), &firewallv1.PutEntryRequest{Cidr: foe + "/32", Verdict: firewallv1.Verdict_VERDICT_DENY}); err != nil {
		t.Fatal(err)
	}

	server := listen(t)
	friendly, hostile := w.dial(t, "udp4", friend), w.dial(t, "udp4", foe)
	// One wire keeps the order: what the friend sends after the foe arrives
	// first only if the foe's was dropped.
	blocked := func(when string) {
		t.Helper()
		write(t, hostile, "foe, "+when)
		write(t, friendly, "friend, "+when)
		if got := read(t, server); got != "friend, "+when {
			t.Errorf("first to arrive = %q, want the friend's, %s", got, when)
		}
	}
	blocked("attached")
	const echo = "\x08\x00\xe5\xca\x12\x34\x00\x01" // ICMP echo request with its checksum
	friendPing, foePing := w.dial(t, "ip4:icmp", friend), w.dial(t, "ip4:icmp", foe)
	write(t, foePing, echo)
	write(t, friendPing, echo)
	if read(t, friendPing) == "" {
		t.Errorf("no reply to the friend's echo request")
	}
	if err := foePing.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := foePing.Read(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("foe read %d bytes, %v, want no reply", n, err)
	}
	if got := s.packets(t); got["denied"] != 2 || got["passed"] < 2 {
		t.Errorf("GetStats: packets = %v, want 2 denied and 2 or more passed", got)
	}
	stats, err := s.admin.GetStats(within(t), &adminv1.GetStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"packets_total", "bytes_total", "entries", "attached"} {
		if !strings.Contains(stats.String(), "xinghuo_firewall_"+name) {
			t.Errorf("GetStats of the admin has no xinghuo_firewall_%s", name)
		}
	}

	s.stop()
	blocked("stopped")

	// Started again, also without an interface set, it adopts.
	for _, args := range [][]string{args, {"-pin_dir", pins, "-max_entries", "16"}} {
		s = run(t, runDir, args...)
		if info := s.info(t); len(info.GetDegradations()) != 0 || info.GetFacts()["adopted"] != "true" {
			t.Errorf("GetInfo = %v, want it adopted", info)
		}
		blocked("adopted")
		list, err := s.ListEntries(within(t), &firewallv1.ListEntriesRequest{})
		if err != nil || len(list.GetEntries()) != 1 || list.GetEntries()[0].GetCidr() != foe+"/32" {
			t.Errorf("ListEntries = %v, %v, want the foe", list, err)
		}
		s.stop()
	}

	// With settings that do not fit what is pinned it changes nothing, says so,
	// and can be told to let go.
	s = run(t, runDir, "-pin_dir", pins, "-interface", w.guarded, "-max_entries", "32")
	if d := s.info(t).GetDegradations(); len(d) != 1 || !strings.Contains(d[0].GetReason(), "detach first") {
		t.Errorf("degradations = %v, want the conflict", d)
	}
	blocked("in conflict")
	if _, err := s.Detach(within(t), &firewallv1.DetachRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(pins); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(pins) after Detach = %v, want %v", err, fs.ErrNotExist)
	}
	write(t, hostile, "foe, detached")
	if got := read(t, server); got != "foe, detached" {
		t.Errorf("arrived %q, want the foe's", got)
	}
	if _, err := s.Attach(within(t), &firewallv1.AttachRequest{Interface: w.guarded}); err != nil {
		t.Fatal(err)
	}
	if got := s.packets(t); got["denied"] != 0 || len(s.info(t).GetDegradations()) != 0 {
		t.Errorf("attached afresh: packets = %v, want none denied", got)
	}
	if _, err := s.Detach(within(t), &firewallv1.DetachRequest{}); err != nil {
		t.Fatal(err)
	}
}

// A service that cannot enforce serves, and says why and how to mend it.
func TestDegradedStart(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no interface set", []string{"-pin_dir", t.TempDir() + "/pins"}, "set `interface`"},
		{"no such interface", []string{"-pin_dir", t.TempDir() + "/pins", "-interface", "xhnone0"}, "no such interface: xhnone0"},
		{"no bpffs", []string{"-pin_dir", t.TempDir() + "/pins", "-interface", "lo"}, "not supported"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := run(t, testkit.SocketDir(t), tt.args...)
			info := s.info(t)
			d := info.GetDegradations()
			if len(d) != 1 || d[0].GetComponent() != "xdp" || !strings.Contains(d[0].GetReason(), tt.want) || info.GetFacts()["mode"] != "none" {
				t.Errorf("GetInfo = %v, want xdp degraded with %q", info, tt.want)
			}
			_, err := s.GetStats(within(t), &firewallv1.GetStatsRequest{})
			if st := status.Convert(err); st.Code() != codes.FailedPrecondition || !strings.Contains(st.Message(), tt.want) {
				t.Errorf("GetStats = %v, want FailedPrecondition with %q", err, tt.want)
			}
			s.stop()
		})
	}
}

func TestRunRefuses(t *testing.T) {
	var bad *settings.Error
	err := firewall.Run(t.Context(), []string{
		"-interface", "a/b", "-pin_dir", "pins", "-max_entries", "0", "-mode", "offload", "-default", "drop",
	}, io.Discard)
	if !errors.As(err, &bad) || len(bad.Faults) != 5 {
		t.Errorf("Run(five bad settings) = %v, want five faults", err)
	}
}
