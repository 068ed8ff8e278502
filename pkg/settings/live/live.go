// Package live applies the settings that change while a service runs: those
// that the config service keeps for it.
package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	configv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/config/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

// Apply takes the new value of one setting; removed says that it is to go back
// to its bootstrap value. An error refuses the value: the last good one is to
// stay.
type Apply func(name, value string, removed bool) error

// Watch applies the settings of a service until ctx ends: first those that are
// there, then every change. While the config service is away nothing changes.
func Watch(ctx context.Context, log *slog.Logger, conn grpc.ClientConnInterface, service string, apply Apply) error {
	w := &watcher{log: log, client: configv1.NewConfigServiceClient(conn), service: service, apply: apply, known: make(map[string]int64)}
	pause := firstPause
	for {
		progress, err := w.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if progress {
			pause = firstPause
		}
		log.DebugContext(ctx, "settings watch ended", "err", err, "retry_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = min(2*pause, maxPause)
	}
}

type watcher struct {
	log     *slog.Logger
	client  configv1.ConfigServiceClient
	service string
	apply   Apply
	known   map[string]int64 // name to the revision that was taken
}

// stream takes a whole snapshot each time it connects, so that a setting that
// was removed while the config service was away is noticed by its absence.
func (w *watcher) stream(ctx context.Context) (progress bool, err error) {
	stream, err := w.client.Watch(mesh.LongLived(ctx), &configv1.WatchRequest{Service: w.service})
	if err != nil {
		return false, fmt.Errorf("watch settings: %w", err)
	}
	snapshot := make(map[string]bool)
	for {
		resp, err := stream.Recv()
		if err != nil {
			return progress, fmt.Errorf("watch settings: %w", err)
		}
		progress = true
		switch e := resp.GetEvent().(type) {
		case *configv1.WatchResponse_Put:
			snapshot[e.Put.GetName()] = true
			w.take(ctx, e.Put.GetName(), e.Put.GetValue(), e.Put.GetRevision(), false)
		case *configv1.WatchResponse_Deleted:
			w.take(ctx, e.Deleted.GetName(), "", e.Deleted.GetRevision(), true)
		case *configv1.WatchResponse_Synced:
			for name, revision := range w.known {
				if !snapshot[name] {
					w.take(ctx, name, "", revision+1, true)
				}
			}
		}
	}
}

// take applies a change that is newer than what was taken before. A value that
// is refused counts as taken: it would be refused again.
func (w *watcher) take(ctx context.Context, name, value string, revision int64, removed bool) {
	if known, ok := w.known[name]; ok && revision <= known {
		return
	}
	if removed {
		delete(w.known, name)
	} else {
		w.known[name] = revision
	}
	if err := w.apply(name, value, removed); err != nil {
		w.log.WarnContext(ctx, "setting refused", "setting", name, "revision", revision, "err", err)
		return
	}
	w.log.InfoContext(ctx, "setting applied", "setting", name, "revision", revision, "removed", removed)
}

// ErrUnknown is a setting that the service does not have.
var ErrUnknown = errors.New("unknown setting")
