package fleet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"

	"github.com/xinghuo-edge/xinghuo/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// balanced checks what holds of every final report.
func balanced(t *testing.T, r fleet.Report) {
	t.Helper()
	if r.Sent == 0 || r.Sent != r.Acked+r.Rejected+r.Lost || r.InFlight != 0 {
		t.Errorf("sent %d = acked %d + rejected %d + lost %d does not hold, or in flight %d is not 0", r.Sent, r.Acked, r.Rejected, r.Lost, r.InFlight)
	}
}

func TestEveryReadingIsAnswered(t *testing.T) {
	tests := []struct {
		name  string
		node  *fakeNode
		tweak func(*fleet.Options)
	}{
		{"proto", &fakeNode{}, func(*fleet.Options) {}},
		{"json", &fakeNode{}, func(o *fleet.Options) { o.Subprotocol = fleet.JSON }},
		{"batches", &fakeNode{}, func(o *fleet.Options) { o.Batch = 8 }},
		{"json batches, hot ones", &fakeNode{}, func(o *fleet.Options) { o.Subprotocol, o.Batch, o.HotEvery = fleet.JSON, 8, 5 }},
		{"hot ones", &fakeNode{}, func(o *fleet.Options) { o.HotEvery = 3 }},
		{"closed loop", &fakeNode{window: 16}, func(o *fleet.Options) { o.Rate, o.HotEvery = 0, 7 }},
		{"closed loop in batches over the window", &fakeNode{window: 5}, func(o *fleet.Options) { o.Rate, o.Batch = 0, 8 }},
		{"own window", &fakeNode{}, func(o *fleet.Options) { o.Rate, o.Window = 0, 2 }},
		{"every reading its own wake-up", &fakeNode{}, func(o *fleet.Options) { o.Tick = 0 }},
		{"broken once", &fakeNode{breakAt: 20}, func(*fleet.Options) {}},
		{"broken once, a node that forgets", &fakeNode{breakAt: 20, forgets: true}, func(*fleet.Options) {}},
		{"broken once in a closed loop", &fakeNode{breakAt: 20, window: 16}, func(o *fleet.Options) { o.Rate, o.HotEvery = 0, 3 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.node.key = &devicetoken.Key{1}
			o := options(tt.node.start(t))
			o.Key = tt.node.key
			tt.tweak(&o)
			r, err := run(t, o, enough)
			if err != nil {
				t.Fatal(err)
			}
			balanced(t, r)
			got := tt.node.sum()
			if r.Lost != 0 || r.Sent != got.readings || r.Rejected != got.rejected || r.Faults != 0 || r.Refused != 0 {
				t.Errorf("report %v, but the node took %d and rejected %d", r, got.readings, got.rejected)
			}
			if r.Rejected != r.Hot || (o.HotEvery > 0) != (r.Hot > 0) {
				t.Errorf("rejected %d of %d hot readings, one of %d being hot", r.Rejected, r.Hot, o.HotEvery)
			}
			// What was on its way when the connection broke came only once.
			if r.Resent < got.repeated || got.gaps != 0 {
				t.Errorf("resent %d, the node saw %d again and %d gaps", r.Resent, got.repeated, got.gaps)
			}
			if broken := tt.node.breakAt > 0; broken != (r.Resent > 0) || broken != (r.Reconnects > 0) || got.connects != o.Meters+int(r.Reconnects) {
				t.Errorf("resent %d with %d reconnects, the node saw %d connects of %d meters", r.Resent, r.Reconnects, got.connects, o.Meters)
			}
			if tt.node.breakAt == 0 && o.Batch == 8 && tt.node.window >= 8 && (len(tt.node.batches) != 1 || tt.node.batches[8] == 0) {
				t.Errorf("frames by readings are %v, want all of 8", tt.node.batches)
			}
			if l := r.Latency; l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.Max {
				t.Errorf("latency %+v is not in order", l)
			}
		})
	}
}

func TestMetersStartAtRowsOfTheirOwn(t *testing.T) {
	n := fakeNode{}
	if _, err := run(t, options(n.start(t)), enough); err != nil {
		t.Fatal(err)
	}
	seen := make(map[float64]string)
	for id, d := range n.devices {
		names := make([]string, 0, 8)
		for _, v := range d.first.GetValues() {
			names = append(names, v.GetName())
		}
		want := "active_power_kilowatts reactive_power_kilovars voltage_volts current_amperes energy_1_watt_hours energy_2_watt_hours energy_3_watt_hours temperature"
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s sends %s, want %s", id, got, want)
		}
		if d.first.GetTime().AsTime().IsZero() {
			t.Errorf("%s sends no time", id)
		}
		power := d.first.GetValues()[0].GetNumber()
		if other, ok := seen[power]; ok {
			t.Errorf("%s and %s start with the same %v kW", id, other, power)
		}
		seen[power] = id
	}
}

func TestAFullWindowWithholds(t *testing.T) {
	t.Parallel()
	n := fakeNode{window: 8, ackEvery: 9} // it never acknowledges
	o := options(n.start(t))
	want := uint64(8 * o.Meters)
	r, err := run(t, o, func(r fleet.Report) bool { return r.Sent == want && r.Withheld > 0 })
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, r)
	if r.Sent != want || r.Lost != want || r.Withheld == 0 {
		t.Errorf("sent %d, lost %d, withheld %d; want %d, %d, some", r.Sent, r.Lost, r.Withheld, want, want)
	}
}

