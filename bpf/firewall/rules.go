package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Put sets the verdict for the source addresses in prefix, from the next frame
// on. A longer prefix inside it keeps its own verdict. Putting a rule that is
// there with this verdict changes nothing, not even its hits.
//
// Errors: ErrInvalid (verdict; prefix unset, with host bits, or IPv4-mapped
// IPv6), ErrFull, ErrClosed.
func (f *Firewall) Put(prefix netip.Prefix, v Verdict) error {
	if err := errors.Join(checkPrefix(prefix), v.check()); err != nil {
		return fmt.Errorf("put rule: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("put rule %v: %w", prefix, ErrClosed)
	}
	trie := f.trie(prefix)
	old, found := f.known[prefix]
	if found && old == v {
		return nil
	}
	if !found && f.used[trie] >= f.max {
		return fmt.Errorf("put rule %v: %w: %d of %d", prefix, ErrFull, f.used[trie], f.max)
	}
	err := trie.Put(key(prefix), filterRule{Verdict: filterVerdict(v)})
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("put rule %v: %w: limit %d: %w", prefix, ErrFull, f.max, err)
	}
	if err != nil {
		return fmt.Errorf("put rule %v: %w", prefix, err)
	}
	f.known[prefix] = v
	if !found {
		f.used[trie]++
	}
	return nil
}

// Delete removes the rule with exactly this prefix; its addresses fall to the
// next shorter prefix, or to the default. Errors: ErrInvalid, ErrNotFound,
// ErrClosed.
func (f *Firewall) Delete(prefix netip.Prefix) error {
	if err := checkPrefix(prefix); err != nil {
		return fmt.Errorf("delete rule: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("delete rule %v: %w", prefix, ErrClosed)
	}
	trie := f.trie(prefix)
	err := trie.Delete(key(prefix))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete rule: %w: %v", ErrNotFound, prefix)
	}
	if err != nil {
		return fmt.Errorf("delete rule %v: %w", prefix, err)
	}
	delete(f.known, prefix)
	f.used[trie]--
	return nil
}

// List returns all rules: IPv4 before IPv6, each by address, then by length.
// Errors: ErrClosed.
func (f *Firewall) List() ([]Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fmt.Errorf("list rules: %w", ErrClosed)
	}
	return f.list()
}

// Len returns the number of rules without reading them. Errors: ErrClosed.
func (f *Firewall) Len() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, fmt.Errorf("count rules: %w", ErrClosed)
	}
	return len(f.known), nil
}

func (f *Firewall) list() ([]Entry, error) {
	var (
		entries []Entry
		rule    filterRule
		k4      filterKey4
		k6      filterKey6
	)
	it := f.objs.Rules4.Iterate()
	for it.Next(&k4, &rule) {
		entries = append(entries, newEntry(k4.prefix(), rule))
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list IPv4 rules: %w", err)
	}
	it = f.objs.Rules6.Iterate()
	for it.Next(&k6, &rule) {
		entries = append(entries, newEntry(k6.prefix(), rule))
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list IPv6 rules: %w", err)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return a.Prefix.Compare(b.Prefix) })
	return entries, nil
}

// SetDefault sets the verdict for frames that no rule matches, from the next
// frame on. Errors: ErrInvalid, ErrClosed.
func (f *Firewall) SetDefault(v Verdict) error {
	if err := v.check(); err != nil {
		return fmt.Errorf("set default: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("set default: %w", ErrClosed)
	}
	return f.setDefault(v)
}

func (f *Firewall) setDefault(v Verdict) error {
	if err := f.objs.Settings.Put(uint32(0), filterConfig{DefaultVerdict: filterVerdict(v)}); err != nil {
		return fmt.Errorf("set default to %v: %w", v, err)
	}
	return nil
}

// Default returns the verdict for frames that no rule matches. Errors:
// ErrClosed.
func (f *Firewall) Default() (Verdict, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, fmt.Errorf("get default: %w", ErrClosed)
	}
	return f.getDefault()
}

func (f *Firewall) getDefault() (Verdict, error) {
	var c filterConfig
	if err := f.objs.Settings.Lookup(uint32(0), &c); err != nil {
		return 0, fmt.Errorf("get default: %w", err)
	}
	return Verdict(c.DefaultVerdict), nil
}

// initDefault sets the default of maps that never had one.
func (f *Firewall) initDefault(v Verdict) error {
	old, err := f.getDefault()
	if err != nil || old != 0 {
		return err
	}
	return f.setDefault(v)
}

func (f *Firewall) trie(p netip.Prefix) *ebpf.Map {
	if p.Addr().Is4() {
		return f.objs.Rules4
	}
	return f.objs.Rules6
}

func key(p netip.Prefix) any {
	if p.Addr().Is4() {
		return newKey4(p)
	}
	return newKey6(p)
}

func newEntry(p netip.Prefix, r filterRule) Entry {
	return Entry{Prefix: p, Verdict: Verdict(r.Verdict), Hits: r.Hits}
}
