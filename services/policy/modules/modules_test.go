package modules_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/policy/modules"
)

func TestSeed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for _, want := range []bool{true, false} {
		if got, err := modules.Seed(dir); got != want || err != nil {
			t.Errorf("Seed() = %v, %v, want %v", got, err, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "threshold.wasm" {
		t.Errorf("Seed() left %v, %v, want threshold.wasm alone", entries, err)
	}
	if _, err := modules.Read("none.wasm"); err == nil {
		t.Error("Read(none.wasm) = nil, want an error")
	}
}

func TestSeedLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "own.wasm"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := modules.Seed(dir); got || err != nil {
		t.Errorf("Seed() beside a module = %v, %v, want false", got, err)
	}
}
