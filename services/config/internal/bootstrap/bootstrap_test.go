package bootstrap_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/bootstrap"
)

func TestDefaultIsGood(t *testing.T) {
	s := bootstrap.Default()
	if faults := s.Check(); len(faults) > 0 {
		t.Errorf("Check() = %v, want none", faults)
	}
	if got, want := s.Prefix(), "/xinghuo/site/node/"; got != want {
		t.Errorf("Prefix() = %q, want %q", got, want)
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name   string
		change func(*bootstrap.Etcd)
		want   string
	}{
		{"no endpoint", func(e *bootstrap.Etcd) { e.Endpoints = nil }, "etcd.endpoints: count: must be 1 to 16, is 0"},
		{"many endpoints", func(e *bootstrap.Etcd) {
			e.Endpoints = strings.Split(strings.Repeat("http://a:1,", 16)+"http://a:1", ",")
		}, "must be 1 to 16, is 17"},
		{"no scheme", func(e *bootstrap.Etcd) { e.Endpoints = []string{"127.0.0.1:2379"} }, "etcd.endpoints[0]: must look like"},
		{"no port", func(e *bootstrap.Etcd) { e.Endpoints = []string{"http://a"} }, "etcd.endpoints[0]: must look like"},
		{"password in URL", func(e *bootstrap.Etcd) { e.Endpoints = []string{"http://u:p@a:1"} }, "etcd.endpoints[0]: must look like"},
		{"mixed", func(e *bootstrap.Etcd) { e.Endpoints = []string{"http://a:1", "https://b:1"} }, "all http or all https"},
		{"TLS without https", func(e *bootstrap.Etcd) { e.CAFile = "/ca" }, "must be https"},
		{"key missing", func(e *bootstrap.Etcd) { e.Endpoints, e.CertFile = []string{"https://a:1"}, "/c" }, "etcd.key_file: must be given"},
		{"password missing", func(e *bootstrap.Etcd) { e.User = "xh" }, "etcd.password_file: must be given"},
		{"dial_timeout", func(e *bootstrap.Etcd) { e.DialTimeout = 0 }, "etcd.dial_timeout: must be"},
		{"request_timeout", func(e *bootstrap.Etcd) { e.RequestTimeout = time.Hour }, "etcd.request_timeout: must be"},
		{"heartbeat", func(e *bootstrap.Etcd) { e.Heartbeat = -1 }, "etcd.heartbeat: must be"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := bootstrap.Default()
			tt.change(&s.Etcd)
			if err := errors.Join(s.Check()...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check() = %v, want %q", err, tt.want)
			}
		})
	}
}
