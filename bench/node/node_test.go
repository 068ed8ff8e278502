package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit/natstest"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"
)

func TestCountIsStrict(t *testing.T) {
	n := natstest.Start(t)
	nc, err := nats.Connect(n.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "T", Subjects: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(device string, sequences ...uint64) {
		tel := &telemetryv1.Telemetry{DeviceId: device}
		for _, s := range sequences {
			tel.Readings = append(tel.Readings, &telemetryv1.AcceptedReading{Reading: &telemetryv1.Reading{Sequence: s}})
		}
		raw, err := proto.Marshal(tel)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), "t", raw); err != nil {
			t.Fatal(err)
		}
	}
	s := &system{js: js}
	if got, err := s.count(t.Context(), stream, 1); got != 0 || err != nil {
		t.Errorf("count of an empty stream = %d, %v, want 0", got, err)
	}
	publish("a", 1, 2, 3)
	publish("b", 1)
	publish("a", 4)
	if got, err := s.count(t.Context(), stream, 5); got != 5 || err != nil {
		t.Errorf("count = %d, %v, want 5", got, err)
	}
	publish("b", 1)
	if _, err := s.count(t.Context(), stream, 5); err == nil || !strings.Contains(err.Error(), "reading 1 of b comes after 1") {
		t.Errorf("count of a stream with a double = %v", err)
	}
}

func TestService(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"/opt/xinghuo", "ingest", "-config", "x"}, "ingest"},
		{[]string{"/opt/xinghuo", "up", "--plain"}, "up"},
		{[]string{"/opt/xinghuo"}, "xinghuo"},
		{[]string{"/opt/bench", "-area", "node"}, "bench"},
	}
	for _, tt := range tests {
		if got := service(tt.args); got != tt.want {
			t.Errorf("service(%v) = %s, want %s", tt.args, got, tt.want)
		}
	}
}

func TestRowsOfARound(t *testing.T) {
	all := make(samples)
	for _, whose := range []string{"ours", "naive"} {
		for what, v := range map[string]float64{
			"calm rss": 30, "own rss": 30, "calm door pss": 20, "calm pss": 90, "calm p50": 2, "calm p99": 8, "closed rate": 62_000, "closed8 rate": 90_000,
			"bar rate": 31_000, "bar p50": 5, "bar p99": 9, "ladder": 36_000,
		} {
			all.add(what, whose, v)
		}
	}
	rows := all.rows(true)
	for _, r := range rows {
		if r.Ours == nil || r.Ratio == nil && r.Peer != nil || r.Met != nil && !*r.Met {
			t.Errorf("row %q is not whole or not met: %+v", r.Name, r)
		}
	}
	if r := rows[1]; *r.Peer != "reference, published" || *r.Ratio != 9.984 {
		t.Errorf("row against the reference has peer %s and ratio %v, want 9.984", *r.Peer, *r.Ratio)
	}
}

func TestANodeThatFailsIsTold(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "xinghuo")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no node here; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := start(ctx, broken, broken); err == nil || !strings.Contains(err.Error(), "no node here") {
		t.Errorf("start = %v, want what the program wrote", err)
	}
	if _, err := Run(t.Context(), Options{Binary: "/nonexistent"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run without a binary = %v, want ErrNotExist", err)
	}
}

func TestFreePortsAreDifferentAndFree(t *testing.T) {
	ports, err := freePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, p := range ports {
		ln, err := net.Listen("tcp", address(p))
		if err != nil || seen[p] {
			t.Errorf("port %s is taken (%v) or there twice", p, err)
			continue
		}
		seen[p] = true
		_ = ln.Close()
	}
}
