package dlt645

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

// kind is how the bytes of an element read.
type kind uint8

const (
	number kind = iota
	demand      // a number, then minute, hour, day, month, year
	date        // weekday, day, month, year
	clock       // second, minute, hour
	digits      // BCD, lowest pair first
)

// Item is what one data identifier means: which values its data holds and how
// each is coded. Look it up once and keep it: Append then makes no names.
type Item struct {
	// DI is the identifier.
	DI DI

	kind   kind
	size   int // bytes of an element, without the time of a demand
	scale  float64
	signed bool
	names  []string // an element each
	times  []string // of demands: the name of the time, an element each
}

// timeSize is the time of a demand: minute, hour, day, month, year.
const timeSize = 5

// Errors of looking up and decoding. They are matched with errors.Is.
var (
	// ErrUnknownDI means that the identifier is not in the tables of this package.
	ErrUnknownDI = errors.New("dlt645: unknown data identifier")
	// ErrOtherDI means that a reply holds another identifier than was asked for.
	ErrOtherDI = errors.New("dlt645: reply to another data identifier")
	// ErrDataLength means that the data is no whole number of elements, or more
	// than the item has.
	ErrDataLength = errors.New("dlt645: data does not fit the identifier")
	// ErrNotBCD means that a digit is above 9.
	ErrNotBCD = errors.New("dlt645: data is not BCD")
	// ErrMore means that the reply is only the first part: an Assembly puts it
	// together.
	ErrMore = errors.New("dlt645: a follow-up frame is waiting")
)

// Lookup returns what an identifier means. Known are, of DL/T 645-2007 annex A:
// energy (00…) and maximum demand with its time (01…), each in total, by tariff
// rate, by phase (energy only), now and at the last 12 settlement days; the
// momentary values (02 01… to 02 09…, 02 80 00 01 to 0A); and the meter's date,
// time, address and number (04 00 01 01, 02; 04 00 04 01, 02). FFH in DI1 is
// the block of all rates or phases, FFH in DI0 that of all settlement days.
// Anything else is ErrUnknownDI.
func Lookup(di DI) (*Item, error) {
	item := &Item{DI: di, scale: 1}
	ok := false
	switch {
	case di.at(3) == diEnergy || di.at(3) == diDemand:
		ok = item.accumulated()
	case di.at(3) == diVariable && di.at(2) < diBlock && int(di.at(2)) < len(variables) && di.at(0) == 0:
		ok = item.variable()
	default:
		var s single
		s, ok = singles[di]
		item.kind, item.size, item.signed, item.names = s.kind, s.size, s.signed, []string{s.name}
		item.scale = pow10(s.decimals)
	}
	if !ok {
		return nil, fmt.Errorf("%w %v", ErrUnknownDI, di)
	}
	return item, nil
}

// accumulated fills in an energy or a maximum demand.
func (it *Item) accumulated() bool {
	q, phase, ok := quantityOf(it.DI.at(2))
	isDemand := it.DI.at(3) == diDemand
	rate, last := it.DI.at(1), it.DI.at(0)
	switch {
	case !ok, isDemand && q.power == "", isDemand && phase != "", phase != "" && rate != 0:
		return false
	case rate > maxRate && rate != diBlock, last > maxLast && last != diBlock:
		return false
	case rate == diBlock && last == diBlock:
		return false
	}
	stem, unit := q.name+phase+"_energy", q.energy
	it.kind, it.size, it.scale, it.signed = number, 4, 100, q.signed
	if isDemand {
		stem, unit = q.name+"_max_demand", q.power
		it.kind, it.size, it.scale = demand, 3, 10000
	}
	add := func(rate, last byte) {
		name := stem
		if rate > 0 {
			name += "_rate_" + strconv.Itoa(int(rate))
		}
		if last > 0 {
			name += "_last_" + strconv.Itoa(int(last))
		}
		it.names = append(it.names, name+"_"+unit)
		if isDemand {
			it.times = append(it.times, name+"_time")
		}
	}
	switch {
	case rate == diBlock:
		for r := range byte(maxRate + 1) {
			add(r, last)
		}
	case last == diBlock:
		for l := range byte(maxLast + 1) {
			add(rate, l)
		}
	default:
		add(rate, last)
	}
	return true
}

// variable fills in a momentary value.
func (it *Item) variable() bool {
	v := variables[it.DI.at(2)]
	it.kind, it.size, it.scale, it.signed = number, v.size, pow10(v.decimals), v.signed
	di1 := it.DI.at(1)
	for i, phase := range v.phases {
		if di1 != diBlock && di1 != v.first+byte(i) {
			continue
		}
		name := v.stem + phase
		if v.unit != "" {
			name += "_" + v.unit
		}
		it.names = append(it.names, name)
	}
	return len(it.names) > 0
}

