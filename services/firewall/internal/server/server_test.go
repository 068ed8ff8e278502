package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	firewallv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/firewall/v1"

	"github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/fakekernel"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/guard"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	allow = firewallv1.Verdict_VERDICT_ALLOW
	deny  = firewallv1.Verdict_VERDICT_DENY
)

type quiet struct{}

func (quiet) Degrade(string, string) {}
func (quiet) SetFact(string, string) {}

// dial serves a real guard of kernel k in memory.
func dial(t *testing.T, k *fakekernel.Kernel, iface string, maxEntries uint32) (firewallv1.FirewallServiceClient, *server.Server) {
	t.Helper()
	g := guard.New(k, firewall.Options{Interface: iface, MaxEntries: maxEntries, Default: firewall.Allow}, quiet{}, slog.New(slog.DiscardHandler))
	g.Start(t.Context())
	kinds := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, req)
		st, _ := fault.Status(err)
		return resp, st.Err()
	}
	var srv *server.Server
	conn := testkit.Serve(t, func(r grpc.ServiceRegistrar) { srv = server.Register(r, g) }, grpc.UnaryInterceptor(kinds))
	return firewallv1.NewFirewallServiceClient(conn), srv
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func put(t *testing.T, c firewallv1.FirewallServiceClient, v firewallv1.Verdict, cidrs ...string) {
	t.Helper()
	for _, cidr := range cidrs {
		if _, err := c.PutEntry(t.Context(), &firewallv1.PutEntryRequest{Cidr: cidr, Verdict: v}); err != nil {
			t.Fatalf("PutEntry(%s) = %v", cidr, err)
		}
	}
}

