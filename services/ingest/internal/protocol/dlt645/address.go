package dlt645

import "fmt"

// Address is a meter's address as it travels: 12 BCD digits, lowest pair first.
type Address [6]byte

var (
	// Broadcast is heard by every meter and answered by none.
	Broadcast = Address{0x99, 0x99, 0x99, 0x99, 0x99, 0x99}
	// Wildcard is answered by every meter, with its own address. Only one may
	// be on the bus.
	Wildcard = Address{0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA}
)

// wildcardByte stands for two digits of any value; the standard lets the high
// end of an address be filled with it.
const wildcardByte = 0xAA

// ParseAddress reads an address as it is printed on a meter: 1 to 12 digits,
// highest first. Missing digits at the front are zero.
func ParseAddress(s string) (Address, error) {
	var a Address
	if s == "" || len(s) > 2*len(a) {
		return a, fmt.Errorf("meter address: must have 1 to 12 digits, is %.40q", s)
	}
	for i := range len(s) {
		c := s[len(s)-1-i]
		if c < '0' || c > '9' {
			return Address{}, fmt.Errorf("meter address: must have 1 to 12 digits, is %.40q", s)
		}
		a[i/2] |= (c - '0') << (4 * (i % 2))
	}
	return a, nil
}

// String returns the 12 digits as they are printed on a meter, A for a digit
// that matches any.
func (a Address) String() string {
	const digits = "0123456789ABCDEF"
	var s [2 * len(a)]byte
	for i, b := range a {
		s[2*(len(a)-1-i)] = digits[b>>4]
		s[2*(len(a)-1-i)+1] = digits[b&15]
	}
	return string(s[:])
}

// Valid reports whether each byte is two BCD digits or the wildcard byte AAH.
func (a Address) Valid() bool {
	for _, b := range a {
		if b != wildcardByte && !isBCD(b) {
			return false
		}
	}
	return true
}

// Matches reports whether a meter with the address meter answers a request to a.
func (a Address) Matches(meter Address) bool {
	for i, b := range a {
		if b != wildcardByte && b != meter[i] {
			return false
		}
	}
	return true
}

func isBCD(b byte) bool { return b < 0xA0 && b&15 < 10 }
