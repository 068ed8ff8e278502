// Package device keeps what ingest knows of each device: its session, what is
// on its way, its last values, and the link by which it can be reached.
package device

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

var (
	// ErrReplaced is a link that lost its device to a newer one.
	ErrReplaced = errors.New("replaced by a newer connection")
	// ErrPaused is a registry that takes no more readings in.
	ErrPaused = errors.New("no more readings are taken in")
)

// Link is a connection to a device. Its methods must not block.
type Link interface {
	// AckDue says that Acked has changed.
	AckDue()
	// Command puts a command on its way.
	Command(Command) error
	// Replaced says that a newer connection has the device.
	Replaced()
}

// Device is one device. Its methods may be called by several goroutines.
type Device struct {
	ID string

	room   chan struct{} // signals that in-flight readings got fewer
	turn   chan struct{} // holds one while a link's readings are taken in
	paused *atomic.Bool  // the registry's; read with mu

	mu   sync.Mutex // guards what follows; after Registry.mu
	info Info
	link Link

	taken      uint64 // the session's highest sequence that was taken in
	rejections []Rejection
	dirty      bool // whether it is in the registry's list of changed statuses
	commands   commands
}

// Info is a device's state and counters at one moment.
type Info struct {
	ID              string
	Source          string
	Connected       bool
	ConnectTime     time.Time
	LastSeen        time.Time
	Model, Firmware string
	Session         uint64
	Acked           uint64
	Sequence        uint64               // of the reading that the newest value came from
	Values          []*telemetryv1.Value // ordered by name; not to be changed
	ValuesTime      time.Time
	StatusTime      time.Time // of the newest reading, or of the connection's change after it
	Received        uint64
	Delivered       uint64
	Rejected        uint64
	InFlight        uint64
	Dropped         map[string]uint64
	Connects        uint64
}

// Rejection tells the device that one of its readings goes no further.
type Rejection struct {
	Sequence uint64
	Reason   string
}

const (
	// maxRejections bounds what one Ack carries; the rest is only counted.
	maxRejections = 64
	// maxNames bounds the shadow of a device that invents names.
	maxNames = 256
)

// Item is one reading on its way through ingest.
type Item struct {
	Device     *Device
	Session    uint64
	Source     string
	Reading    *telemetryv1.Reading
	Size       int // of the reading, encoded, in bytes
	Arrived    time.Time
	Outcome    Outcome
	Evaluation telemetryv1.Evaluation
	Module     string
	Reason     string
}

// Outcome says how a reading ends.
type Outcome uint8

// The outcomes.
const (
	Deliver Outcome = iota
	Reject
	Drop
)

// Enter gives the link that calls it the turn to take readings in and hand them
// on, which Leave ends. It waits for the link that has it, and reports false
// when giveUp closed first. So readings keep their order when a device connects
// again while its last connection still hands on what it took.
func (d *Device) Enter(giveUp <-chan struct{}) bool {
	select {
	case d.turn <- struct{}{}:
		return true
	case <-giveUp:
		return false
	}
}

// Leave ends a turn.
func (d *Device) Leave() { <-d.turn }

// Take takes in the readings that are new and fit the window, in order, and
// appends them to items. It stops at the first for which there is no room:
// used counts those that it dealt with, the others are to be offered again
// after Room. Readings that were taken before are counted as duplicates.
func (d *Device) Take(link Link, readings []*telemetryv1.Reading, window int, now time.Time, items []Item) (out []Item, used, duplicates int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != link {
		return items, 0, 0, ErrReplaced
	}
	if d.paused.Load() {
		return items, 0, 0, ErrPaused
	}
	d.info.LastSeen = now
	for _, r := range readings {
		if r.GetSequence() <= d.taken {
			duplicates++
			used++
			continue
		}
		if d.info.InFlight >= uint64(window) {
			break
		}
		d.taken = r.GetSequence()
		d.info.Received++
		d.info.InFlight++
		used++
		items = append(items, Item{Device: d, Session: d.info.Session, Source: d.info.Source, Reading: r, Size: proto.Size(r), Arrived: now})
	}
	return items, used, duplicates, nil
}

// Room receives a signal when a full window may have room again.
func (d *Device) Room() <-chan struct{} { return d.room }

// Show updates the shadow with a reading that policy let through.
func (d *Device) Show(item *Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range item.Reading.GetValues() {
		i, found := slices.BinarySearchFunc(d.info.Values, v.GetName(), func(have *telemetryv1.Value, name string) int {
			return strings.Compare(have.GetName(), name)
		})
		switch {
		case found:
			d.info.Values[i] = v
		case len(d.info.Values) < maxNames:
			d.info.Values = slices.Insert(d.info.Values, i, v)
		}
	}
	d.info.Sequence = item.Reading.GetSequence()
	d.info.ValuesTime = item.Reading.GetTime().AsTime()
	d.info.StatusTime = d.info.ValuesTime
}

// Done ends the way of items, all of this device and in their order: they are
// acknowledged together.
func (d *Device) Done(items []Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range items {
		it := &items[i]
		switch it.Outcome {
		case Deliver:
			d.info.Delivered++
		case Reject:
			d.info.Rejected++
			d.reject(it)
		case Drop:
			d.drop(it.Reason, 1)
			d.reject(it)
		}
		if it.Session == d.info.Session { // it may have come back after another
			d.info.Acked = max(d.info.Acked, it.Reading.GetSequence())
		}
	}
	d.info.InFlight -= uint64(len(items))
	if d.link != nil {
		d.link.AckDue()
	}
	select {
	case d.room <- struct{}{}:
	default: // the signal is there already
	}
}

// Abandon ends the way of items that get no acknowledgement, because the
// service stops; their device sends them again.
func (d *Device) Abandon(reason string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(reason, n)
	d.info.InFlight -= uint64(n)
}

func (d *Device) drop(reason string, n int) {
	if d.info.Dropped == nil {
		d.info.Dropped = make(map[string]uint64)
	}
	d.info.Dropped[reason] += uint64(n)
}

func (d *Device) reject(it *Item) {
	if it.Session == d.info.Session && len(d.rejections) < maxRejections {
		d.rejections = append(d.rejections, Rejection{it.Reading.GetSequence(), it.Reason})
	}
}

// Acked returns what to acknowledge over a link: the highest sequence, and the
// rejections since the last call.
func (d *Device) Acked(link Link) (sequence uint64, rejections []Rejection, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != link {
		return 0, nil, ErrReplaced
	}
	rejections, d.rejections = d.rejections, nil
	return d.info.Acked, rejections, nil
}

// Info returns a copy, with the values when asked for.
func (d *Device) Info(values bool) Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copyInfo(values)
}

func (d *Device) copyInfo(values bool) Info {
	info := d.info
	info.ID = d.ID
	info.Connected = d.link != nil
	info.Dropped = maps.Clone(d.info.Dropped)
	info.Values = nil
	if values {
		info.Values = slices.Clone(d.info.Values)
	}
	return info
}

// disconnect takes the link from its device; a link that was replaced has none
// to lose.
func (d *Device) disconnect(link Link) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != link {
		return false
	}
	d.link = nil
	d.info.StatusTime = time.Now()
	d.commands.failAll(fmt.Errorf("%w: device %s disconnected", fault.ErrUnavailable, d.ID))
	return true
}
