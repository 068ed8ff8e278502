package iec104

import (
	"errors"
	"fmt"
	"time"
)

// Config is the parameters of a connection (9.6 of the standard).
type Config struct {
	// K is the most I frames sent and not yet acknowledged, 1 to 32767.
	K int
	// W is how many I frames are received before they are acknowledged at the
	// latest, 1 to K. The standard advises at most two thirds of K.
	W int
	// T0 is how long the connection may take to stand.
	T0 time.Duration
	// T1 is how long the other side may take to acknowledge or confirm.
	T1 time.Duration
	// T2 is how long an acknowledgement may wait for more frames; less than T1.
	T2 time.Duration
	// T3 is how long nothing may be heard before a test is sent.
	T3 time.Duration
	// Interrogation is how long a general interrogation may take, from the
	// request to its termination.
	Interrogation time.Duration
	// Originator is this station's originator address, 0 when not used.
	Originator uint8
}

// Default returns the standard's defaults, and a minute for an interrogation.
func Default() Config {
	return Config{
		K: 12, W: 8,
		T0: 30 * time.Second, T1: 15 * time.Second, T2: 10 * time.Second, T3: 20 * time.Second,
		Interrogation: time.Minute,
	}
}

// maxTimer is the standard's largest timer but for t3, which may be two days.
const maxTimer, maxT3 = 255 * time.Second, 48 * time.Hour

// Check returns every fault of the parameters.
func (c Config) Check() error {
	var errs []error
	number := func(name string, got, low, high int) {
		if got < low || got > high {
			errs = append(errs, fmt.Errorf("%s: must be %d to %d, is %d", name, low, high, got))
		}
	}
	timer := func(name string, got, high time.Duration) {
		if got <= 0 || got > high {
			errs = append(errs, fmt.Errorf("%s: must be above 0 and at most %v, is %v", name, high, got))
		}
	}
	number("k", c.K, 1, modulus-1)
	number("w", c.W, 1, c.K)
	timer("t0", c.T0, maxTimer)
	timer("t1", c.T1, maxTimer)
	timer("t2", c.T2, maxTimer)
	timer("t3", c.T3, maxT3)
	timer("interrogation", c.Interrogation, time.Hour)
	if c.T2 >= c.T1 {
		errs = append(errs, fmt.Errorf("t2: must be less than t1, %v, is %v", c.T1, c.T2))
	}
	return errors.Join(errs...)
}
