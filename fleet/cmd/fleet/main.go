// Command fleet simulates meters that send real household data to a node.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/xinghuo-edge/xinghuo/fleet"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := fleet.Run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err == nil || errors.Is(err, settings.ErrDone) {
		return
	}
	fmt.Fprintln(os.Stderr, "fleet:", err)
	if bad := (*settings.Error)(nil); errors.As(err, &bad) {
		os.Exit(2) // as every program of the node
	}
	os.Exit(1)
}
