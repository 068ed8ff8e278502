package tests

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"
)

// stored is what JetStream holds of the devices' readings.
type stored struct {
	distinct   int
	duplicates int
	disorder   int
	last       map[string]uint64 // device to its highest sequence
	hot        int               // readings with a temperature above 85
}

// telemetry reads the whole telemetry stream.
func (n *node) telemetry() stored {
	n.t.Helper()
	s := stored{last: make(map[string]uint64)}
	type key struct {
		device            string
		session, sequence uint64
	}
	seen := make(map[key]bool)
	n.each("XH_TEL_site_node", func(m jetstream.Msg) {
		var tel telemetryv1.Telemetry
		if err := proto.Unmarshal(m.Data(), &tel); err != nil {
			n.t.Errorf("telemetry on %s: %v", m.Subject(), err)
			return
		}
		for _, a := range tel.GetReadings() {
			k := key{tel.GetDeviceId(), tel.GetSession(), a.GetReading().GetSequence()}
			if seen[k] {
				s.duplicates++
				continue
			}
			seen[k] = true
			s.distinct++
			if k.sequence < s.last[k.device] {
				s.disorder++
			}
			s.last[k.device] = max(s.last[k.device], k.sequence)
			for _, v := range a.GetReading().GetValues() {
				if v.GetName() == "temperature" && v.GetNumber() > 85 {
					s.hot++
				}
			}
		}
	})
	return s
}

// rejected counts the distinct rejected readings among ingest's events.
func (n *node) rejected() int {
	n.t.Helper()
	seen := make(map[string]bool)
	n.each("XH_EVT_site_node", func(m jetstream.Msg) {
		if m.Headers().Get("Xh-Event") != "reading-rejected" {
			return
		}
		var r telemetryv1.RejectedReading
		if err := proto.Unmarshal(m.Data(), &r); err != nil {
			n.t.Errorf("event: %v", err)
			return
		}
		seen[fmt.Sprint(r.GetDeviceId(), r.GetSession(), r.GetReading().GetSequence())] = true
	})
	return len(seen)
}

// each hands every message of a stream to take, in order.
func (n *node) each(stream string, take func(jetstream.Msg)) {
	n.t.Helper()
	nc, err := nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", n.ports["nats"]))
	if err != nil {
		n.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		n.t.Fatal(err)
	}
	left := int(s.CachedInfo().State.Msgs)
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		n.t.Fatal(err)
	}
	for left > 0 {
		batch, err := c.Fetch(min(left, 1000), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			n.t.Fatal(err)
		}
		got := 0
		for m := range batch.Messages() {
			take(m)
			got++
		}
		if got == 0 {
			n.t.Fatalf("stream %s: %d messages did not come: %v", stream, left, batch.Error())
		}
		left -= got
	}
}
