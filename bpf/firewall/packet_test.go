package firewall

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

const (
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherVLAN  = 0x8100
	etherIPv6  = 0x86DD
	etherQinQ  = 0x88A8
	etherLLDP  = 0x88CC
	protoUDP   = 17
	protoICMP6 = 58
)

// frame returns an Ethernet frame with the given VLAN tags, outermost first.
func frame(proto uint16, payload []byte, tags ...uint16) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for _, tpid := range tags {
		b = binary.BigEndian.AppendUint16(b, tpid)
		b = binary.BigEndian.AppendUint16(b, 100) // VLAN 100
	}
	b = binary.BigEndian.AppendUint16(b, proto)
	return append(b, payload...)
}

// ip4 returns an IPv4 header and 8 bytes behind it.
func ip4(src string) []byte {
	b := make([]byte, 28)
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8], b[9] = 64, protoUDP
	a := netip.MustParseAddr(src).As4()
	copy(b[12:], a[:])
	copy(b[16:], []byte{198, 51, 100, 1})
	return b
}

// ip6 returns an IPv6 header with payload behind it.
func ip6(src string, next, hops byte, payload ...byte) []byte {
	b := make([]byte, 40)
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, hops
	a := netip.MustParseAddr(src).As16()
	copy(b[8:], a[:])
	b[24], b[39] = 0xfd, 1
	return append(b, payload...)
}

// with returns a copy of b with one byte changed.
func with(b []byte, at int, v byte) []byte {
	c := append([]byte(nil), b...)
	c[at] = v
	return c
}

