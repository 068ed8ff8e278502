package fleet

import (
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
)

// The sub-protocols of the node's device door.
const (
	Proto = "proto" // binary messages of protobuf
	JSON  = "json"  // text messages of protojson
)

const (
	maxMeters = 10_000 // ids have four digits, and a meter two goroutines
	maxRate   = 10_000 // frames a meter and second
	maxBatch  = 64     // ReadingBatch's own limit
	maxWindow = 1 << 16
)

// Options says what a fleet does. DefaultOptions has the defaults; New refuses
// values out of range.
type Options struct {
	// Meters is how many meters there are, 1 to 10,000.
	Meters int
	// Rate is readings a meter and second, up to 10,000 frames; 0 means as
	// fast as the node acknowledges: a closed loop.
	Rate float64
	// URL is the node's device door, ws or wss without a path.
	URL string
	// Key makes the meters' tokens; nil sends none.
	Key *devicetoken.Key
	// Duration ends the run; 0 runs until the context ends.
	Duration time.Duration
	// Subprotocol is Proto or JSON.
	Subprotocol string
	// Batch is readings a frame, 1 to 64.
	Batch int
	// Prefix starts each meter's id, `<prefix>-0001`; 1 to 48 of [A-Za-z0-9_-].
	Prefix string
	// HotEvery makes every so-manieth reading of each meter too hot for the
	// node's policy (over 85 °C); 0 makes none.
	HotEvery int
	// Window bounds the readings of a meter in flight below what the node
	// grants, 1 to 65,536; 0 leaves it to the node.
	Window int
	// Tick is the shortest time between two wake-ups of a meter, 0 to 1 s.
	// Readings that fall due in between go out together, each in its frame.
	Tick time.Duration
	// Log gets why a meter reconnects, at debug level; nil discards it.
	Log *slog.Logger
}

// DefaultOptions returns 128 meters at 50 readings a second each.
func DefaultOptions() Options {
	return Options{
		Meters: 128, Rate: 50, URL: "ws://127.0.0.1:8700", Subprotocol: Proto,
		Batch: 1, Prefix: "meter", Tick: 10 * time.Millisecond,
	}
}

var prefixToken = regexp.MustCompile(`^[A-Za-z0-9_-]{1,48}$`)

// Check returns every fault of the options.
func (o *Options) Check() []error {
	var faults []error
	refuse := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	refuse(o.Meters >= 1 && o.Meters <= maxMeters, "n: must be 1 to %d meters, is %d", maxMeters, o.Meters)
	refuse(o.Batch >= 1 && o.Batch <= maxBatch, "batch: must be 1 to %d readings, is %d", maxBatch, o.Batch)
	refuse(o.Rate >= 0 && o.Rate <= float64(maxRate*max(o.Batch, 1)), "rate: must be 0 to %d frames a second, is %v readings in frames of %d", maxRate, o.Rate, o.Batch)
	u, err := url.Parse(o.URL)
	refuse(err == nil && (u.Scheme == "ws" || u.Scheme == "wss") && u.Host != "" && (u.Path == "" || u.Path == "/"),
		"url: must be ws://host:port or wss://host:port, is %q", o.URL)
	refuse(o.Duration >= 0, "for: must not be negative, is %v", o.Duration)
	refuse(o.Subprotocol == Proto || o.Subprotocol == JSON, "subprotocol: must be %s or %s, is %q", Proto, JSON, o.Subprotocol)
	refuse(prefixToken.MatchString(o.Prefix), "prefix: must be 1 to 48 of [A-Za-z0-9_-], is %q", o.Prefix)
	refuse(o.HotEvery >= 0, "hot-every: must not be negative, is %d", o.HotEvery)
	refuse(o.Window >= 0 && o.Window <= maxWindow, "window: must be 0 to %d readings, is %d", maxWindow, o.Window)
	refuse(o.Tick >= 0 && o.Tick <= time.Second, "tick: must be 0 to 1s, is %v", o.Tick)
	return faults
}
