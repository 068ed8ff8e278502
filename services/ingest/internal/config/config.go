// Package config is ingest's bootstrap configuration, and the part of it that
// changes while ingest runs.
package config

import (
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/evaluate"
)

// Config is ingest's configuration.
type Config struct {
	settings.Node  `yaml:",inline"`
	Listen         string        `yaml:"listen" usage:"address of the device door"`
	TokenKeyFile   string        `yaml:"token_key_file" usage:"key of the device tokens, 32 bytes; empty means token.key in the state folder, drawn at the first start"`
	NATSURL        string        `yaml:"nats_url" usage:"where NATS is"`
	MaxDevices     int           `yaml:"max_devices" usage:"devices that ingest knows at the most, 1 to 1000000"`
	MaxPending     int           `yaml:"max_pending" usage:"connections that have not said who they are, 1 to 100000; the oldest goes"`
	Window         int           `yaml:"window" usage:"unacknowledged readings of a device, 1 to 4096"`
	BatchDelay     time.Duration `yaml:"batch_delay" usage:"how long an incomplete batch waits for policy, 0s to 1s; live"`
	StatusInterval time.Duration `yaml:"status_interval" usage:"how often a device's status goes to broadcast at the most, 1ms to 1h; live"`
	PolicyMode     string        `yaml:"policy_mode" usage:"what happens while policy is away: hold, pass or drop"`
	Telemetry      Stream        `yaml:"telemetry"`
	Events         Stream        `yaml:"events"`
}

// Stream bounds a JetStream stream; 0 means no bound.
type Stream struct {
	MaxBytes int64         `yaml:"max_bytes" usage:"size of the stream"`
	MaxAge   time.Duration `yaml:"max_age" usage:"age of its oldest message"`
}

// Default returns the configuration of an edge box.
func Default() Config {
	return Config{
		Node:   settings.DefaultNode(),
		Listen: "127.0.0.1:8700", NATSURL: "nats://127.0.0.1:4222",
		MaxDevices: 10_000, MaxPending: 1024, Window: 256,
		BatchDelay: 5 * time.Millisecond, StatusInterval: 100 * time.Millisecond,
		PolicyMode: string(evaluate.Hold),
		Telemetry:  Stream{MaxBytes: 512 << 20, MaxAge: 7 * 24 * time.Hour},
		Events:     Stream{MaxBytes: 64 << 20, MaxAge: 30 * 24 * time.Hour},
	}
}

// TokenKey returns the path of the token key.
func (c *Config) TokenKey() string {
	if c.TokenKeyFile != "" {
		return c.TokenKeyFile
	}
	return filepath.Join(c.StateDir, "ingest", "token.key")
}

// Check implements settings.Checker.
func (c *Config) Check() []error {
	faults := c.Node.Check()
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("listen: must be host:port, is %q", c.Listen))
	}
	if c.NATSURL == "" {
		faults = append(faults, fmt.Errorf("nats_url: must not be empty"))
	}
	switch evaluate.Mode(c.PolicyMode) {
	case evaluate.Hold, evaluate.Pass, evaluate.Drop:
	default:
		faults = append(faults, fmt.Errorf("policy_mode: must be hold, pass or drop, is %q", c.PolicyMode))
	}
	for _, err := range []error{
		settings.IntIn("max_devices", c.MaxDevices, 1, 1_000_000),
		settings.IntIn("max_pending", c.MaxPending, 1, 100_000),
		settings.IntIn("window", c.Window, 1, 4096),
		CheckBatchDelay(c.BatchDelay),
		CheckStatusInterval(c.StatusInterval),
	} {
		if err != nil {
			faults = append(faults, err)
		}
	}
	faults = append(faults, c.Telemetry.check("telemetry")...)
	return append(faults, c.Events.check("events")...)
}

func (s Stream) check(name string) []error {
	var faults []error
	if s.MaxBytes < 0 {
		faults = append(faults, fmt.Errorf("%s.max_bytes: must be 0 or more, is %d", name, s.MaxBytes))
	}
	if s.MaxAge != 0 && s.MaxAge < time.Second { // JetStream refuses less than 100 ms
		faults = append(faults, fmt.Errorf("%s.max_age: must be 0s or at least 1s, is %v", name, s.MaxAge))
	}
	return faults
}

// CheckBatchDelay checks the range of batch_delay.
func CheckBatchDelay(d time.Duration) error {
	return settings.DurationIn("batch_delay", d, 0, time.Second)
}

// CheckStatusInterval checks the range of status_interval.
func CheckStatusInterval(d time.Duration) error {
	return settings.DurationIn("status_interval", d, time.Millisecond, time.Hour)
}
