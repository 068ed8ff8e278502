package firewall

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Kinds of failure. Every error of this package that has a kind wraps one.
var (
	// ErrNotSupported says that this machine or process cannot enforce: the
	// kernel lacks a feature, the process lacks CAP_BPF or CAP_NET_ADMIN, or
	// the pin directory is not on a bpffs. The text says which.
	ErrNotSupported = errors.New("not supported")
	// ErrNoInterface says that the network interface is not there.
	ErrNoInterface = errors.New("no such interface")
	// ErrFull says that a family's rules have reached Options.MaxEntries.
	ErrFull = errors.New("rules are full")
	// ErrNotFound says that no rule has exactly this prefix.
	ErrNotFound = errors.New("rule not found")
	// ErrInvalid says that an argument is out of its range.
	ErrInvalid = errors.New("invalid")
	// ErrConflict says that what is pinned or attached already does not fit
	// what was asked for; it is left as it is.
	ErrConflict = errors.New("conflict")
	// ErrClosed says that the Firewall was closed or detached before.
	ErrClosed = errors.New("firewall is closed")
)

const (
	// DefaultMaxEntries is the number of rules a family when Options names none.
	DefaultMaxEntries = 4096
	// maxMaxEntries caps kernel memory: about 80 bytes a rule, so 80 MiB a family.
	maxMaxEntries = 1 << 20
)

// Verdict is what happens to a frame. Its zero value is none.
type Verdict uint32

// The verdicts, numbered by the C side.
const (
	// Allow hands the frame to the network stack.
	Allow = Verdict(filterVerdictVERDICT_ALLOW)
	// Deny drops the frame.
	Deny = Verdict(filterVerdictVERDICT_DENY)
)

// String returns "allow", "deny", or the number of what is neither.
func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	default:
		return fmt.Sprintf("verdict(%d)", uint32(v))
	}
}

func (v Verdict) check() error {
	if v != Allow && v != Deny {
		return fmt.Errorf("%w: verdict is %v, want allow or deny", ErrInvalid, v)
	}
	return nil
}

// Entry is one rule as the kernel holds it.
type Entry struct {
	// Prefix is matched against a frame's source address; the longest wins.
	Prefix netip.Prefix
	// Verdict is Allow or Deny.
	Verdict Verdict
	// Hits counts the frames this rule judged since its verdict was last set.
	Hits uint64
}

// newSpec returns the programs and maps of a firewall that holds maxEntries
// rules a family, without asking the kernel anything.
func newSpec(maxEntries uint32) (*ebpf.CollectionSpec, error) {
	if maxEntries == 0 || maxEntries > maxMaxEntries {
		return nil, fmt.Errorf("%w: max entries is %d, want 1 to %d", ErrInvalid, maxEntries, maxMaxEntries)
	}
	spec, err := loadFilter()
	if err != nil {
		return nil, fmt.Errorf("read embedded program: %w", err)
	}
	for _, name := range []string{filterMapRules4, filterMapRules6} {
		// One to spare: before 6.13 a trie at its limit refuses to replace the
		// value of a key it holds. The limit itself is kept in Put.
		spec.Maps[name].MaxEntries = maxEntries + 1
	}
	return spec, nil
}

// checkPrefix refuses what would match other frames than its writer means.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("%w: prefix is not set", ErrInvalid)
	case p.Addr().Is4In6():
		return fmt.Errorf("%w: prefix %v is IPv4 written as IPv6, which no frame carries; write it as IPv4", ErrInvalid, p)
	case p != p.Masked():
		return fmt.Errorf("%w: prefix %v has host bits set; the network is %v", ErrInvalid, p, p.Masked())
	}
	return nil
}

func newKey4(p netip.Prefix) filterKey4 {
	return filterKey4{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}
}

func newKey6(p netip.Prefix) filterKey6 {
	return filterKey6{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}
}

func (k filterKey4) prefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4(k.Addr), int(k.Prefixlen))
}

func (k filterKey6) prefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16(k.Addr), int(k.Prefixlen))
}
