package limit_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/limit"
)

func TestHandle(t *testing.T) {
	for value, want := range map[string]string{
		"k":                     "",
		"A-z_09":                "",
		"-":                     "",
		strings.Repeat("k", 64): "",
		"":                      "handle: must be 1 to 64 bytes, is 0",
		strings.Repeat("k", 65): "handle: must be 1 to 64 bytes, is 65",
		"a/b":                   "handle: must be of [A-Za-z0-9_-], has '/' at byte 1",
		"..":                    "handle: must be of [A-Za-z0-9_-], has '.' at byte 0",
		"a\x00":                 "handle: must be of [A-Za-z0-9_-], has '\\x00' at byte 1",
		"é":                     "handle: must be of [A-Za-z0-9_-], has 'Ã' at byte 0",
	} {
		check(t, "Handle("+value+")", limit.Handle("handle", value), want)
	}
}

func TestBatch(t *testing.T) {
	type item struct{ data, aad int }
	tests := []struct {
		name  string
		extra int
		items []item
		want  string
	}{
		{"one empty", 0, []item{{0, 0}}, ""},
		{"full", 0, []item{{1 << 20, 0}, {1 << 20, 0}, {1 << 20, 0}}, ""},
		{"full, sealed", 34, []item{{1<<20 + 34, 0}, {1<<20 + 34, 0}, {1<<20 + 34, 0}}, ""},
		{"none", 0, nil, "items: must be 1 to 1024 items, is 0"},
		{"too many", 0, make([]item, 1025), "items: must be 1 to 1024 items, is 1025"},
		{"large", 0, []item{{0, 0}, {1<<20 + 1, 0}}, "items[1].data: must be at most 1048576 bytes, is 1048577"},
		{"large aad", 0, []item{{0, 1<<16 + 1}}, "items[0].associated_data: must be at most 65536 bytes, is 65537"},
		{"large in all", 0, []item{{1 << 20, 0}, {1 << 20, 0}, {1 << 20, 1}}, "items: must be at most 3145728 bytes, is 3145729"},
	}
	for _, tt := range tests {
		b, err := limit.NewBatch(len(tt.items), "data", tt.extra)
		for i := 0; i < len(tt.items) && err == nil; i++ {
			err = b.Add(i, tt.items[i].data, tt.items[i].aad)
		}
		check(t, tt.name, err, tt.want)
	}
}

func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("%s = %v, want nil", name, err)
		}
		return
	}
	if err == nil || err.Error() != want || !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("%s = %v, want ErrInvalid %q", name, err, want)
	}
}
