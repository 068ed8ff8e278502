package etcdd_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/xinghuo-edge/xinghuo/pkg/embedded/etcdd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestRestartKeepsAddressAndData is what `xinghuo up` does every day.
func TestRestartKeepsAddressAndData(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dir, address := t.TempDir(), "127.0.0.1:0"
	for i, want := range []string{"", "0", "1"} {
		m, err := etcdd.Start(ctx, etcdd.Options{Dir: dir, Client: address})
		if err != nil {
			t.Fatal(err)
		}
		address = strings.TrimPrefix(m.Endpoint(), "http://")
		c := connect(t, m.Endpoint())
		resp, err := c.Get(ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(resp.Kvs) > 0 {
			got = string(resp.Kvs[0].Value)
		}
		if got != want {
			t.Errorf("start %d: k = %q, want %q", i, got, want)
		}
		if _, err := c.Put(ctx, "k", string(rune('0'+i))); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		m.Stop()
		m.Stop() // does nothing
	}
}

func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		opts etcdd.Options
	}{
		{"address taken", t.Context(), etcdd.Options{Dir: t.TempDir(), Client: taken.Addr().String()}},
		{"folder is a file", t.Context(), etcdd.Options{Dir: "/dev/null", Client: "127.0.0.1:0"}},
		{"canceled", canceled, etcdd.Options{Dir: t.TempDir(), Client: "127.0.0.1:0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := etcdd.Start(tt.ctx, tt.opts)
			if err == nil {
				m.Stop()
				t.Error("Start() = nil, want an error")
			}
		})
	}
}
