package engine

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// linesPerSecond and maxLine bound what one module writes to the log.
	linesPerSecond = 5
	maxLine        = 256
)

// guestLog passes what a module writes, and how it fails, to the service's log:
// a few lines a second, so that a guest cannot fill the disk or hold up
// readings.
type guestLog struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	second  int64
	lines   int
	dropped uint64 // since the last line that got through
}

func newGuestLog(log *slog.Logger, module string) *guestLog {
	return &guestLog{log: log.With("module", module)}
}

// admit reports whether a line may pass, and how many did not before it.
func (g *guestLog) admit() (dropped uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now().Unix(); now != g.second {
		g.second, g.lines = now, 0
	}
	if g.lines == linesPerSecond {
		g.dropped++
		return 0, false
	}
	g.lines++
	dropped, g.dropped = g.dropped, 0
	return dropped, true
}

// Write implements io.Writer for the guest's standard output and error.
func (g *guestLog) Write(p []byte) (int, error) {
	n := len(p)
	dropped, ok := g.admit()
	if !ok {
		return n, nil
	}
	line := bytes.TrimRight(p[:min(n, maxLine)], "\r\n")
	if !utf8.Valid(line) {
		line = bytes.ToValidUTF8(line, []byte("\ufffd"))
	}
	g.log.Info("module says", "text", string(line), "bytes", n, "lines_dropped", dropped)
	return n, nil
}

func (g *guestLog) failed(ctx context.Context, err error) {
	if dropped, ok := g.admit(); ok {
		g.log.WarnContext(ctx, "module could not judge", "err", err, "lines_dropped", dropped)
	}
}
