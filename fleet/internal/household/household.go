// Package household turns the UCI household power data into readings, encoded
// once and replayed many times.
package household

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"
)

// missing is what the data has in place of a value that was not measured.
const missing = "?"

// columns of the data after Date and Time, by our names; the data's own units.
var columns = []string{
	"active_power_kilowatts", "reactive_power_kilovars", "voltage_volts", "current_amperes",
	"energy_1_watt_hours", "energy_2_watt_hours", "energy_3_watt_hours",
}

// Row is one minute of the household.
type Row struct {
	// Time is when it was measured, in the household's own time.
	Time time.Time
	// Values are what was measured; a value that is missing is left out.
	Values []*telemetryv1.Value
	// Temperature is made up, 20 to 60 °C: the data has none.
	Temperature float64
}

// Parse reads the data as UCI publishes it: a header, then rows of nine fields
// set apart by semicolons. It names the line of whatever it refuses.
func Parse(text string) ([]Row, error) {
	header, text, _ := strings.Cut(text, "\n")
	if got, want := strings.Count(header, ";")+1, len(columns)+2; got != want || !strings.HasPrefix(header, "Date;Time;") {
		return nil, fmt.Errorf("line 1: must be a header of %d fields that starts with Date;Time;, is %q", want, header)
	}
	var rows []Row
	number := 1
	for line := range strings.Lines(text) {
		number++
		row, err := parseRow(strings.TrimRight(line, "\r\n"))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, errors.New("must have at least one row")
	}
	return rows, nil
}

func parseRow(line string) (Row, error) {
	fields := strings.Split(line, ";")
	if len(fields) != len(columns)+2 {
		return Row{}, fmt.Errorf("must have %d fields, has %d", len(columns)+2, len(fields))
	}
	at, err := time.Parse("2/1/2006 15:04:05", fields[0]+" "+fields[1])
	if err != nil {
		return Row{}, fmt.Errorf("date and time: %w", err)
	}
	row := Row{Time: at}
	var current float64
	for i, name := range columns {
		text := fields[i+2]
		if text == missing || text == "" { // UCI leaves the last field of such a row empty
			continue
		}
		number, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return Row{}, fmt.Errorf("%s: %w", name, err)
		}
		if name == "current_amperes" {
			current = number
		}
		row.Values = append(row.Values, &telemetryv1.Value{Name: name, Number: number})
	}
	row.Temperature = temperature(at, current)
	return row, nil
}

// temperature is that of a meter in a cabinet: it follows the day and warms
// with its current.
func temperature(at time.Time, amperes float64) float64 {
	day := 2 * math.Pi * float64(at.Hour()*60+at.Minute()) / (24 * 60)
	celsius := 30 - 5*math.Cos(day) + 0.6*amperes
	return math.Round(min(max(celsius, 20), 60)*10) / 10
}

// hot is what a meter reports that is to be rejected: over the 85 °C of the
// policy that comes with the node.
const hot = 91.5

// Reading returns a row as a reading without sequence and time; hot ones have
// a temperature that policy rejects.
func (r Row) Reading(isHot bool) *telemetryv1.Reading {
	celsius := r.Temperature
	if isHot {
		celsius = hot
	}
	return &telemetryv1.Reading{Values: append(slices.Clip(r.Values), &telemetryv1.Value{Name: "temperature", Number: celsius})}
}
