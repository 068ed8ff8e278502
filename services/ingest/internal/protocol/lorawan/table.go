package lorawan

import (
	"errors"
	"fmt"
)

// maxSharing is how many devices may share an address: it bounds the codes that
// one frame makes the node compute.
const maxSharing = 8

// Table finds the device that a frame is from. Addresses are not unique in
// LoRaWAN: the message code decides. A Table is for one goroutine.
type Table struct {
	byAddr map[DevAddr][]*Device
}

// Add puts a device into the table. It fails for the ninth with one address.
func (t *Table) Add(d *Device) error {
	if len(t.byAddr[d.addr]) >= maxSharing {
		return fmt.Errorf("device %v: at most %d devices may share an address", d.addr, maxSharing)
	}
	if t.byAddr == nil {
		t.byAddr = make(map[DevAddr][]*Device)
	}
	t.byAddr[d.addr] = append(t.byAddr[d.addr], d)
	return nil
}

// Open opens a frame with the device it is from, and returns that device, also
// when it refuses the frame as a replay. Errors are as of Device.Open.
func (t *Table) Open(raw []byte) (*Device, Uplink, error) {
	f, err := parse(raw)
	if err != nil {
		return nil, Uplink{}, err
	}
	err = fmt.Errorf("%w: %v", ErrUnknownDevice, f.addr)
	for _, d := range t.byAddr[f.addr] {
		var u Uplink
		if u, err = d.open(&f); err == nil || errors.Is(err, ErrReplay) {
			return d, u, err
		}
	}
	return nil, Uplink{}, err
}
