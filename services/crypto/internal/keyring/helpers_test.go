package keyring

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver/soft"
)

// place is where a keyring lives across restarts.
type place struct {
	crypto      Crypto
	dir, master string
}

func newPlace(t testing.TB) place {
	t.Helper()
	set, err := driver.NewSet(soft.Driver{})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	return place{crypto: set, dir: filepath.Join(root, "keys"), master: filepath.Join(root, "master.key")}
}

func (p place) open(t testing.TB) *Keyring {
	t.Helper()
	k, err := Open(t.Context(), p.crypto, p.dir, p.master)
	if err != nil {
		t.Fatalf("Open(%s) = %v", p.dir, err)
	}
	return k
}

func mustCreate(t testing.TB, k *Keyring, handle string, kind Kind) Key {
	t.Helper()
	key, err := k.Create(t.Context(), handle, kind)
	if err != nil {
		t.Fatalf("Create(%q, %v) = %v", handle, kind, err)
	}
	return key
}

func mustSeal(t testing.TB, k *Keyring, handle string, items ...Item) [][]byte {
	t.Helper()
	boxes, err := k.Seal(t.Context(), handle, items)
	if err != nil {
		t.Fatalf("Seal(%q, %d items) = %v", handle, len(items), err)
	}
	return boxes
}

// damage flips a bit in the middle of a file.
func damage(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