func pow10(n int) float64 {
	p := 1.0
	for range n {
		p *= 10
	}
	return p
}

// AppendReply appends the values of a reply to a read of the item's
// identifier. It fails with what Frame.Err says, with ErrMore, with ErrOtherDI
// and as Append does.
func (it *Item) AppendReply(dst []protocol.Value, f *Frame) ([]protocol.Value, error) {
	if f.Control.Refused() {
		return dst, f.Err()
	}
	if f.Control.More() {
		return dst, fmt.Errorf("item %v: %w", it.DI, ErrMore)
	}
	di, data, ok := f.FrameDI()
	if !ok || di != it.DI {
		return dst, fmt.Errorf("item %v: %w: %v", it.DI, ErrOtherDI, di)
	}
	return it.Append(dst, data)
}

// Append appends the values in data, which is what follows the identifier in a
// reply. An element of nothing but FFH is how a meter says that it does not
// have it, for example phases B and C in a single-phase meter: it is left out,
// as is the time of a demand that was never reached. On an error dst comes back
// as it was. Numbers allocate nothing when dst has room; texts allocate.
func (it *Item) Append(dst []protocol.Value, data []byte) ([]protocol.Value, error) {
	size := it.size
	if it.kind == demand {
		size += timeSize
	}
	if len(data) == 0 || len(data)%size != 0 || len(data)/size > len(it.names) {
		return dst, fmt.Errorf("item %v: %w: 1 to %d elements of %d bytes, is %d bytes", it.DI, ErrDataLength, len(it.names), size, len(data))
	}
	out := dst
	for i := 0; len(data) > 0; i++ {
		element := data[:size]
		data = data[size:]
		if absent(element[:it.size]) {
			continue
		}
		v := protocol.Value{Name: it.names[i]}
		ok := true
		switch it.kind {
		case number, demand:
			v.Number, ok = decimal(element[:it.size], it.scale, it.signed)
		case date, clock, digits:
			v.Text, ok = text(it.kind, element)
		}
		if !ok {
			return dst, fmt.Errorf("item %v: %w: %s is % X", it.DI, ErrNotBCD, v.Name, element)
		}
		out = append(out, v)
		if it.kind == demand {
			if t, ok := text(demand, element[it.size:]); ok {
				out = append(out, protocol.Value{Name: it.times[i], Text: t})
			}
		}
	}
	return out, nil
}

func absent(b []byte) bool {
	for _, c := range b {
		if c != 0xFF {
			return false
		}
	}
	return true
}

// decimal reads BCD, lowest pair first. With signed, the highest bit is the
// sign.
func decimal(b []byte, scale float64, signed bool) (float64, bool) {
	var n uint64
	negative := false
	for i := len(b) - 1; i >= 0; i-- {
		c := b[i]
		if signed && i == len(b)-1 {
			negative = c&0x80 != 0
			c &= 0x7F
		}
		if !isBCD(c) {
			return 0, false
		}
		n = n*100 + uint64(c>>4)*10 + uint64(c&15)
	}
	v := float64(n) / scale
	if negative && n > 0 {
		v = -v
	}
	return v, true
}

// text reads a time, a date or digits. The times are the meter's own wall
// clock; the standard's two digits of the year are those of 2000 to 2099.
func text(k kind, b []byte) (string, bool) {
	var n [6]int
	for i, c := range b {
		if !isBCD(c) {
			return "", false
		}
		n[i] = int(c>>4)*10 + int(c&15)
	}
	switch k {
	case demand:
		if n[0] > 59 || n[1] > 23 || n[2] < 1 || n[2] > 31 || n[3] < 1 || n[3] > 12 {
			return "", false
		}
		return fmt.Sprintf("20%02d-%02d-%02dT%02d:%02d", n[4], n[3], n[2], n[1], n[0]), true
	case date:
		if n[0] > 6 || n[1] < 1 || n[1] > 31 || n[2] < 1 || n[2] > 12 {
			return "", false
		}
		return fmt.Sprintf("20%02d-%02d-%02d", n[3], n[2], n[1]), true
	case clock:
		if n[0] > 59 || n[1] > 59 || n[2] > 23 {
			return "", false
		}
		return fmt.Sprintf("%02d:%02d:%02d", n[2], n[1], n[0]), true
	default:
		return fmt.Sprintf("%02d%02d%02d%02d%02d%02d", n[5], n[4], n[3], n[2], n[1], n[0]), true
	}
}

// Names returns the names of the numbers and texts that the item's data may
// hold, in their order, without the times of demands. It is not to be changed.
func (it *Item) Names() []string { return it.names }
