package settings

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"time"
)

// Node is what every service needs to know. Embed it with `yaml:",inline"`.
type Node struct {
	Site         string        `yaml:"site" usage:"name of the site; a NATS token"`
	Node         string        `yaml:"node" usage:"name of the node; a NATS token"`
	RunDir       string        `yaml:"run_dir" usage:"folder of the services' sockets"`
	StateDir     string        `yaml:"state_dir" usage:"folder below which each service keeps its state"`
	LogLevel     string        `yaml:"log_level" usage:"debug, info, warn or error"`
	AccessFile   string        `yaml:"access_file" usage:"access.yaml with the roles; empty lets in root and the service's own uid"`
	GraceTimeout time.Duration `yaml:"grace_timeout" usage:"how long open calls may take when the service stops, 0s to 30s"`
}

// MaxGrace bounds the drain of a service.
const MaxGrace = 30 * time.Second

// DefaultNode returns the settings of an edge box.
func DefaultNode() Node {
	return Node{
		Site: "site", Node: "node",
		RunDir: "/run/xinghuo", StateDir: "/var/lib/xinghuo",
		LogLevel: "info", GraceTimeout: MaxGrace,
	}
}

// maxRunDir leaves room for `/<service>.sock.<pid>` in sun_path's 108 bytes
// (unix(7)).
const maxRunDir = 76

// Check implements Checker.
func (n *Node) Check() []error {
	var faults []error
	add := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	add(Token("site", n.Site))
	add(Token("node", n.Node))
	if !filepath.IsAbs(n.RunDir) || len(n.RunDir) > maxRunDir {
		add(fmt.Errorf("run_dir: must be an absolute path of at most %d bytes, is %q", maxRunDir, n.RunDir))
	}
	if !filepath.IsAbs(n.StateDir) {
		add(fmt.Errorf("state_dir: must be an absolute path, is %q", n.StateDir))
	}
	if err := new(slog.LevelVar).UnmarshalText([]byte(n.LogLevel)); err != nil {
		add(fmt.Errorf("log_level: must be debug, info, warn or error, is %q", n.LogLevel))
	}
	add(DurationIn("grace_timeout", n.GraceTimeout, 0, MaxGrace))
	return faults
}

var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Token checks a name that becomes a token of a NATS subject.
func Token(key, value string) error {
	if !token.MatchString(value) {
		return fmt.Errorf("%s: must be 1 to 64 of [A-Za-z0-9_-], is %q", key, value)
	}
	return nil
}

// DurationIn checks a duration's range, bounds included.
func DurationIn(key string, d, low, high time.Duration) error {
	if d < low || d > high {
		return fmt.Errorf("%s: must be %v to %v, is %v", key, low, high, d)
	}
	return nil
}

// IntIn checks an integer's range, bounds included.
func IntIn(key string, n, low, high int) error {
	if n < low || n > high {
		return fmt.Errorf("%s: must be %d to %d, is %d", key, low, high, n)
	}
	return nil
}
