package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

func TestSealOpenAcrossRestart(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	mustCreate(t, k, "meter", KindSM4)
	items := []Item{{Data: []byte("1.344 kW"), AAD: []byte("m-7")}, {}, {Data: bytes.Repeat([]byte("x"), 1<<20)}}
	boxes := mustSeal(t, k, "meter", items...)
	if err := k.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	k = p.open(t)
	in := make([]Item, len(items))
	for i := range items {
		if got, want := len(boxes[i]), len(items[i].Data)+34; got != want {
			t.Errorf("box %d has %d bytes, want %d", i, got, want)
		}
		in[i] = Item{Data: boxes[i], AAD: items[i].AAD}
	}
	plain, err := k.Open(t.Context(), "meter", in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range items {
		if !bytes.Equal(plain[i], items[i].Data) {
			t.Errorf("item %d opens to %d other bytes", i, len(plain[i]))
		}
	}
}

// The layout that doc.go writes down.
func TestBoxLayout(t *testing.T) {
	k := newPlace(t).open(t)
	mustCreate(t, k, "meter", KindSM4)
	for i := range 3 {
		box := mustSeal(t, k, "meter", Item{Data: []byte("abc")})[0]
		want := []byte{1, 1, 0, 0, 0, 1}
		if !bytes.Equal(box[:6], want) {
			t.Errorf("header of box %d = %x, want %x", i, box[:6], want)
		}
		if want := []byte{0, 0, 0, 0, 0, 0, 0, byte(i)}; !bytes.Equal(box[10:18], want) {
			t.Errorf("counter of box %d = %x, want %x", i, box[10:18], want)
		}
	}
}

func TestBoxBindsEverything(t *testing.T) {
	k := newPlace(t).open(t)
	mustCreate(t, k, "a", KindSM4)
	mustCreate(t, k, "b", KindSM4)
	box := mustSeal(t, k, "a", Item{Data: []byte("abc"), AAD: []byte("aad")})[0]
	refused := func(name, handle string, item Item) {
		t.Helper()
		got, err := k.Open(t.Context(), handle, []Item{item})
		if got != nil || err == nil || err.Error() != "items[0].box: does not open" || !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: Open = %x, %v, want nil and ErrInvalid without a reason", name, got, err)
		}
	}
	for bit := range len(box) * 8 {
		bad := slices.Clone(box)
		bad[bit/8] ^= 1 << (bit % 8)
		refused(fmt.Sprintf("bit %d", bit), "a", Item{bad, []byte("aad")})
	}
	for n := range len(box) {
		refused(fmt.Sprintf("first %d bytes", n), "a", Item{box[:n], []byte("aad")})
	}
	refused("longer", "a", Item{append(slices.Clone(box), 0), []byte("aad")})
	refused("other aad", "a", Item{box, []byte("aae")})
	refused("other key", "b", Item{box, []byte("aad")})
}

func TestOpenIsAllOrNothing(t *testing.T) {
	k := newPlace(t).open(t)
	mustCreate(t, k, "a", KindSM4)
	boxes := mustSeal(t, k, "a", Item{Data: []byte("one")}, Item{Data: []byte("two")})
	boxes[1][20] ^= 1
	got, err := k.Open(t.Context(), "a", []Item{{Data: boxes[0]}, {Data: boxes[1]}})
	if got != nil || err == nil || err.Error() != "items[1].box: does not open" {
		t.Errorf("Open(good, bad) = %q, %v, want nil and items[1].box", got, err)
	}
}