// loaded returns a firewall in the kernel that is attached to nothing.
func loaded(t *testing.T, maxEntries uint32) *Firewall {
	t.Helper()
	f := &Firewall{iface: "none", max: maxEntries}
	if err := f.load(maxEntries, ""); err != nil {
		skipIfNotSupported(t, err)
		t.Fatalf("load(%d) = %v", maxEntries, err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func put(t *testing.T, f *Firewall, v Verdict, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		if err := f.Put(netip.MustParsePrefix(p), v); err != nil {
			t.Fatal(err)
		}
	}
}

func stats(t *testing.T, f *Firewall) Stats {
	t.Helper()
	s, err := f.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run gives the program one frame and returns whether it passed.
func run(t *testing.T, f *Firewall, data []byte) bool {
	t.Helper()
	action, err := f.objs.XhFilter.Run(&ebpf.RunOptions{Data: data})
	if err != nil {
		skipIfNotSupported(t, supported("run program", err))
		t.Fatal(err)
	}
	const drop, pass = 1, 2
	if action != drop && action != pass {
		t.Fatalf("XDP action = %d, want %d or %d", action, drop, pass)
	}
	return action == pass
}

func TestGoldenPackets(t *testing.T) {
	f := loaded(t, 64)
	put(t, f, Allow, "10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32", "2001:db8:bad::1/128")
	put(t, f, Deny, "10.1.0.0/16", "192.0.2.128/25", "2001:db8:bad::/48", "fe80::bad/128")

	var (
		rulePass  = func(c Count) Stats { return Stats{PassedRule: c} }
		ruleDrop  = func(c Count) Stats { return Stats{DroppedRule: c} }
		exempt    = func(c Count) Stats { return Stats{PassedExempt: c} }
		malformed = func(c Count) Stats { return Stats{DroppedMalformed: c} }
		byDefault = func(Count) Stats { return Stats{} } // filled in for each default
	)
	udp6 := make([]byte, 8)
	options := append(with(ip4("10.9.9.9"), 0, 0x46), 0, 0, 0, 0)
	tests := []struct {
		name  string
		frame []byte
		want  func(Count) Stats
	}{
		{"v4 allowed", frame(etherIPv4, ip4("10.9.9.9")), rulePass},
		{"v4 denied by the longer prefix", frame(etherIPv4, ip4("10.1.9.9")), ruleDrop},
		{"v4 allowed by the longest prefix", frame(etherIPv4, ip4("10.1.2.3")), rulePass},
		{"v4 beside the longest prefix", frame(etherIPv4, ip4("10.1.2.2")), ruleDrop},
		{"v4 denied", frame(etherIPv4, ip4("192.0.2.129")), ruleDrop},
		{"v4 just outside a prefix", frame(etherIPv4, ip4("192.0.2.127")), byDefault},
		{"v4 no rule", frame(etherIPv4, ip4("203.0.113.1")), byDefault},
		{"v4 source 0.0.0.0", frame(etherIPv4, ip4("0.0.0.0")), byDefault},
		{"v4 with options", frame(etherIPv4, options), rulePass},
		{"v4 later fragment", frame(etherIPv4, with(ip4("10.1.9.9"), 7, 9)), ruleDrop},
		{"v4 header alone", frame(etherIPv4, ip4("10.9.9.9")[:20]), rulePass},
		{"v6 allowed", frame(etherIPv6, ip6("2001:db8::7", protoUDP, 64, udp6...)), rulePass},
		{"v6 denied by the longer prefix", frame(etherIPv6, ip6("2001:db8:bad::7", protoUDP, 64, udp6...)), ruleDrop},
		{"v6 allowed by the longest prefix", frame(etherIPv6, ip6("2001:db8:bad::1", protoUDP, 64, udp6...)), rulePass},
		{"v6 no rule", frame(etherIPv6, ip6("2001:db9::1", protoUDP, 64, udp6...)), byDefault},
		{"v6 mapped address is not judged by v4 rules", frame(etherIPv6, ip6("::ffff:10.9.9.9", protoUDP, 64, udp6...)), byDefault},
		{"v6 header alone", frame(etherIPv6, ip6("2001:db8::7", 59, 64)), rulePass},
		{"v6 hop-by-hop header", frame(etherIPv6, ip6("2001:db8:bad::7", 0, 64, 58, 0, 5, 2, 0, 0, 1, 0)), ruleDrop},

		{"vlan v4 denied", frame(etherIPv4, ip4("10.1.9.9"), etherVLAN), ruleDrop},
		{"vlan v6 allowed", frame(etherIPv6, ip6("2001:db8::7", protoUDP, 64, udp6...), etherVLAN), rulePass},
		{"802.1ad tag alone", frame(etherIPv4, ip4("10.1.9.9"), etherQinQ), ruleDrop},
		{"qinq v4 denied", frame(etherIPv4, ip4("10.1.9.9"), etherQinQ, etherVLAN), ruleDrop},
		{"two 802.1q tags, v6 denied", frame(etherIPv6, ip6("2001:db8:bad::7", protoUDP, 64, udp6...), etherVLAN, etherVLAN), ruleDrop},
		{"three tags", frame(etherIPv4, ip4("10.9.9.9"), etherQinQ, etherVLAN, etherVLAN), malformed},
		{"vlan arp", frame(etherARP, make([]byte, 28), etherVLAN), exempt},
		{"tag cut short", frame(etherVLAN, []byte{0, 100}), malformed},
		{"second tag cut short", frame(etherVLAN, []byte{0}, etherQinQ), malformed},

		{"arp", frame(etherARP, make([]byte, 28)), exempt},
		{"lldp", frame(etherLLDP, make([]byte, 46)), exempt},
		{"802.3 length, not a type", frame(46, make([]byte, 46)), exempt},
		{"Ethernet header alone", frame(etherARP, nil), exempt},

		{"router solicitation", frame(etherIPv6, ip6("fe80::bad", protoICMP6, 255, 133, 0)), exempt},
		{"router advertisement", frame(etherIPv6, ip6("fe80::bad", protoICMP6, 255, 134, 0)), exempt},
		{"neighbour solicitation from ::", frame(etherIPv6, ip6("::", protoICMP6, 255, 135, 0)), exempt},
		{"neighbour advertisement from a denied host", frame(etherIPv6, ip6("2001:db8:bad::7", protoICMP6, 255, 136, 0)), exempt},
		{"redirect in a vlan", frame(etherIPv6, ip6("fe80::bad", protoICMP6, 255, 137, 0), etherVLAN), exempt},
		{"solicitation that a router forwarded", frame(etherIPv6, ip6("fe80::bad", protoICMP6, 254, 135, 0)), ruleDrop},
		{"echo request", frame(etherIPv6, ip6("fe80::bad", protoICMP6, 255, 128, 0)), ruleDrop},
		{"type below discovery", frame(etherIPv6, ip6("fe80::bad", protoICMP6, 255, 132, 0)), ruleDrop},
		{"type above discovery", frame(etherIPv6, ip6("fe80::bad", protoICMP6, 255, 138, 0)), ruleDrop},
		{"icmpv6 with no type", frame(etherIPv6, ip6("fe80::bad", protoICMP6, 255)), ruleDrop},
		{"udp that looks like discovery", frame(etherIPv6, ip6("fe80::bad", protoUDP, 255, 135, 0)), ruleDrop},

		{"v4 nothing behind Ethernet", frame(etherIPv4, nil), malformed},
		{"v4 header cut short", frame(etherIPv4, ip4("10.9.9.9")[:19]), malformed},
		{"v4 options cut short", frame(etherIPv4, with(ip4("10.9.9.9"), 0, 0x4f)), malformed},
		{"v4 header length below 20", frame(etherIPv4, with(ip4("10.9.9.9"), 0, 0x44)), malformed},
		{"v4 version 6", frame(etherIPv4, with(ip4("10.9.9.9"), 0, 0x65)), malformed},
		{"v6 header cut short", frame(etherIPv6, ip6("2001:db8::7", protoUDP, 64)[:39]), malformed},
		{"v6 version 4", frame(etherIPv6, with(ip6("2001:db8::7", protoUDP, 64), 0, 0x45)), malformed},
		{"vlan v4 header cut short", frame(etherIPv4, ip4("10.9.9.9")[:19], etherVLAN), malformed},
	}
	for _, def := range []Verdict{Allow, Deny} {
		if err := f.SetDefault(def); err != nil {
			t.Fatal(err)
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("default %v/%s", def, tt.name), func(t *testing.T) {
				count := Count{Packets: 1, Bytes: uint64(len(tt.frame))}
				want := tt.want(count)
				if want == (Stats{}) && def == Allow {
					want.PassedDefault = count
				} else if want == (Stats{}) {
					want.DroppedDefault = count
				}

				before := stats(t, f)
				passed := run(t, f, tt.frame)
				if got := minus(stats(t, f), before); got != want {
					t.Errorf("counted %+v, want %+v", got, want)
				}
				if wantPass := want.Passed() == count; passed != wantPass {
					t.Errorf("passed = %v, want %v", passed, wantPass)
				}
			})
		}
	}
}

func minus(a, b Stats) Stats {
	sub := func(c, d Count) Count { return Count{c.Packets - d.Packets, c.Bytes - d.Bytes} }
	return Stats{
		PassedRule:       sub(a.PassedRule, b.PassedRule),
		PassedDefault:    sub(a.PassedDefault, b.PassedDefault),
		PassedExempt:     sub(a.PassedExempt, b.PassedExempt),
		DroppedRule:      sub(a.DroppedRule, b.DroppedRule),
		DroppedDefault:   sub(a.DroppedDefault, b.DroppedDefault),
		DroppedMalformed: sub(a.DroppedMalformed, b.DroppedMalformed),
	}
}

// Maps that nobody gave a default to must not let traffic in.
func TestUnsetDefaultDenies(t *testing.T) {
	f := loaded(t, 1)
	if run(t, f, frame(etherIPv4, ip4("192.0.2.1"))) {
		t.Error("a frame passed before a default was set")
	}
}

// The kernel's verdict is that of a plain longest-prefix search, whatever is
// put and deleted.
func TestAgainstModel(t *testing.T) {
	f := loaded(t, 512)
	if err := f.SetDefault(Deny); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	// Few distinct bits make prefixes and sources meet often.
	addr := func() netip.Addr {
		if rnd.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(rnd.IntN(4)), byte(rnd.IntN(4)) << 6, byte(rnd.IntN(256))})
		}
		a := netip.MustParseAddr("2001:db8::").As16()
		a[5], a[15] = byte(rnd.IntN(4)), byte(rnd.IntN(256))
		return netip.AddrFrom16(a)
	}
	model := map[netip.Prefix]Verdict{}
	judge := func(a netip.Addr) Verdict {
		for bits := a.BitLen(); bits >= 0; bits-- {
			if v, ok := model[netip.PrefixFrom(a, bits).Masked()]; ok {
				return v
			}
		}
		return Deny
	}
	for range 300 {
		a := addr()
		p := netip.PrefixFrom(a, rnd.IntN(a.BitLen()+1)).Masked()
		if _, ok := model[p]; ok && rnd.IntN(2) == 0 {
			delete(model, p)
			if err := f.Delete(p); err != nil {
				t.Fatal(err)
			}
		} else {
			model[p] = Allow + Verdict(rnd.IntN(2))
			put(t, f, model[p], p.String())
		}
		for range 8 {
			src := addr()
			data := frame(etherIPv4, ip4("0.0.0.0"))
			if src.Is6() {
				data = frame(etherIPv6, ip6(src.String(), protoUDP, 64))
			} else {
				copy(data[14+12:], src.AsSlice())
			}
			if got, want := run(t, f, data), judge(src) == Allow; got != want {
				t.Fatalf("seed %d: source %v passed = %v, want %v; rules %v", seed, src, got, want, model)
			}
		}
	}
}
