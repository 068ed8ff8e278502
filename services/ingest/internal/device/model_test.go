package device_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

const window = 8

// model is what a device should be, written down without locks or links.
type model struct {
	session, taken, acked         uint64
	received, delivered, rejected uint64
	dropped, connects             uint64
	flying                        []device.Item
	rejections                    []uint64
	connected                     bool
}

func TestDeviceIsAsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := device.NewRegistry(1)
		var d *device.Device
		var current *link
		var m model
		connect := func(session uint64) {
			current = new(link)
			var err error
			var acked uint64
			if d, acked, err = r.Connect("meter-1", current, device.Hello{Source: "ws", Session: session}); err != nil {
				t.Fatal(err)
			}
			if session != m.session {
				m.session, m.taken, m.acked, m.rejections = session, 0, 0, nil
			}
			m.connected = true
			m.connects++
			if acked != m.acked {
				t.Fatalf("Connect = acked %d, want %d", acked, m.acked)
			}
		}
		connect(1)
		t.Repeat(map[string]func(*rapid.T){
			"connect":   func(t *rapid.T) { connect(rapid.Uint64Range(1, 3).Draw(t, "session")) },
			"reconnect": func(*rapid.T) { connect(m.session) },
			"disconnect": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "an old link") {
					r.Disconnect(d, new(link))
					return
				}
				r.Disconnect(d, current)
				m.connected = false
			},
			"take": func(t *rapid.T) {
				first, n := rapid.Uint64Range(1, 30).Draw(t, "first"), rapid.IntRange(1, 12).Draw(t, "n")
				var in []*telemetryv1.Reading
				for s := range uint64(n) {
					in = append(in, &telemetryv1.Reading{Sequence: first + s, Time: timestamppb.Now()})
				}
				out, used, duplicates, err := d.Take(current, in, window, time.Now(), nil)
				if !m.connected {
					if !errors.Is(err, device.ErrReplaced) {
						t.Fatalf("Take over a link that is gone = %v, want ErrReplaced", err)
					}
					return
				}
				again := int(min(max(m.taken+1, first)-first, uint64(n)))
				fresh := min(n-again, window-len(m.flying))
				if err != nil || duplicates != again || len(out) != fresh || used != again+fresh {
					t.Fatalf("Take(%d readings from %d) = %d new, %d duplicates, %d used, %v; want %d, %d, %d", n, first, len(out), duplicates, used, err, fresh, again, again+fresh)
				}
				for i := range out {
					m.taken = first + uint64(again+i)
					if out[i].Reading.GetSequence() != m.taken || out[i].Session != m.session {
						t.Fatalf("item %d is %d of session %d, want %d of %d", i, out[i].Reading.GetSequence(), out[i].Session, m.taken, m.session)
					}
				}
				m.received += uint64(fresh)
				m.flying = append(m.flying, out...)
			},
			"done": func(t *rapid.T) {
				n := rapid.IntRange(0, len(m.flying)).Draw(t, "n")
				done := m.flying[:n]
				m.flying = m.flying[n:]
				for i := range done {
					it := &done[i]
					it.Outcome = device.Outcome(rapid.IntRange(0, 2).Draw(t, "outcome"))
					it.Reason = "why"
					switch it.Outcome {
					case device.Deliver:
						m.delivered++
					case device.Reject:
						m.rejected++
					case device.Drop:
						m.dropped++
					}
					if it.Session == m.session {
						m.acked = max(m.acked, it.Reading.GetSequence())
						if it.Outcome != device.Deliver && len(m.rejections) < 64 {
							m.rejections = append(m.rejections, it.Reading.GetSequence())
						}
					}
				}
				d.Done(done)
			},
			"acked": func(t *rapid.T) {
				sequence, rejections, err := d.Acked(current)
				if !m.connected {
					if !errors.Is(err, device.ErrReplaced) {
						t.Fatalf("Acked over a link that is gone = %v, want ErrReplaced", err)
					}
					return
				}
				if err != nil || sequence != m.acked || len(rejections) != len(m.rejections) {
					t.Fatalf("Acked = %d, %v, %v; want %d, %v", sequence, rejections, err, m.acked, m.rejections)
				}
				for i, want := range m.rejections {
					if rejections[i].Sequence != want {
						t.Fatalf("rejections = %v, want %v", rejections, m.rejections)
					}
				}
				m.rejections = nil
			},
			"": func(t *rapid.T) {
				i := d.Info(false)
				got := model{session: i.Session, acked: i.Acked, received: i.Received, delivered: i.Delivered, rejected: i.Rejected, dropped: i.Dropped["why"], connects: i.Connects, connected: i.Connected}
				if got.session != m.session || got.acked != m.acked || got.received != m.received || got.delivered != m.delivered ||
					got.rejected != m.rejected || got.dropped != m.dropped || got.connects != m.connects || got.connected != m.connected {
					t.Fatalf("device = %+v, want %+v", got, m)
				}
				if i.InFlight != uint64(len(m.flying)) || r.InFlight() != i.InFlight || i.Received != i.Delivered+i.Rejected+i.InFlight+i.Dropped["why"] {
					t.Fatalf("device does not balance: %+v, %d are flying", i, len(m.flying))
				}
			},
		})
	})
}

