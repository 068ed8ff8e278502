package iec104

import (
	"encoding/binary"
	"time"
)

// timeSize is the length of a CP56Time2a.
const timeSize = 7

// Time is a CP56Time2a: the wall clock of the station, to the millisecond.
type Time struct {
	// Invalid is the IV bit: the station does not trust its clock.
	Invalid bool
	// SummerTime is the SU bit: the wall clock is an hour ahead of standard time.
	SummerTime bool
	// Year is 1970 to 2069: the two digits 70 to 99 are of the last century, 00
	// to 69 of this one.
	Year int
	// Month is 1 to 12, Day 1 to 31, Hour 0 to 23, Minute 0 to 59.
	Month, Day, Hour, Minute int
	// Weekday is 1 (Monday) to 7, or 0 when the station does not tell it.
	Weekday int
	// Millisecond is 0 to 59999, seconds included.
	Millisecond int
}

// parseTime reads a CP56Time2a from seven bytes. ok is false when a field is
// out of its range.
func parseTime(b []byte) (t Time, ok bool) {
	t = Time{
		Invalid:     b[2]&0x80 != 0,
		SummerTime:  b[3]&0x80 != 0,
		Millisecond: int(binary.LittleEndian.Uint16(b)),
		Minute:      int(b[2] & 0x3F),
		Hour:        int(b[3] & 0x1F),
		Day:         int(b[4] & 0x1F),
		Weekday:     int(b[4] >> 5),
		Month:       int(b[5] & 0x0F),
		Year:        1900 + int(b[6]&0x7F),
	}
	year := int(b[6] & 0x7F)
	if year < 70 {
		t.Year += 100
	}
	ok = t.Millisecond < 60000 && t.Minute < 60 && t.Hour < 24 && t.Day >= 1 && t.Day <= 31 && t.Month >= 1 && t.Month <= 12 && year < 100
	return t, ok
}

// UTC returns the moment. standard is how far the station's standard time is
// ahead of UTC (8 h in China, 0 for a station that keeps UTC); with SummerTime
// it is an hour more. A day that its month does not have runs over into the
// next month.
func (t Time) UTC(standard time.Duration) time.Time {
	u := time.Date(t.Year, time.Month(t.Month), t.Day, t.Hour, t.Minute, 0, 0, time.UTC).
		Add(time.Duration(t.Millisecond)*time.Millisecond - standard)
	if t.SummerTime {
		u = u.Add(-time.Hour)
	}
	return u
}
