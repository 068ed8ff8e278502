package candbc

import "strings"

// units are the words for the units that DBC files write. One that is not here
// is taken as it is, in lower case.
var units = map[string]string{
	"%": "percent", "a": "amperes", "ma": "milliamperes", "ah": "ampere_hours", "v": "volts", "mv": "millivolts",
	"w": "watts", "kw": "kilowatts", "wh": "watt_hours", "kwh": "kilowatt_hours", "ohm": "ohms", "kohm": "kilohms", "hz": "hertz",
	"c": "celsius", "°c": "celsius", "degc": "celsius", "deg c": "celsius", "k": "kelvins",
	"deg": "degrees", "°": "degrees", "degree": "degrees", "rad": "radians", "deg/s": "degrees_per_second", "°/s": "degrees_per_second",
	"kph": "kilometres_per_hour", "km/h": "kilometres_per_hour", "kmh": "kilometres_per_hour", "mph": "miles_per_hour",
	"m/s": "metres_per_second", "m/s2": "metres_per_second_squared", "m/s^2": "metres_per_second_squared", "g": "grams", "kg": "kilograms",
	"m": "metres", "km": "kilometres", "mm": "millimetres", "cm": "centimetres", "l": "litres", "l/h": "litres_per_hour",
	"rpm": "revolutions_per_minute", "1/min": "revolutions_per_minute", "nm": "newton_metres", "n": "newtons",
	"pa": "pascals", "kpa": "kilopascals", "bar": "bars", "mbar": "millibars", "psi": "psi",
	"s": "seconds", "sec": "seconds", "ms": "milliseconds", "us": "microseconds", "min": "minutes", "h": "hours", "d": "days",
}

// valueName returns the name of a signal's value: the signal in lower case, and
// the unit as last word.
func valueName(label, unit string) string {
	name := lower(label)
	u := strings.ToLower(strings.TrimSpace(unit))
	word, ok := units[u]
	if !ok {
		word = lower(u)
	}
	if word == "" {
		return name
	}
	return name + "_" + word
}

// lower returns s in lower case with each run of anything but letters and
// digits of ASCII as one underscore, none at the end.
func lower(s string) string {
	var b strings.Builder
	gap := false
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			gap = true
			continue
		}
		if gap && b.Len() > 0 {
			b.WriteByte('_')
		}
		gap = false
		b.WriteByte(c)
	}
	return b.String()
}
