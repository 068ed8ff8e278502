// Package config is the agent's bootstrap settings.
package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// maxServices bounds what one agent supervises.
const maxServices = 64

// Config is the agent's settings.
type Config struct {
	settings.Node `yaml:",inline"`

	Listen       string   `yaml:"listen" usage:"address of the HTTP door for metrics, health and profiles; empty for none"`
	Services     []string `yaml:"services" usage:"the services in the order of their start; they stop in the reverse order"`
	Command      []string `yaml:"command" usage:"how a service is started, {service} standing for its name; empty for this binary with the name as argument"`
	StopServices bool     `yaml:"stop_services" usage:"stop the services when the agent stops; otherwise the next agent adopts them"`
	LogDir       string   `yaml:"log_dir" usage:"folder of the services' logs, <service>.log, of which each is bounded; empty passes them on to the agent's log"`
}

// Default returns the settings of an edge box.
func Default() Config {
	return Config{
		Node:         settings.DefaultNode(),
		Listen:       "127.0.0.1:8600",
		Services:     []string{"config", "crypto", "firewall", "policy", "broadcast", "ingest"},
		StopServices: true,
	}
}

// Check implements settings.Checker.
func (c *Config) Check() []error {
	faults := c.Node.Check()
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			faults = append(faults, fmt.Errorf("listen: must be host:port or empty, is %q", c.Listen))
		}
	}
	if n := len(c.Services); n < 1 || n > maxServices {
		faults = append(faults, fmt.Errorf("services: must be 1 to %d names, are %d", maxServices, n))
	}
	for i, name := range c.Services {
		switch {
		case settings.Token("services", name) != nil:
			faults = append(faults, settings.Token("services", name))
		case name == "agent":
			faults = append(faults, fmt.Errorf("services: must not hold the agent itself"))
		case slices.Contains(c.Services[:i], name):
			faults = append(faults, fmt.Errorf("services: %q stands twice", name))
		}
	}
	if len(c.Command) > 0 {
		if c.Command[0] == "" {
			faults = append(faults, fmt.Errorf("command: the program must not be empty"))
		}
		if !slices.ContainsFunc(c.Command, func(s string) bool { return strings.Contains(s, "{service}") }) {
			faults = append(faults, fmt.Errorf("command: must hold {service}, is %q", c.Command))
		}
	}
	if c.LogDir != "" && !filepath.IsAbs(c.LogDir) {
		faults = append(faults, fmt.Errorf("log_dir: must be an absolute path or empty, is %q", c.LogDir))
	}
	return faults
}
