package firewall

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func TestKeysKeepThePrefix(t *testing.T) {
	for _, s := range []string{"0.0.0.0/0", "10.0.0.0/8", "192.0.2.128/25", "255.255.255.255/32"} {
		if got := newKey4(netip.MustParsePrefix(s)).prefix().String(); got != s {
			t.Errorf("newKey4(%s).prefix() = %s", s, got)
		}
	}
	for _, s := range []string{"::/0", "2001:db8::/32", "fe80::/10", "2001:db8::1/128"} {
		if got := newKey6(netip.MustParsePrefix(s)).prefix().String(); got != s {
			t.Errorf("newKey6(%s).prefix() = %s", s, got)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	tests := []struct {
		prefix  netip.Prefix
		verdict Verdict
	}{
		{netip.Prefix{}, Allow},
		{netip.MustParsePrefix("10.0.0.1/8"), Allow},
		{netip.MustParsePrefix("2001:db8::1/32"), Deny},
		{netip.MustParsePrefix("::ffff:10.0.0.0/104"), Deny},
		{netip.MustParsePrefix("10.0.0.0/8"), 0},
		{netip.MustParsePrefix("10.0.0.0/8"), 3},
	}
	for _, tt := range tests {
		if err := new(Firewall).Put(tt.prefix, tt.verdict); !errors.Is(err, ErrInvalid) {
			t.Errorf("Put(%v, %v) = %v, want %v", tt.prefix, tt.verdict, err, ErrInvalid)
		}
	}
}

func TestNewSpecBoundsEntries(t *testing.T) {
	for n, want := range map[uint32]error{0: ErrInvalid, 1: nil, maxMaxEntries: nil, maxMaxEntries + 1: ErrInvalid} {
		if _, err := newSpec(n); !errors.Is(err, want) {
			t.Errorf("newSpec(%d) = %v, want %v", n, err, want)
		}
	}
}

func TestListPutDelete(t *testing.T) {
	f := loaded(t, 16)
	put(t, f, Deny, "::/0", "2001:db8::/32", "10.0.0.0/8", "10.0.0.0/16", "0.0.0.0/0")
	put(t, f, Allow, "10.0.0.0/16") // changes the verdict in place
	if run(t, f, frame(etherIPv4, ip4("10.1.1.1"))) {
		t.Error("10.1.1.1 passed, want it dropped")
	}
	put(t, f, Deny, "10.0.0.0/8") // as it is: hits stay

	got, err := f.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Verdict: Deny},
		{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Verdict: Deny, Hits: 1},
		{Prefix: netip.MustParsePrefix("10.0.0.0/16"), Verdict: Allow},
		{Prefix: netip.MustParsePrefix("::/0"), Verdict: Deny},
		{Prefix: netip.MustParsePrefix("2001:db8::/32"), Verdict: Deny},
	}
	if !slices.Equal(got, want) {
		t.Errorf("List() = %v, want %v", got, want)
	}

	for _, p := range []string{"10.0.0.0/16", "::/0"} {
		if err := f.Delete(netip.MustParsePrefix(p)); err != nil {
			t.Error(err)
		}
	}
	// A shorter and a longer prefix are there, but not these.
	for _, p := range []string{"10.0.0.0/16", "10.0.0.0/12", "::/0", "2001:db8::/64"} {
		if err := f.Delete(netip.MustParsePrefix(p)); !errors.Is(err, ErrNotFound) {
			t.Errorf("Delete(%s) = %v, want %v", p, err, ErrNotFound)
		}
	}
}

func TestFull(t *testing.T) {
	f := loaded(t, 2)
	put(t, f, Deny, "10.0.0.0/8", "11.0.0.0/8", "2001:db8::/32")
	if err := f.Put(netip.MustParsePrefix("12.0.0.0/8"), Deny); !errors.Is(err, ErrFull) {
		t.Errorf("third Put = %v, want %v", err, ErrFull)
	}
	put(t, f, Allow, "11.0.0.0/8") // a change takes no room
	put(t, f, Deny, "fd00::/8")    // each family has its own
	if err := f.Delete(netip.MustParsePrefix("10.0.0.0/8")); err != nil {
		t.Fatal(err)
	}
	put(t, f, Deny, "12.0.0.0/8")
}

func TestClosed(t *testing.T) {
	f := loaded(t, 1)
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Fatalf("Close() twice = %v", err)
	}
	p := netip.MustParsePrefix("10.0.0.0/8")
	_, listErr := f.List()
	_, statsErr := f.Stats()
	_, defaultErr := f.Default()
	for op, err := range map[string]error{
		"Put": f.Put(p, Deny), "Delete": f.Delete(p), "SetDefault": f.SetDefault(Deny), "Detach": f.Detach(),
		"Check": f.Check(), "List": listErr, "Stats": statsErr, "Default": defaultErr,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close = %v, want %v", op, err, ErrClosed)
		}
	}
}
