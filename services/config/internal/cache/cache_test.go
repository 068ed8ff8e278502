package cache_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/cache"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

const prefix = "/xinghuo/site/node/"

func open(t testing.TB, dir string) *cache.File {
	t.Helper()
	f, err := cache.Open(dir, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func body() cache.Body {
	at := time.Date(2026, 11, 24, 1, 2, 3, 4, time.UTC)
	return cache.Body{Prefix: prefix, Revision: 9, Synced: at, Entries: []setting.Entry{
		{Key: setting.Key{Service: "ingest", Name: "batch_delay"}, Value: "5ms", Revision: 3, Time: at},
		{Key: setting.Key{Service: "policy", Name: "x"}, Value: "a: \"<&>\u2028星火\"\n", Revision: 9, Time: at},
	}}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	if _, ok, err := open(t, dir).Load(); ok || err != nil {
		t.Errorf("Load() of nothing = %v, %v, want false, nil", ok, err)
	}
	want := body()
	for range 2 { // the second replaces the first
		if err := open(t, dir).Save(want); err != nil {
			t.Fatal(err)
		}
	}
	got, ok, err := open(t, dir).Load()
	if err != nil || !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("Load() = %+v, %v, %v, want %+v", got, ok, err, want)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("folder has %v, %v, want the cache alone", files, err)
	}
}

// TestEveryFlippedBitIsFound flips each byte of the file in turn.
func TestEveryFlippedBitIsFound(t *testing.T) {
	f := open(t, t.TempDir())
	if err := f.Save(body()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		if err := os.WriteFile(f.Path(), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := f.Load(); ok || !errors.Is(err, cache.ErrDamaged) {
			t.Fatalf("Load() with byte %d of %d flipped = %+v, %v, %v, want ErrDamaged", i, len(good), got, ok, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	f := open(t, t.TempDir())
	save := func(b cache.Body) []byte {
		t.Helper()
		if err := f.Save(b); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(f.Path())
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	changed := func(change func(*cache.Body)) []byte {
		b := body()
		change(&b)
		return save(b)
	}
	good := save(body())
	alien, err := cache.Open(filepath.Dir(f.Path()), "/xinghuo/site/other/")
	if err != nil {
		t.Fatal(err)
	}
	if err := alien.Save(body()); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		raw  []byte
		want string
	}{
		{"empty", nil, "EOF"},
		{"torn", good[:len(good)/2], "EOF"},
		{"more after the end", append(append([]byte(nil), good...), "{}"...), "after the end"},
		{"unknown field", []byte(`{"version":1,"sha256":"","body":{},"x":1}`), "unknown field"},
		{"version", []byte(strings.Replace(string(good), `"version":1`, `"version":2`, 1)), "version must be 1, is 2"},
		{"other node", foreign, "prefix must be"},
		{"bad name", changed(func(b *cache.Body) { b.Entries[0].Name = "../x" }), "name: must be of"},
		{"twice", changed(func(b *cache.Body) { b.Entries = append(b.Entries, b.Entries[0]) }), "stands twice"},
		{"revision beyond", changed(func(b *cache.Body) { b.Revision = 5 }), "revision must be 1 to 5, is 9"},
		{"long value", changed(func(b *cache.Body) { b.Entries[0].Value = strings.Repeat("x", setting.MaxValue+1) }), "at most 1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(f.Path(), tt.raw, 0o600); err != nil {
				t.Fatal(err)
			}
			_, ok, err := f.Load()
			if ok || !errors.Is(err, cache.ErrDamaged) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load() = %v, %v, want ErrDamaged with %q", ok, err, tt.want)
			}
			if aside, err := os.ReadFile(f.Path() + ".damaged"); err != nil || string(aside) != string(tt.raw) {
				t.Errorf("aside is %.40q, %v, want what was refused", aside, err)
			}
			if _, ok, err := f.Load(); ok || err != nil {
				t.Errorf("second Load() = %v, %v, want nothing there", ok, err)
			}
		})
	}
}

func TestLoadBoundsTheFile(t *testing.T) {
	f := open(t, t.TempDir())
	if err := os.WriteFile(f.Path(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f.Path(), 1<<40); err != nil { // sparse
		t.Fatal(err)
	}
	if _, ok, err := f.Load(); ok || !errors.Is(err, cache.ErrDamaged) || !strings.Contains(err.Error(), "size must be at most") {
		t.Errorf("Load() of 1 TiB = %v, %v, want it refused by its size", ok, err)
	}
}

func TestSaveFails(t *testing.T) {
	f := open(t, t.TempDir())
	if err := os.Mkdir(f.Path(), 0o700); err != nil { // a folder cannot be replaced by a file
		t.Fatal(err)
	}
	if err := f.Save(body()); err == nil {
		t.Error("Save over a folder = nil, want an error")
	}
}

func FuzzLoad(f *testing.F) {
	dir := f.TempDir()
	file := open(f, dir)
	if err := file.Save(body()); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(file.Path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"version":1,"sha256":"","body":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file := open(t, t.TempDir())
		if err := os.WriteFile(file.Path(), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		body, ok, err := file.Load()
		if !ok {
			if !errors.Is(err, cache.ErrDamaged) {
				t.Errorf("Load() = %v, want ErrDamaged", err)
			}
			return
		}
		if err := file.Save(body); err != nil {
			t.Fatal(err)
		}
		again, ok, err := file.Load()
		want, _ := json.Marshal(body)
		got, _ := json.Marshal(again)
		if !ok || err != nil || string(got) != string(want) {
			t.Errorf("saved and loaded = %s, %v, want %s", got, err, want)
		}
	})
}
