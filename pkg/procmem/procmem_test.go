package procmem

import (
	"os"
	"testing"
)

func TestOf(t *testing.T) {
	u, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.RSS < 1<<20 || u.PSS == 0 || u.PSS > u.RSS {
		t.Errorf("Of(self) = %+v, want at least 1 MiB resident and PSS up to RSS", u)
	}
	if _, err := Of(-1); err == nil {
		t.Error("Of(-1) = nil error")
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		text string
		want Usage
		ok   bool
	}{
		{"00400000-7fff [rollup]\nRss:    12 kB\nPss:    7 kB\nPss_Dirty: 5 kB\n", Usage{12 << 10, 7 << 10}, true},
		{"Rss: 12 kB\n", Usage{}, false},
		{"Rss: x kB\nPss: 1 kB\n", Usage{}, false},
		{"", Usage{}, false},
	}
	for _, tt := range tests {
		got, err := parse([]byte(tt.text))
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parse(%q) = %+v, %v, want %+v, ok %v", tt.text, got, err, tt.want, tt.ok)
		}
	}
}
