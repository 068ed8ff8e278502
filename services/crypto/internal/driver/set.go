package driver

import (
	"errors"
	"fmt"
	"slices"
)

// Set is an ordered list of drivers: the first that can do a thing does it.
type Set struct {
	members []Member
	Sealer
	Digester
	Signer
}

// NewSet tests every driver against known answers and refuses the whole list,
// naming each fault, when one is wrong or a capability is missing. Errors:
// ErrBroken, ErrUnsupported.
func NewSet(drivers ...Driver) (*Set, error) {
	var errs []error
	for _, d := range drivers {
		if err := SelfTest(d); err != nil {
			errs = append(errs, fmt.Errorf("driver %q: %w", d.Name(), err))
		}
	}
	s := &Set{members: make([]Member, len(drivers))}
	for i, d := range drivers {
		s.members[i].Driver = d
	}
	errs = append(errs,
		choose(s, CapSM4GCM, &s.Sealer),
		choose(s, CapSM3, &s.Digester),
		choose(s, CapSM2, &s.Signer))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// Member is a driver in a set.
type Member struct {
	Driver Driver
	// Active says that it is asked first for something.
	Active bool
}

// Members returns the drivers in order.
func (s *Set) Members() []Member { return slices.Clone(s.members) }

// choose puts the first driver that has a capability into its place.
func choose[T any](s *Set, c Capability, place *T) error {
	for i := range s.members {
		if t, ok := s.members[i].Driver.(T); ok {
			*place, s.members[i].Active = t, true
			return nil
		}
	}
	return fmt.Errorf("%w: %s", ErrUnsupported, c)
}
