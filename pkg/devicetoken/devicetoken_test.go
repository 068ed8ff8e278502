package devicetoken_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
)

func TestTokenIsTheDevicesOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token.key")
	key, err := devicetoken.LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := devicetoken.LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		device, token string
		want          bool
	}{
		{"meter-1", again.Token("meter-1"), true},
		{"meter-2", key.Token("meter-1"), false},
		{"meter-1", "", false},
		{"meter-1", key.Token("meter-1") + "A", false},
		{"meter-1", new(devicetoken.Key).Token("meter-1"), false},
	}
	for _, tt := range tests {
		if got := key.Valid(tt.device, tt.token); got != tt.want {
			t.Errorf("Valid(%s, %s) = %v, want %v", tt.device, tt.token, got, tt.want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := []struct {
		name string
		size int
		mode os.FileMode
		want string
	}{
		{"short", 31, 0o600, "must be 32 bytes, is 31"},
		{"open to others", 32, 0o604, "mode is 0604"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token.key")
			if err := os.WriteFile(path, make([]byte, tt.size), tt.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := devicetoken.Load(path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load = %v, want %q", err, tt.want)
			}
		})
	}
}
