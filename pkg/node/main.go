package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// The exit codes of every program of the node.
const (
	ExitOrderly   = 0
	ExitFailed    = 1
	ExitBadConfig = 2
	ExitHandover  = 3
)

// Main is the whole main of a service: run until SIGINT or SIGTERM, say what
// went wrong, and turn it into an exit code.
func Main(name string, run func(ctx context.Context, args []string, logs io.Writer) error) {
	if len(os.Args) == 2 && (os.Args[1] == "version" || os.Args[1] == "-version") {
		_, _ = fmt.Fprintf(os.Stdout, "xinghuo-%s %s %s\n", name, Version, revision())
		return
	}
	os.Exit(Exec(name, os.Args[1:], run))
}

// Exec runs a service with signals and returns its exit code.
func Exec(name string, args []string, run func(ctx context.Context, args []string, logs io.Writer) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A service outlives an agent that is killed, and goes on when the pipe that
	// its log went to is gone: the write fails, instead of ending the process.
	signal.Ignore(syscall.SIGPIPE)
	err := run(ctx, args, os.Stderr)
	var bad *settings.Error
	switch {
	case err == nil, errors.Is(err, settings.ErrDone):
		return ExitOrderly
	case errors.As(err, &bad):
		_, _ = fmt.Fprintln(os.Stderr, bad)
		return ExitBadConfig
	}
	_, _ = fmt.Fprintf(os.Stderr, "xinghuo-%s: %v\n", name, err)
	return ExitFailed
}
