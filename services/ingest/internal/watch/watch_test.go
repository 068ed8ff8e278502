package watch_test

import (
	"errors"
	"testing"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/watch"
)

func item(id string, sequence uint64) device.Item {
	return device.Item{Device: &device.Device{ID: id}, Reading: &telemetryv1.Reading{Sequence: sequence}}
}

func watcher(t *testing.T, h *watch.Hub, id string) *watch.Watcher {
	t.Helper()
	w, err := h.Watch(id)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWatchersSeeTheirDevices(t *testing.T) {
	var h watch.Hub
	all, one, closed := watcher(t, &h, ""), watcher(t, &h, "b"), watcher(t, &h, "")
	h.Close(closed)
	h.Show([]device.Item{item("a", 1), item("b", 2), item("a", 3)})
	if len(all.C) != 3 || len(one.C) != 1 || len(closed.C) != 0 {
		t.Errorf("watchers have %d, %d, %d, want 3, 1, 0", len(all.C), len(one.C), len(closed.C))
	}
	if got := (<-one.C).Reading.GetSequence(); got != 2 {
		t.Errorf("watcher of b saw %d, want 2", got)
	}
}

func TestASlowWatcherIsCutOff(t *testing.T) {
	var h watch.Hub
	slow, fast := watcher(t, &h, ""), watcher(t, &h, "")
	const sent = 1100
	for i := range uint64(sent) {
		h.Show([]device.Item{item("a", i)})
		if got := (<-fast.C).Reading.GetSequence(); got != i {
			t.Fatalf("the fast watcher saw %d, want %d", got, i)
		}
	}
	n := uint64(0)
	for it := range slow.C { // ends: it was closed
		if it.Reading.GetSequence() != n {
			t.Fatalf("the slow watcher saw %d, want %d", it.Reading.GetSequence(), n)
		}
		n++
	}
	if n != 1024 {
		t.Errorf("the slow watcher saw %d, want the 1024 that it had room for", n)
	}
	h.Close(slow) // as its reader does, too late
}

func TestWatchersAreBounded(t *testing.T) {
	var h watch.Hub
	first := watcher(t, &h, "")
	for range 63 {
		watcher(t, &h, "")
	}
	if _, err := h.Watch(""); !errors.Is(err, fault.ErrExhausted) {
		t.Errorf("the 65th Watch = %v, want ErrExhausted", err)
	}
	h.Close(first)
	watcher(t, &h, "")
}
