package ports_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/node/internal/ports"
)

func TestCheck(t *testing.T) {
	free, err := ports.Free("127.0.0.1", 2)
	if err != nil {
		t.Fatal(err)
	}
	if free[0] == free[1] {
		t.Errorf("Free = %v, want two different ports", free)
	}
	if err := ports.Check("127.0.0.1", free[0]); err != nil {
		t.Errorf("Check of a free port = %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	err = ports.Check("127.0.0.1", port)
	var taken *ports.TakenError
	if !errors.As(err, &taken) || taken.Holder.PID != os.Getpid() {
		t.Errorf("Check of a taken port = %v, want this process as its holder", err)
	}
	if err != nil && !strings.Contains(err.Error(), "ss -ltnp") {
		t.Errorf("Check = %q, want a way to find the holder", err)
	}
}
