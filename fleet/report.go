package fleet

import (
	"fmt"
	"time"

	"github.com/xinghuo-edge/xinghuo/fleet/latency"
)

// Report is how a run stands, or how it ended. Always
// sent = acked + rejected + in_flight + lost.
type Report struct {
	Meters    int `json:"meters"`
	Connected int `json:"connected"` // meters that have had their Welcome
	Refused   int `json:"refused"`   // meters that the node refused for good
	// Refusals says why, for the first 16.
	Refusals []Refusal `json:"refusals,omitempty"`

	Seconds       float64 `json:"seconds"` // from Run to the last reading; without the drain
	SentPerSecond float64 `json:"sent_per_second"`

	Sent     uint64 `json:"sent"`      // distinct readings
	Resent   uint64 `json:"resent"`    // times a reading went out again after a reconnect
	Acked    uint64 `json:"acked"`     // readings that the node answers for
	Rejected uint64 `json:"rejected"`  // readings that policy rejected, as far as the node named them
	InFlight uint64 `json:"in_flight"` // readings not answered yet; 0 in the final report
	Lost     uint64 `json:"lost"`      // readings not answered at the end; 0 before
	Hot      uint64 `json:"hot"`       // readings sent that policy is to reject
	Withheld uint64 `json:"withheld"`  // readings that fell due while none might be sent
	Frames   uint64 `json:"frames"`    // frames with readings

	Reconnects uint64 `json:"reconnects"` // connections after a meter's first
	Faults     uint64 `json:"faults"`     // frames from the node that broke the protocol
	Commands   uint64 `json:"commands"`   // commands received

	Latency Latency `json:"latency"`
}

// Refusal is why a meter stopped.
type Refusal struct {
	Meter  string `json:"meter"`
	Code   int    `json:"code"` // WebSocket close code (4000 to 4999) or HTTP status
	Reason string `json:"reason"`
}

// String names the meter, the code and the reason.
func (r Refusal) String() string { return fmt.Sprintf("%s: %d %s", r.Meter, r.Code, r.Reason) }

// maxRefusals bounds a report.
const maxRefusals = 16

// Latency is from a reading's first sending to its acknowledgement, in
// microseconds, 3 % exact.
type Latency struct {
	P50  int64 `json:"p50_us"`
	P90  int64 `json:"p90_us"`
	P99  int64 `json:"p99_us"`
	P999 int64 `json:"p999_us"`
	Max  int64 `json:"max_us"`
	Mean int64 `json:"mean_us"`
}

func percentiles(c *latency.Counts) Latency {
	return Latency{
		P50: c.Percentile(50).Microseconds(), P90: c.Percentile(90).Microseconds(),
		P99: c.Percentile(99).Microseconds(), P999: c.Percentile(99.9).Microseconds(),
		Max: c.Max().Microseconds(), Mean: c.Mean().Microseconds(),
	}
}

// String is the report in one line.
func (r Report) String() string {
	us := func(n int64) time.Duration { return (time.Duration(n) * time.Microsecond).Round(10 * time.Microsecond) }
	return fmt.Sprintf("%.1fs  %d/%d meters  sent %d  acked %d  rejected %d  in flight %d  lost %d  withheld %d  resent %d  reconnects %d  refused %d  p50 %v  p99 %v",
		r.Seconds, r.Connected, r.Meters, r.Sent, r.Acked, r.Rejected, r.InFlight, r.Lost, r.Withheld, r.Resent, r.Reconnects, r.Refused,
		us(r.Latency.P50), us(r.Latency.P99))
}