func TestCommandsAreAnswered(t *testing.T) {
	t.Parallel()
	n := fakeNode{commands: []string{`{"delay_ms":100}`, `{"silent":true}`, "hello", `{"delay_ms":"no"}`, ""}}
	o := options(n.start(t))
	o.Meters = 1
	r, err := run(t, o, func(fleet.Report) bool { return len(n.sum().results) == 4 })
	if err != nil {
		t.Fatal(err)
	}
	if r.Commands != 5 {
		t.Errorf("commands %d, want 5", r.Commands)
	}
	var ids []uint64
	for _, res := range n.sum().results {
		if want := n.commands[res.GetId()-1]; !res.GetOk() || string(res.GetPayload()) != want {
			t.Errorf("command %d answered %v %q, want true %q", res.GetId(), res.GetOk(), res.GetPayload(), want)
		}
		ids = append(ids, res.GetId())
	}
	if len(ids) != 4 || ids[3] != 1 {
		t.Errorf("answered %v, want 3, 4, 5 and then 1", ids)
	}
}

func TestRefusalsAreFinal(t *testing.T) {
	tests := []struct {
		name string
		node *fakeNode
		want int
	}{
		{"wrong token", &fakeNode{key: &devicetoken.Key{1}}, http.StatusUnauthorized},
		{"unauthorised", &fakeNode{closeAt: 3, closeAs: 4401}, 4401},
		{"replaced", &fakeNode{closeAt: 3, closeAs: 4409}, 4409},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := options(tt.node.start(t))
			r, err := run(t, o, func(fleet.Report) bool { return false }) // it ends by itself
			if !errors.Is(err, fleet.ErrRefused) {
				t.Errorf("Run = %v, want ErrRefused", err)
			}
			if r.Refused != o.Meters || len(r.Refusals) != o.Meters || r.Refusals[0].Code != tt.want || r.Reconnects != 0 {
				t.Errorf("report %v with %v, want all %d meters refused with %d", r, r.Refusals, o.Meters, tt.want)
			}
		})
	}
}

func TestOtherCloseCodesAreNot(t *testing.T) {
	t.Parallel()
	n := fakeNode{closeAt: 3, closeAs: websocket.CloseServiceRestart}
	r, err := run(t, options(n.start(t)), enough)
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, r)
	if r.Reconnects == 0 || r.Refused != 0 || r.Lost != 0 {
		t.Errorf("report %v, want reconnects, none refused and none lost", r)
	}
}

func TestANodeThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	o := options("ws://127.0.0.1:1")
	o.Duration = 300 * time.Millisecond
	f, err := fleet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Run(t.Context())
	if err != nil || r.Sent != 0 || r.Connected != 0 {
		t.Errorf("Run = %v, %v; want nothing sent and no error", r, err)
	}
	if _, err := f.Run(t.Context()); err == nil {
		t.Error("a second Run succeeded")
	}
}

func TestSnapshotsWhileItRuns(t *testing.T) {
	n := fakeNode{}
	o := options(n.start(t))
	var during fleet.Report
	r, err := run(t, o, func(r fleet.Report) bool { during = r; return enough(r) })
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, r)
	if during.Connected != o.Meters || during.Seconds <= 0 || during.Sent != during.Acked+during.InFlight || during.Lost != 0 {
		t.Errorf("snapshot %v, want %d connected and sent = acked + in flight", during, o.Meters)
	}
	if r.Lost != 0 || r.Connected != 0 {
		t.Errorf("report %v, want none lost, none connected", r)
	}
}

func TestRun(t *testing.T) {
	n := fakeNode{}
	url := n.start(t)
	var out bytes.Buffer
	if err := fleet.Run(t.Context(), []string{"-n", "2", "-rate", "100", "-url", url, "-for", "200ms", "-json"}, &out); err != nil {
		t.Fatal(err)
	}
	var r fleet.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, out.Bytes())
	}
	balanced(t, r)
	out.Reset()
	if err := fleet.Run(t.Context(), []string{"-n", "2", "-url", url, "-for", "200ms", "-report", "50ms", "-prefix", "b"}, &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "\nin all ") || !strings.Contains(got, "2/2 meters") {
		t.Errorf("Run wrote %q, want progress and a report", got)
	}
}

func TestRunRefuses(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"-n", "0"}, "n: must be 1 to 10000 meters, is 0"},
		{[]string{"-n", "x"}, "invalid value"},
		{[]string{"-rate", "-1"}, "rate: must be 0 to 10000 frames a second, is -1"},
		{[]string{"-rate", "NaN"}, "rate: must be"},
		{[]string{"-url", "http://x"}, `url: must be ws://host:port or wss://host:port, is "http://x"`},
		{[]string{"-batch", "65"}, "batch: must be 1 to 64 readings, is 65"},
		{[]string{"-subprotocol", "xml"}, `subprotocol: must be proto or json, is "xml"`},
		{[]string{"-prefix", "a b"}, `prefix: must be`},
		{[]string{"-hot-every", "-1"}, "hot-every: must not be negative"},
		{[]string{"-window", "-1"}, "window: must be 0 to 65536"},
		{[]string{"-tick", "2s"}, "tick: must be 0 to 1s, is 2s"},
		{[]string{"-for", "-1s"}, "for: must not be negative"},
		{[]string{"-report", "-1s"}, "report: must not be negative"},
		{[]string{"-token-key", "/nonexistent"}, "token-key: read token key"},
		{[]string{"now"}, "arguments: none are taken"},
	}
	for _, tt := range tests {
		err := fleet.Run(t.Context(), tt.args, new(bytes.Buffer))
		if bad := (*settings.Error)(nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Run(%v) = %v, want a settings error with %q", tt.args, err, tt.want)
		}
	}
	var out bytes.Buffer
	if err := fleet.Run(t.Context(), []string{"-h"}, &out); !errors.Is(err, settings.ErrDone) || !strings.Contains(out.String(), "-hot-every") {
		t.Errorf("Run(-h) = %v with %q, want ErrDone and the flags", err, out.String())
	}
}
