package guard

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

const (
	// DefaultPage and MaxPage are entries a page of List.
	DefaultPage, MaxPage = 100, 1000
	// maxCIDR is the longest text of a prefix: eight groups of IPv6, the last
	// two as an IPv4 address (RFC 4291, 2.2), and its length.
	maxCIDR = len("0000:0000:0000:0000:0000:0000:255.255.255.255/128")
	// tokenPrefix keeps a page token apart from other base64.
	tokenPrefix = "after:"
)

// Status is what is guarded and how.
type Status struct {
	Interface string
	Mode      string // "native" or "generic"
	Entries   int    // of both families
	// MaxEntries is how many of IPv4, and again of IPv6, fit.
	MaxEntries uint32
	Counters   firewall.Stats
}

// ParseCIDR reads an IPv4 or IPv6 prefix without host bits. Errors:
// fault.ErrInvalid.
func ParseCIDR(cidr string) (netip.Prefix, error) {
	if cidr == "" || len(cidr) > maxCIDR {
		return netip.Prefix{}, fault.Invalid("cidr", "must be 1 to %d bytes, is %d", maxCIDR, len(cidr))
	}
	p, err := netip.ParsePrefix(cidr)
	switch {
	case err != nil:
		return netip.Prefix{}, fault.Invalid("cidr", "must be an IPv4 or IPv6 prefix as in 10.0.0.0/8 or fd00::/8, is %q", cidr)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fault.Invalid("cidr", "must not be IPv4 written as IPv6, which no packet carries, is %q", cidr)
	case p != p.Masked():
		return netip.Prefix{}, fault.Invalid("cidr", "must have no host bits, is %q; its network is %v", cidr, p.Masked())
	}
	return p, nil
}

// use calls fn with what is attached, and keeps it attached meanwhile.
func (g *Guard) use(fn func(Handle) error) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.handle == nil {
		return g.nothing()
	}
	return kinded(fn(g.handle))
}

// Put sets the verdict for packets from cidr, from the next packet on. Errors:
// fault.ErrInvalid, ErrExhausted (the table of its family is full),
// ErrPrecondition (nothing is attached).
func (g *Guard) Put(ctx context.Context, cidr string, v firewall.Verdict) error {
	p, err := ParseCIDR(cidr)
	if err != nil {
		return err
	}
	if err := g.use(func(h Handle) error { return h.Put(p, v) }); err != nil {
		return err
	}
	g.log.InfoContext(ctx, "entry put", "cidr", p, "verdict", v)
	return nil
}

// Delete removes the entry with exactly this prefix. Errors: fault.ErrInvalid,
// ErrNotFound, ErrPrecondition (nothing is attached).
func (g *Guard) Delete(ctx context.Context, cidr string) error {
	p, err := ParseCIDR(cidr)
	if err != nil {
		return err
	}
	if err := g.use(func(h Handle) error { return h.Delete(p) }); err != nil {
		return err
	}
	g.log.InfoContext(ctx, "entry deleted", "cidr", p)
	return nil
}

// SetDefault sets the verdict for packets that no entry names. Errors:
// fault.ErrInvalid, ErrPrecondition (nothing is attached).
func (g *Guard) SetDefault(ctx context.Context, v firewall.Verdict) error {
	err := g.use(func(h Handle) error {
		if err := h.SetDefault(v); err != nil {
			return err
		}
		g.report.SetFact("default", v.String())
		return nil
	})
	if err != nil {
		return err
	}
	g.log.InfoContext(ctx, "default set", "verdict", v)
	return nil
}

// List returns one page of the entries, IPv4 before IPv6, each by address, then
// by length, and the token of the next page, empty on the last. Size 0 means
// DefaultPage. An entry that is put or deleted between two pages changes
// nothing about the others. Errors: fault.ErrInvalid, ErrPrecondition (nothing
// is attached).
func (g *Guard) List(size int, token string) (page []firewall.Entry, next string, err error) {
	if size < 0 || size > MaxPage {
		return nil, "", fault.Invalid("page_size", "must be 0 to %d, is %d", MaxPage, size)
	}
	size = cmp.Or(size, DefaultPage)
	after, err := parseToken(token)
	if err != nil {
		return nil, "", err
	}
	var all []firewall.Entry
	if err := g.use(func(h Handle) (err error) {
		all, err = h.List()
		return err
	}); err != nil {
		return nil, "", err
	}
	start, found := slices.BinarySearchFunc(all, after, func(e firewall.Entry, p netip.Prefix) int { return e.Prefix.Compare(p) })
	if found {
		start++
	}
	page = all[start:]
	if len(page) > size {
		page = page[:size]
		next = pageToken(page[size-1].Prefix)
	}
	return page, next, nil
}

func pageToken(last netip.Prefix) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenPrefix + last.String()))
}

// parseToken returns the last prefix of the page before, for no token one that
// sorts before all.
func parseToken(token string) (netip.Prefix, error) {
	if token == "" {
		return netip.Prefix{}, nil
	}
	bad := fault.Invalid("page_token", "must be one that this call gave out, is none")
	if len(token) > 2*(len(tokenPrefix)+maxCIDR) {
		return netip.Prefix{}, bad
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return netip.Prefix{}, bad
	}
	cidr, ok := strings.CutPrefix(string(raw), tokenPrefix)
	if !ok {
		return netip.Prefix{}, bad
	}
	last, err := ParseCIDR(cidr)
	if err != nil {
		return netip.Prefix{}, bad
	}
	return last, nil
}

// Status tells what is guarded and how. Errors: fault.ErrPrecondition (nothing
// is attached).
func (g *Guard) Status() (Status, error) {
	var s Status
	err := g.use(func(h Handle) (err error) {
		s.Interface, s.Mode, s.MaxEntries = g.wanted, h.Mode(), cmp.Or(g.opts.MaxEntries, firewall.DefaultMaxEntries)
		if s.Entries, err = h.Len(); err != nil {
			return err
		}
		s.Counters, err = h.Stats()
		return err
	})
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	return s, nil
}
