package iec104

import (
	"fmt"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

// Point says what an information object is.
type Point struct {
	// Common and Address find the object.
	Common  uint16
	Address uint32
	// Name is the name of its value, with the unit as last word.
	Name string
	// Scale and Offset make the value that Name's unit states: value × Scale +
	// Offset. Scale 0 is 1.
	Scale, Offset float64
}

// MaxPoints is the most points of a Points.
const MaxPoints = 65536

// Points is what the objects of a station are called.
type Points struct {
	byObject map[uint64]Point
}

// NewPoints checks the points: names must be names of values and each object
// may be named once.
func NewPoints(points []Point) (*Points, error) {
	if len(points) > MaxPoints {
		return nil, fmt.Errorf("points: must be at most %d, are %d", MaxPoints, len(points))
	}
	p := &Points{byObject: make(map[uint64]Point, len(points))}
	for i, point := range points {
		if !protocol.IsName(point.Name) {
			return nil, fmt.Errorf("points[%d].name: must be 1 to %d of [a-z0-9_], is %.80q", i, protocol.MaxName, point.Name)
		}
		if point.Address >= 1<<24 {
			return nil, fmt.Errorf("points[%d].address: must be at most %d, is %d", i, 1<<24-1, point.Address)
		}
		k := key(point.Common, point.Address)
		if _, ok := p.byObject[k]; ok {
			return nil, fmt.Errorf("points[%d].address: %d of station %d is named twice", i, point.Address, point.Common)
		}
		if point.Scale == 0 {
			point.Scale = 1
		}
		p.byObject[k] = point
	}
	return p, nil
}

func key(common uint16, address uint32) uint64 { return uint64(common)<<24 | uint64(address) }

// Reading is a decoded object under its name.
type Reading struct {
	protocol.Value
	// Quality is what the station says of the value.
	Quality Quality
	// Time is the station's wall clock; only with Timed.
	Time  Time
	Timed bool
}

// Append appends the objects of a that have a name, and returns how many have
// none. It allocates nothing when dst has room.
func (p *Points) Append(dst []Reading, a *ASDU) (out []Reading, unnamed int) {
	for i := range a.Count {
		o := a.Object(i)
		point, ok := p.byObject[key(a.Common, o.Address)]
		if !ok {
			unnamed++
			continue
		}
		dst = append(dst, Reading{
			Value:   protocol.Value{Name: point.Name, Number: o.Value*point.Scale + point.Offset},
			Quality: o.Quality, Time: o.Time, Timed: o.Timed,
		})
	}
	return dst, unnamed
}