func TestPausedRegistryTakesNothing(t *testing.T) {
	l := new(link)
	r, d := connect(t, l)
	r.Pause()
	out, used, _, err := d.Take(l, []*telemetryv1.Reading{{Sequence: 1}}, window, time.Now(), nil)
	if !errors.Is(err, device.ErrPaused) || len(out) != 0 || used != 0 || r.InFlight() != 0 {
		t.Errorf("Take after Pause = %d items, %d used, %v; want none and ErrPaused", len(out), used, err)
	}
}

func TestATurnIsHeldByOneLink(t *testing.T) {
	_, d := connect(t, new(link))
	if !d.Enter(nil) {
		t.Fatal("Enter of a free device = false")
	}
	gone := make(chan struct{})
	close(gone)
	if d.Enter(gone) {
		t.Error("Enter while another has the turn = true, want false: it gave up")
	}
	d.Leave()
	if !d.Enter(nil) {
		t.Error("Enter after Leave = false")
	}
}

func TestStatusFollowsItsDevice(t *testing.T) {
	l := new(link)
	r, d := connect(t, l)
	reading := func(sequence uint64, at time.Time, values ...*telemetryv1.Value) {
		item := device.Item{Device: d, Reading: &telemetryv1.Reading{Sequence: sequence, Time: timestamppb.New(at), Values: values}}
		d.Show(&item)
		r.Changed(d)
	}
	status := func() device.Info {
		t.Helper()
		got := r.TakeChanged(10)
		if len(got) != 1 {
			t.Fatalf("TakeChanged = %d devices, want 1", len(got))
		}
		return got[0]
	}
	if got := status(); !got.Connected || got.StatusTime != got.ConnectTime || !got.LastSeen.IsZero() {
		t.Errorf("status of a new device = %+v, want it connected then, and no reading seen", got)
	}
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	before := r.Superseded()
	reading(1, at, &telemetryv1.Value{Name: "b", Number: 1}, &telemetryv1.Value{Name: "a", Number: 2})
	reading(2, at.Add(time.Second), &telemetryv1.Value{Name: "b", Number: 3})
	got := status()
	if got.Sequence != 2 || !got.StatusTime.Equal(at.Add(time.Second)) || len(got.Values) != 2 || got.Values[0].GetNumber() != 2 || got.Values[1].GetNumber() != 3 {
		t.Errorf("status = %+v, want sequence 2 and the last value of each name, by name", got)
	}
	if n := r.Superseded() - before; n != 1 {
		t.Errorf("superseded = %d, want 1", n)
	}
	r.Disconnect(d, l)
	if got := status(); got.Connected || !got.StatusTime.After(at.Add(time.Second)) || got.Sequence != 2 || len(got.Values) != 2 {
		t.Errorf("status after the end = %+v, want it disconnected now, with its values", got)
	}
	if got := r.TakeChanged(10); len(got) != 0 {
		t.Errorf("TakeChanged = %v, want none: nothing changed", got)
	}
}

func TestShadowIsBounded(t *testing.T) {
	_, d := connect(t, new(link))
	for i := range 300 {
		item := device.Item{Device: d, Reading: &telemetryv1.Reading{Sequence: uint64(i + 1), Values: []*telemetryv1.Value{{Name: "v" + string(rune('a'+i%26)) + string(rune('a'+i/26))}}}}
		d.Show(&item)
	}
	if got := len(d.Info(true).Values); got != 256 {
		t.Errorf("names = %d, want 256", got)
	}
}