func TestEntries(t *testing.T) {
	k := fakekernel.New("eth0")
	c, _ := dial(t, k, "", 8)
	ctx := within(t)
	for range 2 { // the second changes nothing
		if resp, err := c.Attach(ctx, &firewallv1.AttachRequest{Interface: "eth0"}); err != nil || resp.GetMode() != "native" {
			t.Fatalf("Attach(eth0) = %v, %v, want native", resp, err)
		}
	}
	put(t, c, deny, "FD00::/8", "10.0.0.0/8", "192.0.2.1/32", "10.0.0.0/16")
	put(t, c, allow, "10.0.0.0/16")
	if _, err := c.DeleteEntry(ctx, &firewallv1.DeleteEntryRequest{Cidr: "192.0.2.1/32"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetDefault(ctx, &firewallv1.SetDefaultRequest{Verdict: deny}); err != nil {
		t.Fatal(err)
	}
	resp, err := c.ListEntries(ctx, &firewallv1.ListEntriesRequest{})
	want := &firewallv1.ListEntriesResponse{Entries: []*firewallv1.Entry{
		{Cidr: "10.0.0.0/8", Verdict: deny}, {Cidr: "10.0.0.0/16", Verdict: allow}, {Cidr: "fd00::/8", Verdict: deny},
	}}
	if err != nil || !proto.Equal(resp, want) {
		t.Errorf("ListEntries = %v, %v, want %v", resp, err, want)
	}
	if _, err := c.Detach(ctx, &firewallv1.DetachRequest{}); err != nil || k.Enforced() != "" {
		t.Errorf("Detach = %v, enforced on %q", err, k.Enforced())
	}
}

func TestPages(t *testing.T) {
	c, _ := dial(t, fakekernel.New("eth0"), "eth0", 1000)
	ctx := within(t)
	const n = 230
	for i := range n {
		put(t, c, deny, fmt.Sprintf("10.%d.0.0/16", i))
	}
	for _, tt := range []struct{ size, want, pages int }{{0, 100, 3}, {115, 115, 2}, {1000, n, 1}, {1, 1, n}} {
		seen, pages, token := make(map[string]bool), 0, ""
		for {
			resp, err := c.ListEntries(ctx, &firewallv1.ListEntriesRequest{PageSize: int32(tt.size), PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if pages == 0 && len(resp.GetEntries()) != tt.want {
				t.Errorf("page_size %d: first page holds %d, want %d", tt.size, len(resp.GetEntries()), tt.want)
			}
			for _, e := range resp.GetEntries() {
				seen[e.GetCidr()] = true
			}
			pages++
			if token = resp.GetNextPageToken(); token == "" {
				break
			}
		}
		if len(seen) != n || pages != tt.pages {
			t.Errorf("page_size %d: %d entries on %d pages, want %d on %d", tt.size, len(seen), pages, n, tt.pages)
		}
	}

	// The entry that a token names may be gone when it is used.
	first, err := c.ListEntries(ctx, &firewallv1.ListEntriesRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteEntry(ctx, &firewallv1.DeleteEntryRequest{Cidr: first.GetEntries()[1].GetCidr()}); err != nil {
		t.Fatal(err)
	}
	second, err := c.ListEntries(ctx, &firewallv1.ListEntriesRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	if err != nil || second.GetEntries()[0].GetCidr() != "10.2.0.0/16" {
		t.Errorf("second page = %v, %v, want 10.2.0.0/16 first", second, err)
	}
}

func TestRefusals(t *testing.T) {
	k := fakekernel.New("eth0", "eth1")
	c, _ := dial(t, k, "eth0", 2)
	put(t, c, deny, "10.0.0.0/8", "11.0.0.0/8")
	none, _ := dial(t, fakekernel.New("eth0"), "", 2)
	unable := fakekernel.New("eth0")
	unable.Break(firewall.ErrNotSupported)
	cannot, _ := dial(t, unable, "", 2)
	ctx := within(t)

	entry := func(c firewallv1.FirewallServiceClient, cidr string, v firewallv1.Verdict) func() (proto.Message, error) {
		return func() (proto.Message, error) {
			return c.PutEntry(ctx, &firewallv1.PutEntryRequest{Cidr: cidr, Verdict: v})
		}
	}
	attach := func(c firewallv1.FirewallServiceClient, iface string) func() (proto.Message, error) {
		return func() (proto.Message, error) {
			return c.Attach(ctx, &firewallv1.AttachRequest{Interface: iface})
		}
	}
	list := func(size int32, token string) func() (proto.Message, error) {
		return func() (proto.Message, error) {
			return c.ListEntries(ctx, &firewallv1.ListEntriesRequest{PageSize: size, PageToken: token})
		}
	}
	tests := []struct {
		name  string
		call  func() (proto.Message, error)
		want  codes.Code
		field string // of BadRequest; for other codes, text of the message
	}{
		{"no cidr", entry(c, "", deny), codes.InvalidArgument, "cidr"},
		{"address", entry(c, "10.0.0.1", deny), codes.InvalidArgument, "cidr"},
		{"host bits", entry(c, "10.0.0.1/8", deny), codes.InvalidArgument, "cidr"},
		{"mapped", entry(c, "::ffff:10.0.0.0/104", deny), codes.InvalidArgument, "cidr"},
		{"zone", entry(c, "fe80::%eth0/64", deny), codes.InvalidArgument, "cidr"},
		{"too long a prefix", entry(c, "10.0.0.0/33", deny), codes.InvalidArgument, "cidr"},
		{"too long a text", entry(c, strings.Repeat("1", 1<<20), deny), codes.InvalidArgument, "cidr"},
		{"no verdict", entry(c, "10.0.0.0/8", 0), codes.InvalidArgument, "verdict"},
		{"unknown verdict", entry(c, "10.0.0.0/8", 9), codes.InvalidArgument, "verdict"},
		{"full", entry(c, "12.0.0.0/8", deny), codes.ResourceExhausted, "2 of 2"},
		{"default without verdict", func() (proto.Message, error) {
			return c.SetDefault(ctx, &firewallv1.SetDefaultRequest{})
		}, codes.InvalidArgument, "verdict"},
		{"delete nothing", func() (proto.Message, error) {
			return c.DeleteEntry(ctx, &firewallv1.DeleteEntryRequest{Cidr: "13.0.0.0/8"})
		}, codes.NotFound, "13.0.0.0/8"},
		{"delete junk", func() (proto.Message, error) {
			return c.DeleteEntry(ctx, &firewallv1.DeleteEntryRequest{Cidr: "junk"})
		}, codes.InvalidArgument, "cidr"},
		{"negative page", list(-1, ""), codes.InvalidArgument, "page_size"},
		{"large page", list(1001, ""), codes.InvalidArgument, "page_size"},
		{"junk token", list(0, "zz!"), codes.InvalidArgument, "page_token"},
		{"token of no prefix", list(0, "YWZ0ZXI6ang"), codes.InvalidArgument, "page_token"}, // after:jx
		{"token without its mark", list(0, "MTAuMC4wLjAvOA"), codes.InvalidArgument, "page_token"},
		{"long token", list(0, strings.Repeat("A", 1<<20)), codes.InvalidArgument, "page_token"},
		{"attach nowhere", attach(c, ""), codes.InvalidArgument, "interface"},
		{"attach to a long name", attach(c, "0123456789abcdef"), codes.InvalidArgument, "interface"},
		{"attach to a path", attach(c, "../eth0"), codes.InvalidArgument, "interface"},
		{"attach elsewhere", attach(c, "eth1"), codes.FailedPrecondition, "eth0 is guarded"},
		{"attach to what is not there", attach(none, "eth9"), codes.NotFound, "eth9"},
		{"attach without rights", attach(cannot, "eth0"), codes.FailedPrecondition, "not supported"},
		{"put with nothing attached", entry(none, "10.0.0.0/8", deny), codes.FailedPrecondition, "call Attach"},
		{"detach with nothing attached", func() (proto.Message, error) {
			return none.Detach(ctx, &firewallv1.DetachRequest{})
		}, codes.FailedPrecondition, "nothing is attached"},
		{"list with nothing attached", func() (proto.Message, error) {
			return none.ListEntries(ctx, &firewallv1.ListEntriesRequest{})
		}, codes.FailedPrecondition, "nothing is attached"},
		{"stats with nothing attached", func() (proto.Message, error) {
			return none.GetStats(ctx, &firewallv1.GetStatsRequest{})
		}, codes.FailedPrecondition, "nothing is attached"},
		{"default with nothing attached", func() (proto.Message, error) {
			return none.SetDefault(ctx, &firewallv1.SetDefaultRequest{Verdict: deny})
		}, codes.FailedPrecondition, "nothing is attached"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.call()
			st := status.Convert(err)
			if st.Code() != tt.want {
				t.Fatalf("error = %v, want %v", err, tt.want)
			}
			if tt.want == codes.InvalidArgument {
				if got := firstField(st); got != tt.field {
					t.Errorf("field = %q, want %q; error %v", got, tt.field, err)
				}
			} else if !strings.Contains(st.Message(), tt.field) {
				t.Errorf("message = %q, want %q in it", st.Message(), tt.field)
			}
			if len(st.Message()) > 300 {
				t.Errorf("message is %d bytes long, want at most 300", len(st.Message()))
			}
		})
	}
	put(t, c, allow, "10.0.0.0/8", "fd00::/8") // replacing, and the other family, are no question of room
}

func firstField(st *status.Status) string {
	for _, d := range st.Details() {
		if br, ok := d.(*errdetails.BadRequest); ok && len(br.GetFieldViolations()) > 0 {
			return br.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

// sink keeps what Stats gives.
type sink map[string]float64

func (s sink) Gauge(name string, value float64, _ ...string) { s[name] = value }

func (s sink) Counters(name, _ string, byLabel map[string]uint64) {
	for label, n := range byLabel {
		s[name+" "+label] = float64(n)
	}
}

func TestStats(t *testing.T) {
	k := fakekernel.New("eth0")
	c, srv := dial(t, k, "eth0", 4)
	ctx := within(t)
	put(t, c, deny, "10.0.0.0/8", "fd00::/8")
	n := func(packets uint64) firewall.Count { return firewall.Count{Packets: packets, Bytes: 100 * packets} }
	k.Count(firewall.Stats{
		PassedRule: n(1), PassedDefault: n(2), PassedExempt: n(3),
		DroppedRule: n(4), DroppedDefault: n(5), DroppedMalformed: n(7),
	})
	resp, err := c.GetStats(ctx, &firewallv1.GetStatsRequest{})
	want := &firewallv1.GetStatsResponse{
		Interface: "eth0", Mode: "native", Entries: 2, MaxEntries: 4,
		Packets: map[string]uint64{"passed": 6, "denied": 4, "denied_default": 5, "malformed": 7},
		Bytes:   map[string]uint64{"passed": 600, "denied": 400, "denied_default": 500, "malformed": 700},
	}
	if err != nil || !proto.Equal(resp, want) {
		t.Errorf("GetStats = %v, %v, want %v", resp, err, want)
	}
	got := sink{}
	srv.Stats(got)
	for name, want := range map[string]float64{
		"xinghuo_firewall_attached": 1, "xinghuo_firewall_entries": 2,
		"xinghuo_firewall_packets_total passed": 6, "xinghuo_firewall_bytes_total malformed": 700,
	} {
		if got[name] != want {
			t.Errorf("Stats: %s = %v, want %v", name, got[name], want)
		}
	}
	if _, err := c.Detach(ctx, &firewallv1.DetachRequest{}); err != nil {
		t.Fatal(err)
	}
	got = sink{}
	srv.Stats(got)
	if v, ok := got["xinghuo_firewall_attached"]; v != 0 || !ok || len(got) != 1 {
		t.Errorf("Stats after Detach = %v, want attached 0 alone", got)
	}
}
