// Package watch shows readings to those who watch, and never waits for them.
package watch

import (
	"fmt"
	"sync"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

const (
	// buffer is how far a watcher may fall behind before it is cut off.
	buffer = 1024
	// maxWatchers bounds the memory that watchers cost.
	maxWatchers = 64
)

// Hub hands each item to every watcher. The zero value is ready.
type Hub struct {
	mu       sync.Mutex // guards watchers
	watchers map[*Watcher]struct{}
}

// Watcher receives items until it is closed or cut off.
type Watcher struct {
	// C is closed when the watcher was too slow.
	C      chan device.Item
	device string
}

// Watch adds a watcher of one device, or of all for an empty id.
func (h *Hub) Watch(id string) (*Watcher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.watchers) >= maxWatchers {
		return nil, fmt.Errorf("%w: %d watchers, the limit", fault.ErrExhausted, maxWatchers)
	}
	if h.watchers == nil {
		h.watchers = make(map[*Watcher]struct{})
	}
	w := &Watcher{C: make(chan device.Item, buffer), device: id}
	h.watchers[w] = struct{}{}
	return w, nil
}

// Close removes a watcher.
func (h *Hub) Close(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// Show hands items to the watchers, and cuts off who is too slow.
func (h *Hub) Show(items []device.Item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if !w.take(items) {
			delete(h.watchers, w)
			close(w.C)
		}
	}
}

func (w *Watcher) take(items []device.Item) bool {
	for i := range items {
		if w.device != "" && items[i].Device.ID != w.device {
			continue
		}
		select {
		case w.C <- items[i]:
		default:
			return false
		}
	}
	return true
}
