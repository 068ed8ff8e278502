package firewall

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens a UDP socket at the near end.
func (w wire) listen(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	inNS(t, w.near, func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr), Port: 7000})
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// dial opens a socket at the far end that sends from src to dst.
func (w wire) dial(t *testing.T, network, src, dst string) net.Conn {
	t.Helper()
	var c net.Conn
	inNS(t, w.far, func() (err error) {
		if network == "udp" {
			c, err = net.DialUDP(network, &net.UDPAddr{IP: net.ParseIP(src)}, &net.UDPAddr{IP: net.ParseIP(dst), Port: 7000})
		} else {
			c, err = net.DialIP(network, &net.IPAddr{IP: net.ParseIP(src)}, &net.IPAddr{IP: net.ParseIP(dst)})
		}
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func write(t *testing.T, c net.Conn, payload string) {
	t.Helper()
	if _, err := c.Write([]byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// read returns the next datagram.
func read(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 1500)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func hits(t *testing.T, f *Firewall, prefix string) uint64 {
	t.Helper()
	entries, err := f.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Prefix == netip.MustParsePrefix(prefix) {
			return e.Hits
		}
	}
	t.Fatalf("no rule %s in %v", prefix, entries)
	return 0
}

func TestRealTraffic(t *testing.T) {
	const (
		echo4 = "\x08\x00\xe5\xca\x12\x34\x00\x01" // ICMP echo request with its checksum
		echo6 = "\x80\x00\x00\x00\x12\x34\x00\x01" // the kernel fills in ICMPv6's
	)
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		t.Run(string(mode), func(t *testing.T) {
			pins := newBPFFS(t)
			w := newWire(t)
			f := w.mustOpen(t, Options{PinDir: pins, Mode: mode})
			if f.Mode() != string(mode) || f.Adopted() || f.ModeReason() == "" {
				t.Errorf("Mode() = %q, Adopted() = %v, ModeReason() = %q", f.Mode(), f.Adopted(), f.ModeReason())
			}
			put(t, f, Deny, foe4+"/32", foe6+"/128")
			if err := f.Check(); err != nil {
				t.Errorf("Check() = %v", err)
			}

			tests := []struct{ name, network, near, friend, foe, deny string }{
				{"v4", "ip4:icmp", near4, friend4, foe4, foe4 + "/32"},
				{"v6", "ip6:ipv6-icmp", near6, friend6, foe6, foe6 + "/128"},
			}
			for _, tt := range tests {
				server := w.listen(t, tt.near)
				write(t, w.dial(t, "udp", tt.foe, tt.near), "foe")
				eventually(t, "foe's UDP is dropped", func() bool { return hits(t, f, tt.deny) == 1 })
				write(t, w.dial(t, "udp", tt.friend, tt.near), "friend")
				if got := read(t, server); got != "friend" {
					t.Errorf("%s: first datagram to arrive = %q, want the friend's", tt.name, got)
				}

				echo := echo4
				if tt.name == "v6" {
					echo = echo6
				}
				foe, friend := w.dial(t, tt.network, tt.foe, tt.near), w.dial(t, tt.network, tt.friend, tt.near)
				write(t, foe, echo)
				eventually(t, "foe's ICMP is dropped", func() bool { return hits(t, f, tt.deny) == 2 })
				write(t, friend, echo)
				if reply := read(t, friend); reply == "" {
					t.Errorf("%s: no reply to the friend's echo request", tt.name)
				}
				if err := foe.SetReadDeadline(time.Now()); err != nil {
					t.Fatal(err)
				}
				if n, err := foe.Read(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: foe read %d bytes, %v, want no reply", tt.name, n, err)
				}
			}
		})
	}
}

// Every frame sent is counted once, and a change takes hold at the next one.
func TestCountersSumToSent(t *testing.T) {
	const n = 5000
	pins := newBPFFS(t)
	w := newWire(t)
	f := w.mustOpen(t, Options{PinDir: pins})
	put(t, f, Deny, foe4+"/32")
	friend, foe := w.dial(t, "udp", friend4, near4), w.dial(t, "udp", foe4, near4)
	server := w.listen(t, near4)
	write(t, friend, "meet") // ARP is done after this
	read(t, server)

	const length = 14 + 20 + 8 + 100
	payload := string(make([]byte, 100))
	before := stats(t, f)
	for i := range n {
		write(t, foe, payload)
		write(t, friend, payload)
		if i%50 != 49 {
			continue // a batch is less than the 256 frames that a veth queues
		}
		// ARP may be asked again at any time; it lands in PassedExempt.
		eventually(t, "all frames are counted", func() bool {
			s := minus(stats(t, f), before)
			return s.Seen().Packets-s.PassedExempt.Packets >= 2*uint64(i+1)
		})
	}
	got := minus(stats(t, f), before)
	got.PassedExempt = Count{}
	if want := (Stats{DroppedRule: Count{n, n * length}, PassedDefault: Count{n, n * length}}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if got := hits(t, f, foe4+"/32"); got != n {
		t.Errorf("hits = %d, want %d", got, n)
	}

	if err := f.SetDefault(Deny); err != nil {
		t.Fatal(err)
	}
	put(t, f, Allow, foe4+"/32")
	before = stats(t, f)
	write(t, friend, payload)
	write(t, foe, payload)
	eventually(t, "the new verdicts are counted", func() bool {
		s := minus(stats(t, f), before)
		return s.DroppedDefault.Packets == 1 && s.PassedRule.Packets == 1
	})
}

// A denied sender never gets through while the firewall is closed and opened
// again, and rules, default and counters are those from before.
func TestAdoptionLeavesNoGap(t *testing.T) {
	pins := newBPFFS(t)
	w := newWire(t)
	opts := Options{PinDir: pins, Default: Deny}
	f := w.mustOpen(t, opts)
	put(t, f, Allow, friend4+"/32")
	put(t, f, Deny, foe4+"/32")
	server := w.listen(t, near4)
	friend, foe := w.dial(t, "udp", friend4, near4), w.dial(t, "udp", foe4, near4)
	write(t, friend, "meet")
	read(t, server)

	lostBefore := w.lost(t)
	stop, sent := make(chan struct{}), make(chan uint64)
	go func() {
		var n uint64
		for {
			select {
			case <-stop:
				sent <- n
				return
			default:
			}
			if _, err := foe.Write([]byte("foe")); err == nil {
				n++
			}
		}
	}()
	opts.Default = Allow // an adopted firewall keeps its own
	var programs []uint32
	for range 20 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		before := f
		f = w.mustOpen(t, opts)
		if !f.Adopted() || f.Mode() != before.Mode() {
			t.Fatalf("Adopted() = %v, Mode() = %q, want true, %q", f.Adopted(), f.Mode(), before.Mode())
		}
		info, err := f.link.Info()
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, uint32(info.Program))
	}
	close(stop)
	n := <-sent - (w.lost(t) - lostBefore)
	if programs[0] == programs[len(programs)-1] {
		t.Errorf("program %d was never replaced", programs[0])
	}
	if d, err := f.Default(); d != Deny || err != nil {
		t.Errorf("Default() = %v, %v, want %v", d, err, Deny)
	}
	t.Logf("%d frames arrived during %d adoptions", n, len(programs))
	eventually(t, "all of the foe's frames are dropped", func() bool { return hits(t, f, foe4+"/32") == n })
	write(t, friend, "friend")
	if got := read(t, server); got != "friend" {
		t.Errorf("first datagram to arrive = %q, want the friend's", got)
	}
	if s := stats(t, f); s.DroppedRule.Packets != n {
		t.Errorf("DroppedRule = %d packets, want %d", s.DroppedRule.Packets, n)
	}
}

func TestDetachRemovesEverything(t *testing.T) {
	pins := newBPFFS(t)
	w := newWire(t)
	f := w.mustOpen(t, Options{PinDir: pins})
	put(t, f, Deny, foe4+"/32")
	inNS(t, w.near, func() error {
		if name, found, err := Pinned(pins); name != guarded || !found || err != nil {
			t.Errorf("Pinned() = %q, %v, %v, want %s", name, found, err, guarded)
		}
		return nil
	})
	// One that closed before holds nothing back.
	second := w.mustOpen(t, Options{PinDir: pins})
	if err := f.Detach(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(pins); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(pin directory) = %v, want %v", err, fs.ErrNotExist)
	}
	if err := second.Check(); !errors.Is(err, ErrNoInterface) {
		t.Errorf("Check() on another handle = %v, want %v", err, ErrNoInterface)
	}
	server := w.listen(t, near4)
	write(t, w.dial(t, "udp", foe4, near4), "foe")
	if got := read(t, server); got != "foe" {
		t.Errorf("after Detach arrived %q, want the foe's", got)
	}
	if err := Remove(pins); err != nil {
		t.Errorf("Remove of nothing = %v", err)
	}
	if name, found, err := Pinned(pins); name != "" || found || err != nil {
		t.Errorf("Pinned() after Detach = %q, %v, %v, want nothing", name, found, err)
	}

	fresh := w.mustOpen(t, Options{PinDir: pins})
	if entries, err := fresh.List(); len(entries) != 0 || err != nil || fresh.Adopted() {
		t.Errorf("Open after Detach: List() = %v, %v, Adopted() = %v", entries, err, fresh.Adopted())
	}
}

// An interface that went and came back is guarded again with the same rules.
func TestInterfaceComesBack(t *testing.T) {
	pins := newBPFFS(t)
	w := newWire(t)
	f := w.mustOpen(t, Options{PinDir: pins})
	put(t, f, Deny, foe4+"/32")
	ip(t, "-n "+w.near+" link del "+guarded)
	if err := f.Check(); !errors.Is(err, ErrNoInterface) {
		t.Errorf("Check() without the interface = %v, want %v", err, ErrNoInterface)
	}
	if _, err := w.open(t, Options{PinDir: pins}); !errors.Is(err, ErrNoInterface) {
		t.Errorf("Open without the interface = %v, want %v", err, ErrNoInterface)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if name, found, err := Pinned(pins); name != "" || !found || err != nil {
		t.Errorf("Pinned() without the interface = %q, %v, %v, want pins of none", name, found, err)
	}

	w.plug(t)
	f = w.mustOpen(t, Options{PinDir: pins})
	write(t, w.dial(t, "udp", foe4, near4), "foe")
	eventually(t, "foe's UDP is dropped", func() bool { return hits(t, f, foe4+"/32") == 1 })
}

func TestOpenConflicts(t *testing.T) {
	pins := newBPFFS(t)
	w := newWire(t)
	f := w.mustOpen(t, Options{PinDir: pins, Mode: ModeGeneric})
	put(t, f, Deny, foe4+"/32")
	tests := []struct {
		name string
		opts Options
		want error
	}{
		{"another interface", Options{PinDir: pins, Interface: "lo"}, ErrConflict},
		{"another mode", Options{PinDir: pins, Mode: ModeNative}, ErrConflict},
		{"another size", Options{PinDir: pins, MaxEntries: 8}, ErrConflict},
		{"another firewall's interface", Options{PinDir: pins + "2"}, ErrConflict},
		{"no such interface", Options{PinDir: pins, Interface: "xhnone0"}, ErrNoInterface},
		{"no pin directory", Options{}, ErrInvalid},
		{"dot in pin directory", Options{PinDir: pins + ".d"}, ErrInvalid},
		{"not a bpffs", Options{PinDir: t.TempDir() + "/pins"}, ErrNotSupported},
		{"bad mode", Options{PinDir: pins, Mode: "offload"}, ErrInvalid},
		{"bad default", Options{PinDir: pins, Default: 9}, ErrInvalid},
		{"too many entries", Options{PinDir: pins, MaxEntries: maxMaxEntries + 1}, ErrInvalid},
	}
	for _, tt := range tests {
		if _, err := w.open(t, tt.opts); !errors.Is(err, tt.want) {
			t.Errorf("Open, %s = %v, want %v", tt.name, err, tt.want)
		} else {
			t.Log(err)
		}
	}
	if _, err := os.Stat(pins + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(pins of a refused Open) = %v, want %v", err, fs.ErrNotExist)
	}
	// A refusal changes nothing.
	write(t, w.dial(t, "udp", foe4, near4), "foe")
	eventually(t, "foe's UDP is dropped", func() bool { return hits(t, f, foe4+"/32") == 1 })

	if err := os.Remove(pins + "/" + filterMapRules4); err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(t, Options{PinDir: pins}); !errors.Is(err, ErrConflict) {
		t.Errorf("Open without a map's pin = %v, want %v", err, ErrConflict)
	}
}

func TestOpenWithoutCapabilities(t *testing.T) {
	pins := newBPFFS(t)
	err := onOwnThread(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capset(&header, &make([]unix.CapUserData, 2)[0]); err != nil {
			return err
		}
		_, err := Open(Options{PinDir: pins, Interface: "lo"})
		return err
	})
	if !errors.Is(err, ErrNotSupported) {
		t.Errorf("Open without CAP_BPF = %v, want %v", err, ErrNotSupported)
	}
	t.Log(err)
}
