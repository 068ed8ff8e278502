package keyring

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

func counterOf(box []byte) uint64 { return binary.BigEndian.Uint64(box[10:18]) }

// Whatever order of seals, crashes, failed writes, orderly stops and second
// processes: no counter twice, so no nonce twice.
func TestNoncesNeverRepeat(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "p")
		if err != nil {
			rt.Fatal(err)
		}
		p := newPlace(t)
		p.dir, p.master = filepath.Join(dir, "keys"), filepath.Join(dir, "master.key")
		crash := errors.New("crash")
		rings := []*Keyring{p.open(t), p.open(t)} // two processes, as in a hand-over
		mustCreate(t, rings[0], "k", KindSM4)
		seen := make(map[uint64]bool)
		use := func(k *Keyring, n int) {
			boxes, err := k.Seal(t.Context(), "k", make([]Item, n))
			if err != nil && !errors.Is(err, crash) {
				rt.Fatalf("Seal = %v", err)
			}
			for _, box := range boxes {
				if seen[counterOf(box)] {
					rt.Fatalf("counter %d came twice", counterOf(box))
				}
				seen[counterOf(box)] = true
			}
		}
		which := rapid.IntRange(0, 1)
		rt.Repeat(map[string]func(*rapid.T){
			"seal": func(rt *rapid.T) { use(rings[which.Draw(rt, "ring")], rapid.IntRange(1, 40).Draw(rt, "n")) },
			"use up the range": func(rt *rapid.T) {
				k := rings[which.Draw(rt, "ring")]
				use(k, 1)
				e, err := k.get("", "k")
				if err != nil {
					rt.Fatal(err)
				}
				e.nonces.next = e.nonces.end - min(5, e.nonces.end-e.nonces.next)
				use(k, 10)
			},
			"crash": func(rt *rapid.T) { rings[which.Draw(rt, "ring")] = p.open(t) },
			"crash while writing": func(rt *rapid.T) {
				i := which.Draw(rt, "ring")
				step := rapid.SampledFrom([]string{"create", "rename", "sync"}).Draw(rt, "step")
				k := p.open(t)
				k.folder.fail = func(s string) error {
					if s == step {
						return crash
					}
					return nil
				}
				use(k, 3)
				_ = k.Close(t.Context())
				rings[i] = p.open(t)
			},
			"stop": func(rt *rapid.T) {
				i := which.Draw(rt, "ring")
				if err := rings[i].Close(t.Context()); err != nil {
					rt.Fatalf("Close = %v", err)
				}
				rings[i] = p.open(t)
			},
		})
	})
}

func TestCloseGivesNoncesBack(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	mustCreate(t, k, "k", KindSM4)
	for want := range uint64(5) {
		if got := counterOf(mustSeal(t, k, "k", Item{})[0]); got != want {
			t.Errorf("counter = %d, want %d: an orderly stop wastes none", got, want)
		}
		if err := k.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		k = p.open(t)
	}
}

// A folder put back from a copy repeats counters; the drawn prefix keeps the
// nonces apart.
func TestRestoredCopyDrawsOtherNonces(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	mustCreate(t, k, "k", KindSM4)
	name := filepath.Join(p.dir, "k.1.nonce")
	old, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	first := mustSeal(t, k, "k", Item{})[0]
	if err := os.WriteFile(name, old, 0o600); err != nil {
		t.Fatal(err)
	}
	second := mustSeal(t, p.open(t), "k", Item{})[0]
	if counterOf(first) != counterOf(second) || bytes.Equal(first[6:18], second[6:18]) {
		t.Errorf("nonces %x and %x, want one counter and two prefixes", first[6:18], second[6:18])
	}
}

