package settings_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

type config struct {
	settings.Node `yaml:",inline"`
	Window        int `yaml:"window" usage:"readings in flight"`
	MQTT          struct {
		URL   string        `yaml:"url" usage:"broker"`
		Limit time.Duration `yaml:"limit" usage:"limit"`
		Clean bool          `yaml:"clean" usage:"clean"`
	} `yaml:"mqtt"`
	Peers []string `yaml:"peers" usage:"peers"`
}

func defaults() config {
	c := config{Node: settings.DefaultNode(), Window: 256}
	c.MQTT.Limit = 200 * time.Millisecond
	return c
}

func (c *config) Check() []error {
	faults := c.Node.Check()
	if err := settings.IntIn("window", c.Window, 1, 1024); err != nil {
		faults = append(faults, err)
	}
	return faults
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLoadPrecedence(t *testing.T) {
	t.Setenv("XINGHUO_DEMO_MQTT_LIMIT", "2s")
	t.Setenv("XINGHUO_DEMO_PEERS", "[a, b]")
	t.Setenv("XINGHUO_DEMO_WINDOW", "20")
	cfg := defaults()
	name := file(t, "window: 10\nsite: hangzhou\nmqtt:\n  url: tcp://x\n  limit: 1s\n")
	if err := settings.Load("demo", []string{"-config", name, "-window", "30", "-mqtt.clean"}, &cfg, nil); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Site, want.Window, want.Peers = "hangzhou", 30, []string{"a", "b"}
	want.MQTT.URL, want.MQTT.Limit, want.MQTT.Clean = "tcp://x", 2*time.Second, true
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("Load = %+v, want %+v", cfg, want)
	}
}

func TestLoadNamesEveryFault(t *testing.T) {
	t.Setenv("XINGHUO_DEMO_WINDOOR", "1")
	cfg := defaults()
	name := file(t, "windw: 10\nsite: 'a b'\nwindow: many\nwindow: 3\nmqtt:\n  limit: 5\n  ulr: x\npeers: {a: b}\nlog_level: loud\n")
	err := settings.Load("demo", []string{"-config", name, "-grace_timeout", "1m"}, &cfg, nil)
	var bad *settings.Error
	if !errors.As(err, &bad) {
		t.Fatalf("Load = %v, want an *Error", err)
	}
	for _, want := range []string{
		":1: unknown key windw", `site: must be 1 to 64 of [A-Za-z0-9_-], is "a b"`, `:3: window: must be a int, is "many"`,
		":4: key window stands twice", `mqtt.limit: must be a duration, is "5"`, "unknown key mqtt.ulr",
		`peers: must be a slice, is "a mapping"`, `log_level: must be debug, info, warn or error, is "loud"`,
		"unknown key XINGHUO_DEMO_WINDOOR", "grace_timeout: must be 0s to 30s, is 1m0s",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if len(bad.Faults) != 10 {
		t.Errorf("%d faults, want 10:\n%v", len(bad.Faults), err)
	}
}

func TestLoadFiles(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"default may be missing", nil, ""},
		{"named may not", []string{"-config", "/nonexistent.yaml"}, "no such file"},
		{"not a mapping", []string{"-config", file(t, "- a\n")}, "must be a mapping"},
		{"not yaml", []string{"-config", file(t, "a: [\n")}, "yaml"},
		{"empty", []string{"-config", file(t, "")}, ""},
		{"stray argument", []string{"up"}, `none are taken, found ["up"]`},
		{"unknown flag", []string{"-nope"}, "-nope"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := defaults()
			err := settings.Load("demo", tt.args, &cfg, nil)
			if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Load(%q) = %v, want %q", tt.args, err, tt.want)
			}
		})
	}
}

func TestLoadHelpAndCheck(t *testing.T) {
	for _, arg := range []string{"-h", "-check"} {
		var out bytes.Buffer
		cfg := defaults()
		if err := settings.Load("demo", []string{arg}, &cfg, &out); !errors.Is(err, settings.ErrDone) {
			t.Errorf("Load(%s) = %v, want ErrDone", arg, err)
		}
		if !strings.Contains(out.String(), "demo") {
			t.Errorf("Load(%s) wrote %q", arg, out.String())
		}
		if arg == "-h" && !strings.Contains(out.String(), "-mqtt.limit duration") {
			t.Errorf("help lacks -mqtt.limit:\n%s", out.String())
		}
	}
}
