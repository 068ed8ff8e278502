package tests

import (
	"net"
	"testing"
	"time"

	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
)

func (n *node) command(device, payload string, deadlineMS uint32) error {
	_, err := ingestv1.NewIngestServiceClient(n.conn("ingest")).SendCommand(n.ctx(20*time.Second), &ingestv1.SendCommandRequest{
		DeviceId: device, Payload: []byte(payload), DeadlineMs: deadlineMS,
	})
	return err
}

// queueDrops returns the devices with drops and how many those are.
func (n *node) queueDrops() (devices map[string]uint64, total uint64) {
	n.t.Helper()
	devices = make(map[string]uint64)
	req := &broadcastv1.ListQueuesRequest{PageSize: 50}
	for {
		resp, err := broadcastv1.NewBroadcastServiceClient(n.conn("broadcast")).ListQueues(n.ctx(10*time.Second), req)
		if err != nil {
			n.t.Fatalf("ListQueues: %v", err)
		}
		for _, q := range resp.GetQueues() {
			if d := sum(q.GetDropped()); d > 0 {
				devices[q.GetDeviceId()] = d
				total += d
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return devices, total
		}
	}
}

// deafBroker accepts MQTT connections, answers CONNECT with CONNACK, and then
// reads nothing and says nothing.
func deafBroker(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			buf := make([]byte, 1024)
			if _, err := c.Read(buf); err == nil {
				_, _ = c.Write([]byte{0x20, 0x02, 0x00, 0x00}) // CONNACK, accepted (MQTT 3.1.1, section 3.2)
			}
		}
	}()
	return ln.Addr().String()
}