func TestSealLimit(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	mustCreate(t, k, "k", KindSM4)
	box := mustSeal(t, k, "k", Item{Data: []byte("x")})[0]
	e, err := k.get("", "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.nonces.write(MaxSeals - 3); err != nil {
		t.Fatal(err)
	}
	k = p.open(t)
	boxes := mustSeal(t, k, "k", make([]Item, 3)...)
	if got := counterOf(boxes[2]); got != MaxSeals-1 {
		t.Errorf("last counter = %d, want %d", got, uint64(MaxSeals-1))
	}
	for range 2 {
		if got, err := k.Seal(t.Context(), "k", []Item{{}}); got != nil || !errors.Is(err, fault.ErrExhausted) {
			t.Errorf("Seal after the limit = %x, %v, want ErrExhausted", got, err)
		}
		k = p.open(t)
	}
	if _, err := k.Open(t.Context(), "k", []Item{{Data: box}}); err != nil {
		t.Errorf("Open after the limit = %v, want nil", err)
	}
}

func TestNonceFileLost(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"gone":    os.Remove,
		"damaged": func(path string) error { damage(t, path); return nil },
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"huge":    func(path string) error { return os.Truncate(path, 1<<20) },
	} {
		p := newPlace(t)
		k := p.open(t)
		mustCreate(t, k, "k", KindSM4)
		box := mustSeal(t, k, "k", Item{Data: []byte("x")})[0]
		if err := lose(filepath.Join(p.dir, "k.1.nonce")); err != nil {
			t.Fatal(err)
		}
		k = p.open(t)
		if _, err := k.Seal(t.Context(), "k", []Item{{}}); err == nil {
			t.Errorf("%s: Seal = nil, want an error", name)
		}
		if got, err := k.Open(t.Context(), "k", []Item{{Data: box}}); err != nil || string(got[0]) != "x" {
			t.Errorf("%s: Open = %q, %v, want x", name, got, err)
		}
	}
}

// A crash while a key is made leaves no key, and its handle free.
func TestCreateCrash(t *testing.T) {
	for _, stop := range []int{1, 2, 3, 4, 5} {
		p := newPlace(t)
		k := p.open(t)
		left := stop
		k.folder.fail = func(string) error {
			if left--; left <= 0 {
				return errors.New("crash")
			}
			return nil
		}
		if _, err := k.Create(t.Context(), "k", KindSM4); err == nil {
			t.Fatalf("Create with a crash at step %d = nil", stop)
		}
		k = p.open(t)
		if stop < 5 { // the fifth step is the key's rename: after it the key is there
			mustCreate(t, k, "k", KindSM4)
		}
		mustSeal(t, k, "k", Item{})
		left2, err := filepath.Glob(filepath.Join(p.dir, tmpPrefix+"*"))
		if err != nil || len(left2) != 0 {
			t.Errorf("crash at step %d leaves %v, %v", stop, left2, err)
		}
	}
}

func TestConcurrentSeals(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	mustCreate(t, k, "k", KindSM4)
	const goroutines, rounds, batch = 8, 150, 20 // 24,000 seals: more than one range
	var wg sync.WaitGroup
	counters := make([][]uint64, goroutines)
	for g := range goroutines {
		wg.Go(func() {
			items := make([]Item, batch)
			for i := range items {
				items[i] = Item{Data: bytes.Repeat([]byte{byte(g)}, 10+i), AAD: []byte{byte(i)}}
			}
			for range rounds {
				boxes, err := k.Seal(t.Context(), "k", items)
				if err != nil {
					t.Errorf("Seal = %v", err)
					return
				}
				in := make([]Item, batch)
				for i, box := range boxes {
					counters[g] = append(counters[g], counterOf(box))
					in[i] = Item{Data: box, AAD: items[i].AAD}
				}
				plain, err := k.Open(t.Context(), "k", in)
				if err != nil {
					t.Errorf("Open = %v", err)
					return
				}
				for i := range plain {
					if !bytes.Equal(plain[i], items[i].Data) {
						t.Errorf("goroutine %d item %d opens to %x", g, i, plain[i])
					}
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[uint64]bool)
	for _, list := range counters {
		for _, c := range list {
			if seen[c] {
				t.Fatalf("counter %d came twice", c)
			}
			seen[c] = true
		}
	}
	if len(seen) != goroutines*rounds*batch {
		t.Errorf("%d counters, want %d", len(seen), goroutines*rounds*batch)
	}
}
