package device

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// Registry holds every device that was seen since the start.
type Registry struct {
	max        int
	paused     atomic.Bool
	superseded atomic.Uint64

	mu      sync.RWMutex // guards devices and sorted; before Device.mu
	devices map[string]*Device
	sorted  []*Device // by id

	changedMu sync.Mutex // guards changed; after Device.mu
	changed   []*Device
}

// NewRegistry returns a registry for at most maxDevices devices.
func NewRegistry(maxDevices int) *Registry {
	return &Registry{max: maxDevices, devices: make(map[string]*Device)}
}

// Hello is what a device says of itself as it connects.
type Hello struct {
	Source          string
	Session         uint64
	Model, Firmware string
}

// Connect gives the device to a link. The newest link wins: the one before it
// is told. acked is the highest sequence of this session that is acknowledged.
func (r *Registry) Connect(id string, link Link, hello Hello) (d *Device, acked uint64, err error) {
	d, err = r.getOrAdd(id)
	if err != nil {
		return nil, 0, err
	}
	now := time.Now()
	d.mu.Lock()
	old := d.link
	d.link = link
	if old != nil {
		d.commands.failAll(fmt.Errorf("%w: device %s connected again", fault.ErrUnavailable, id))
	}
	if hello.Session != d.info.Session {
		d.info.Session, d.info.Acked, d.taken, d.rejections = hello.Session, 0, 0, nil
	}
	d.info.Source, d.info.Model, d.info.Firmware = hello.Source, hello.Model, hello.Firmware
	d.info.ConnectTime, d.info.StatusTime = now, now
	d.info.Connects++
	acked = d.info.Acked
	d.mu.Unlock()
	if old != nil {
		old.Replaced()
	}
	r.Changed(d)
	return d, acked, nil
}

// Disconnect takes the link from its device, unless a newer one has it.
func (r *Registry) Disconnect(d *Device, link Link) {
	if d.disconnect(link) {
		r.Changed(d)
	}
}

func (r *Registry) getOrAdd(id string) (*Device, error) {
	if d := r.Get(id); d != nil {
		return d, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.devices[id]; d != nil {
		return d, nil
	}
	if len(r.devices) >= r.max {
		return nil, fmt.Errorf("%w: max_devices is %d", fault.ErrExhausted, r.max)
	}
	d := &Device{ID: id, room: make(chan struct{}, 1), turn: make(chan struct{}, 1), paused: &r.paused}
	r.devices[id] = d
	i, _ := r.search(id)
	r.sorted = slices.Insert(r.sorted, i, d)
	return d, nil
}

func (r *Registry) search(id string) (int, bool) {
	return slices.BinarySearchFunc(r.sorted, id, func(d *Device, id string) int { return cmp.Compare(d.ID, id) })
}

// Get returns the device of that id, or nil.
func (r *Registry) Get(id string) *Device {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.devices[id]
}

// Page returns up to n devices whose id comes after the given one, by id.
func (r *Registry) Page(after string, n int) []*Device {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i, found := r.search(after)
	if found {
		i++
	}
	return slices.Clone(r.sorted[i:min(i+n, len(r.sorted))])
}

// Connected counts the devices that have a link.
func (r *Registry) Connected() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := 0
	for _, d := range r.sorted {
		d.mu.Lock()
		if d.link != nil {
			n++
		}
		d.mu.Unlock()
	}
	return n
}

// Pause takes no more readings in from any device.
func (r *Registry) Pause() { r.paused.Store(true) }

// InFlight counts the readings that were taken in and are on their way. After
// Pause it only falls.
func (r *Registry) InFlight() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var n uint64
	for _, d := range r.sorted {
		d.mu.Lock() // who had it during Pause has counted what it took
		n += d.info.InFlight
		d.mu.Unlock()
	}
	return n
}

// Superseded counts the statuses that a newer one took the place of.
func (r *Registry) Superseded() uint64 { return r.superseded.Load() }

// Changed notes that a device's status is to be published.
func (r *Registry) Changed(d *Device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirty {
		r.superseded.Add(1)
		return
	}
	d.dirty = true
	r.changedMu.Lock()
	defer r.changedMu.Unlock()
	r.changed = append(r.changed, d)
}

// TakeChanged returns the state of up to n devices that have changed since they
// were last taken, the longest waiting first.
func (r *Registry) TakeChanged(n int) []Info {
	r.changedMu.Lock()
	n = min(n, len(r.changed))
	devices := slices.Clone(r.changed[:n])
	r.changed = slices.Delete(r.changed, 0, n)
	r.changedMu.Unlock()
	infos := make([]Info, 0, n)
	for _, d := range devices {
		d.mu.Lock()
		d.dirty = false
		infos = append(infos, d.copyInfo(true))
		d.mu.Unlock()
	}
	return infos
}
