// Package protocol holds what the device protocols below it have in common:
// the value that each of them decodes to. The protocols themselves are codecs
// and state machines that read no clock, start no goroutine and touch no
// socket; a source feeds them.
package protocol

// Value is one decoded quantity, ready to become a telemetry value.
type Value struct {
	// Name is the quantity with its unit as last word, for example
	// `voltage_a_volts`: 1 to 64 bytes of [a-z0-9_].
	Name string
	// Number is the quantity in the unit that Name states; not read when Text
	// is set.
	Number float64
	// Text is a value that is no number, at most 256 bytes. Empty means that
	// the value is a number.
	Text string
}

// MaxName is the longest name of a Value, in bytes.
const MaxName = 64

// IsName reports whether s may name a Value.
func IsName(s string) bool {
	if s == "" || len(s) > MaxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
