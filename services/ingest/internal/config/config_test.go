package config_test

import (
	"errors"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/config"
)

func TestCheck(t *testing.T) {
	valid := config.Default()
	if err := errors.Join(valid.Check()...); err != nil {
		t.Errorf("Check(Default()) = %v, want nil", err)
	}
	for want, change := range map[string]func(*config.Config){
		`listen: must be host:port, is "8700"`:                   func(c *config.Config) { c.Listen = "8700" },
		"nats_url: must not be empty":                            func(c *config.Config) { c.NATSURL = "" },
		`policy_mode: must be hold, pass or drop, is "maybe"`:    func(c *config.Config) { c.PolicyMode = "maybe" },
		"telemetry.max_bytes: must be 0 or more, is -1":          func(c *config.Config) { c.Telemetry.MaxBytes = -1 },
		"events.max_age: must be 0s or at least 1s, is 10ms":     func(c *config.Config) { c.Events.MaxAge = 10 * time.Millisecond },
		"telemetry.max_age: must be 0s or at least 1s, is -1m0s": func(c *config.Config) { c.Telemetry.MaxAge = -time.Minute },
	} {
		cfg := config.Default()
		change(&cfg)
		if got := errors.Join(cfg.Check()...); got == nil || got.Error() != want {
			t.Errorf("Check = %v, want %s", got, want)
		}
	}
	cfg := config.Default()
	cfg.Window, cfg.MaxDevices, cfg.MaxPending, cfg.BatchDelay, cfg.StatusInterval = 0, 0, 0, -1, 0
	if got := cfg.Check(); len(got) != 5 {
		t.Errorf("Check = %v, want all 5 faults at once", got)
	}
}
