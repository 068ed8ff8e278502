package setting_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

func TestParseKey(t *testing.T) {
	tests := []struct {
		in   string
		want string // part of the error; empty means good
	}{
		{"ingest/batch_delay", ""},
		{"agent/a.b-c_9", ""},
		{"policy/" + strings.Repeat("a", setting.MaxName), ""},
		{"policy/" + strings.Repeat("a", setting.MaxName+1), "name: must be 1 to 128 bytes, is 129"},
		{"ingest/", "name: must be 1 to 128 bytes, is 0"},
		{"ingest/../crypto/key", "name: must be of [a-z0-9_.-]"},
		{"ingest/a..b", `name: must not hold ".."`},
		{"ingest/A", "name: must be of [a-z0-9_.-]"},
		{"ingest/a/b", "name: must be of [a-z0-9_.-]"},
		{"ingest/\xff", "name: must be of [a-z0-9_.-]"},
		{"sales/a", `service: must be one of ingest`},
		{"/a", `service: must be one of ingest`},
		{"ingest", "key: must be <service>/<name>"},
		{"", "key: must be <service>/<name>"},
	}
	for _, tt := range tests {
		k, err := setting.ParseKey(tt.in)
		if !matches(err, tt.want) {
			t.Errorf("ParseKey(%q) = %v, %v, want an error with %q", tt.in, k, err, tt.want)
		}
		if err == nil && k.String() != tt.in {
			t.Errorf("ParseKey(%q).String() = %q, want the same", tt.in, k)
		}
	}
}

// bomb is ten levels of ten aliases each: 10^10 nodes when it goes off.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		from, to := string(rune('0'+i)), string(rune('1'+i))
		b.WriteString("a" + to + ": &a" + to + " [" + strings.TrimSuffix(strings.Repeat("*a"+from+",", 10), ",") + "]\n")
	}
	return b.String()
}

func TestCheckValue(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"scalar", "20ms", ""},
		{"json", `{"a": [1, 2.5, null], "b": "星火"}`, ""},
		{"mapping", "a: 1\nb:\n  - x\n  - y\n", ""},
		{"null", "null", ""},
		{"alias", "a: &x 1\nb: *x\n", ""},
		{"longest", `"` + strings.Repeat("x", setting.MaxValue-2) + `"`, ""},
		{"too long", strings.Repeat("x", setting.MaxValue+1), "value: must be at most 1048576 bytes, is 1048577"},
		{"not UTF-8", "a: \xff", "value: must be UTF-8"},
		{"empty", "", "value: must be one YAML document, is empty"},
		{"only a comment", "# nothing\n", "value: must be one YAML document, is empty"},
		{"broken", "a: [1", "value: must be YAML"},
		{"tab", "a:\n\t- b", "value: must be YAML"},
		{"unknown alias", "a: *b", "value: must be YAML"},
		{"double key", "a: 1\na: 2", "value: must be YAML"},
		{"two documents", "a: 1\n---\nb: 2", "value: must be one YAML document, has more"},
		{"broken second document", "a: 1\n---\nb: [", "value: must be one YAML document, has more"},
		{"bomb", bomb(), "value: must be YAML: yaml: document contains excessive aliasing"},
		{"deep", strings.Repeat("[", 200_000), "value: must be YAML"},
		{"self", "a: &a [*a]", "value: must be YAML"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := setting.CheckValue(tt.in)
			if !matches(err, tt.want) {
				t.Errorf("CheckValue(%.40q) = %v, want an error with %q", tt.in, err, tt.want)
			}
			if err != nil && len(err.Error()) > 512 {
				t.Errorf("CheckValue(%.40q) = an error of %d bytes, want at most 512", tt.in, len(err.Error()))
			}
		})
	}
}

func matches(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return errors.Is(err, fault.ErrInvalid) && strings.Contains(err.Error(), want)
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"ingest/a", "ingest/..", "a/b/c", "", "policy/\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		k, err := setting.ParseKey(in)
		if err == nil && (k.String() != in || strings.Contains(in, "..") || strings.Count(in, "/") != 1) {
			t.Errorf("ParseKey(%q) = %v, want a key that stays in its folder", in, k)
		}
	})
}

func FuzzCheckValue(f *testing.F) {
	for _, s := range []string{"a: 1", "[", "a: &x 1\nb: *x", "---\n---\n", "\xff", "? {a: b}: c", bomb()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if err := setting.CheckValue(in); err != nil {
			return
		}
		var v any
		if err := yaml.Unmarshal([]byte(in), &v); err != nil || !utf8.ValidString(in) {
			t.Errorf("CheckValue(%q) = nil, but a reader gets %v", in, err)
		}
	})
}