func TestSignVerifyAcrossRestart(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	key := mustCreate(t, k, "sign", KindSM2)
	if len(key.Public) != 65 || key.Version != 1 || key.Created.IsZero() {
		t.Errorf("Create = %+v, want version 1, a time and a public key", key)
	}
	signature, err := k.Sign("sign", []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	k = p.open(t)
	if again, err := k.Get("sign"); err != nil || !bytes.Equal(again.Public, key.Public) || !again.Created.Equal(key.Created) {
		t.Errorf("Get after a restart = %+v, %v, want %+v", again, err, key)
	}
	for message, want := range map[string]bool{"m": true, "n": false} {
		if got, err := k.Verify("sign", []byte(message), signature); got != want || err != nil {
			t.Errorf("Verify(%q) = %v, %v, want %v", message, got, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	k := newPlace(t).open(t)
	mustCreate(t, k, "sm4", KindSM4)
	mustCreate(t, k, "sm2", KindSM2)
	ctx := t.Context()
	big := make([]byte, 1<<20+1)
	one := []Item{{Data: []byte("x")}}
	errOf := func(_ any, err error) error { return err }
	tests := []struct {
		name string
		err  error
		want error
		text string
	}{
		{"create twice", errOf(k.Create(ctx, "sm4", KindSM4)), fault.ErrExists, `key "sm4"`},
		{"create no kind", errOf(k.Create(ctx, "x", 0)), fault.ErrInvalid, "kind: must be SM4 or SM2, is 0"},
		{"create kind 3", errOf(k.Create(ctx, "x", 3)), fault.ErrInvalid, "is 3"},
		{"create a path", errOf(k.Create(ctx, "../x", KindSM4)), fault.ErrInvalid, "handle: must be of [A-Za-z0-9_-], has '.'"},
		{"get nothing", errOf(k.Get("none")), fault.ErrNotFound, `key "none"`},
		{"seal with nothing", errOf(k.Seal(ctx, "none", one)), fault.ErrNotFound, `key "none"`},
		{"seal with sm2", errOf(k.Seal(ctx, "sm2", one)), fault.ErrPrecondition, `key "sm2" is for SM2, this call needs SM4`},
		{"seal none", errOf(k.Seal(ctx, "sm4", nil)), fault.ErrInvalid, "items: must be 1 to 1024 items, is 0"},
		{"seal large", errOf(k.Seal(ctx, "sm4", []Item{{Data: big}})), fault.ErrInvalid, "items[0].plaintext: must be at most 1048576 bytes, is 1048577"},
		{"open with sm2", errOf(k.Open(ctx, "sm2", one)), fault.ErrPrecondition, "needs SM4"},
		{"open an empty handle", errOf(k.Open(ctx, "", one)), fault.ErrInvalid, "key_handle: must be 1 to 64 bytes, is 0"},
		{"sign with sm4", errOf(k.Sign("sm4", nil)), fault.ErrPrecondition, `key "sm4" is for SM4, this call needs SM2`},
		{"sign large", errOf(k.Sign("sm2", big)), fault.ErrInvalid, "message: must be at most 1048576 bytes, is 1048577"},
		{"verify with sm4", errOf(k.Verify("sm4", nil, nil)), fault.ErrPrecondition, "needs SM2"},
		{"verify large", errOf(k.Verify("sm2", big, nil)), fault.ErrInvalid, "message: "},
	}
	for _, tt := range tests {
		if !errors.Is(tt.err, tt.want) || !strings.Contains(tt.err.Error(), tt.text) {
			t.Errorf("%s = %v, want %v with %q", tt.name, tt.err, tt.want, tt.text)
		}
	}
}

func TestListPages(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	var want []string
	for i := range 7 {
		handle := fmt.Sprintf("k%d", i)
		mustCreate(t, k, handle, KindSM4)
		want = append(want, handle)
	}
	for size := range 9 {
		var got []string
		token := ""
		for {
			keys, next, err := k.List(size, token)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range keys {
				got = append(got, key.Handle)
			}
			if token = next; token == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d = %v, want %v", size, got, want)
		}
	}
	for _, bad := range []struct {
		size  int
		token string
	}{{-1, ""}, {1001, ""}, {0, "x"}, {0, "!"}, {0, pageToken("../x")}, {0, strings.Repeat("A", 10_000)}} {
		if _, _, err := k.List(bad.size, bad.token); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("List(%d, %.20q) = %v, want ErrInvalid", bad.size, bad.token, err)
		}
	}
	// A key that another process made is there without a restart.
	mustCreate(t, p.open(t), "k7", KindSM4)
	mustSeal(t, k, "k7", Item{})
	if keys, _, err := k.List(0, ""); err != nil || len(keys) != 8 {
		t.Errorf("List = %d keys, %v, want 8", len(keys), err)
	}
}

func TestModes(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	mustCreate(t, k, "k", KindSM4)
	for path, want := range map[string]os.FileMode{
		p.dir:                             os.ModeDir | 0o700,
		p.master:                          0o400,
		filepath.Join(p.dir, "k.1.key"):   0o600,
		filepath.Join(p.dir, "k.1.nonce"): 0o600,
	} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("mode of %s = %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestDamagedKeyLeavesTheOthers(t *testing.T) {
	p := newPlace(t)
	k := p.open(t)
	mustCreate(t, k, "good", KindSM4)
	mustCreate(t, k, "bad", KindSM4)
	damage(t, filepath.Join(p.dir, "bad.1.key"))
	// A file of one key does not pass for another's.
	data, err := os.ReadFile(filepath.Join(p.dir, "good.1.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "copy.1.key"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	k = p.open(t)
	if got := k.Damaged(); len(got) != 2 {
		t.Errorf("Damaged = %v, want bad and copy", got)
	}
	mustSeal(t, k, "good", Item{})
	for _, handle := range []string{"bad", "copy"} {
		if _, err := k.Seal(t.Context(), handle, []Item{{}}); !errors.Is(err, fault.ErrPrecondition) {
			t.Errorf("Seal(%s) = %v, want ErrPrecondition", handle, err)
		}
		if _, err := k.Create(t.Context(), handle, KindSM4); !errors.Is(err, fault.ErrExists) {
			t.Errorf("Create(%s) = %v, want ErrExists: it may yet be put back", handle, err)
		}
	}
	if keys, _, err := k.List(0, ""); err != nil || len(keys) != 1 {
		t.Errorf("List = %v, %v, want good alone", keys, err)
	}
}

func TestClosedRefuses(t *testing.T) {
	k := newPlace(t).open(t)
	mustCreate(t, k, "k", KindSM4)
	mustSeal(t, k, "k", Item{})
	for range 2 {
		if err := k.Close(t.Context()); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	if _, err := k.Seal(t.Context(), "k", []Item{{}}); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("Seal after Close = %v, want ErrUnavailable", err)
	}
}
