// Package live applies the settings that change while a service runs: those
// that the config service keeps for it.
package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
// there, then every change. While the config service or its etcd is away nothing
// changes. apply is called by one goroutine, for each revision of a setting at
// most once.
func Watch(ctx context.Context, log *slog.Logger, conn grpc.ClientConnInterface, service string, apply Apply) error {
	w := &watcher{log: log, client: configv1.NewConfigServiceClient(conn), service: service, apply: apply, known: make(map[string]taken)}
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
	known   map[string]taken
}

// taken is what was last taken of a setting.
type taken struct {
	revision int64
	removed  bool
}

// maxRemoved bounds how many removed settings are remembered.
const maxRemoved = 4096

// errReplaced is a config service whose settings do not continue the known
// ones.
var errReplaced = errors.New("the settings' history was replaced; taking all of them again")

// stream takes a whole snapshot each time it connects, so that a setting that
// was removed while the config service was away is noticed by its absence. As
// long as the config service itself is cut off from etcd, absence says nothing.
func (w *watcher) stream(ctx context.Context) (progress bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream when it is left early
	stream, err := w.client.Watch(mesh.LongLived(ctx), &configv1.WatchRequest{Service: w.service})
	if err != nil {
		return false, fmt.Errorf("watch settings: %w", err)
	}
	there := make(map[string]bool)
	for {
		resp, err := stream.Recv()
		if err != nil {
			return progress, fmt.Errorf("watch settings: %w", err)
		}
		progress = true
		switch e := resp.GetEvent().(type) {
		case *configv1.WatchResponse_Put:
			there[e.Put.GetName()] = true
			w.take(ctx, e.Put.GetName(), e.Put.GetValue(), e.Put.GetRevision(), false)
		case *configv1.WatchResponse_Deleted:
			delete(there, e.Deleted.GetName())
			w.take(ctx, e.Deleted.GetName(), "", e.Deleted.GetRevision(), true)
		case *configv1.WatchResponse_Synced:
			if e.Synced.GetFreshness().GetStale() {
				continue
			}
			if err := w.removeAbsent(ctx, there, resp.GetRevision()); err != nil {
				return progress, err
			}
		}
	}
}

// removeAbsent removes what is known and not there at a revision.
func (w *watcher) removeAbsent(ctx context.Context, there map[string]bool, revision int64) error {
	for _, k := range w.known {
		if k.revision <= revision {
			continue
		}
		// Someone made etcd anew and the config service was told to take it:
		// the old revisions say nothing any more.
		for name, k := range w.known {
			w.known[name] = taken{0, k.removed}
		}
		return errReplaced
	}
	for name, k := range w.known {
		if !there[name] && !k.removed {
			w.take(ctx, name, "", revision, true)
		}
	}
	return nil
}

// take applies a change that is newer than what was taken before. A value that
// is refused counts as taken: it would be refused again.
func (w *watcher) take(ctx context.Context, name, value string, revision int64, removed bool) {
	old, known := w.known[name]
	if known && revision <= old.revision {
		return
	}
	if removed && len(w.known) >= maxRemoved {
		maps.DeleteFunc(w.known, func(_ string, k taken) bool { return k.removed })
	}
	w.known[name] = taken{revision, removed}
	if removed && (!known || old.removed) {
		return // it has its bootstrap value already
	}
	if err := w.apply(name, value, removed); err != nil {
		w.log.WarnContext(ctx, "setting refused", "setting", name, "revision", revision, "err", err)
		return
	}
	w.log.InfoContext(ctx, "setting applied", "setting", name, "revision", revision, "removed", removed)
}

// ErrUnknown is a setting that the service does not have.
var ErrUnknown = errors.New("unknown setting")
