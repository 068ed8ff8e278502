// Package etcdtest gives a test an etcd member of its own.
package etcdtest

import (
	"testing"

	"github.com/xinghuo-edge/xinghuo/pkg/embedded/etcdd"
)

// Start starts a member on a free port; it ends with the test.
func Start(t testing.TB) *etcdd.Member {
	t.Helper()
	m, err := etcdd.Start(t.Context(), etcdd.Options{Dir: t.TempDir(), Client: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return m
}
