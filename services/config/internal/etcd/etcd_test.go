package etcd_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit/etcdtest"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/bootstrap"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/etcd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, cfg bootstrap.Etcd) (*clientv3.Client, error) {
	t.Helper()
	d, err := etcd.NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client, err := d.Dial(context.Background())
	if err == nil {
		t.Cleanup(func() { _ = client.Close() })
	}
	return client, err
}

func TestUserAndPassword(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cfg := bootstrap.Default().Etcd
	cfg.Endpoints = []string{etcdtest.Start(t).Endpoint()}
	admin, err := dial(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { _, err := admin.UserAdd(ctx, "root", "hunter2"); return err },
		func() error { _, err := admin.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := admin.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.Get(ctx, "/x"); err == nil {
		t.Error("Get without a user = nil, want it refused")
	}
	file := filepath.Join(t.TempDir(), "password")
	for password, good := range map[string]bool{"hunter2\n": true, "wrong": false} {
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.User, cfg.PasswordFile = "root", file
		client, err := dial(t, cfg)
		if good && err == nil {
			_, err = client.Get(ctx, "/x")
		}
		if (err == nil) != good {
			t.Errorf("password %q: error = %v, want good = %v", password, err, good)
		}
	}
}

func TestNewDialerNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*bootstrap.Etcd)
		want   string
	}{
		{"no CA", func(e *bootstrap.Etcd) { e.CAFile = dir + "/none" }, "etcd.ca_file: "},
		{"CA without certificate", func(e *bootstrap.Etcd) { e.CAFile = empty }, "holds no certificate"},
		{"big CA", func(e *bootstrap.Etcd) { e.CAFile = big }, "must be at most 1048576 bytes"},
		{"no certificate", func(e *bootstrap.Etcd) { e.CertFile, e.KeyFile = dir+"/none", dir+"/none" }, "etcd.cert_file: "},
		{"no password", func(e *bootstrap.Etcd) { e.User, e.PasswordFile = "a", dir+"/none" }, "etcd.password_file: "},
		{"empty password", func(e *bootstrap.Etcd) { e.User, e.PasswordFile = "a", empty }, "is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := bootstrap.Default().Etcd
			cfg.Endpoints = []string{"https://127.0.0.1:1"}
			tt.change(&cfg)
			if _, err := etcd.NewDialer(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewDialer() = %v, want %q", err, tt.want)
			}
		})
	}
}
