// Package result is what a benchmark says: medians beside a peer's and a goal.
package result

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Better says which way a number is good.
type Better string

// The two ways.
const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// Result is one row. What it has not is null.
type Result struct {
	Name   string   `json:"name"`
	Unit   string   `json:"unit"`
	Better Better   `json:"better"`
	Ours   *float64 `json:"ours"`
	Peer   *string  `json:"peer"`
	Theirs *float64 `json:"theirs"`
	Ratio  *float64 `json:"ratio"` // over 1 is ours ahead
	Goal   *float64 `json:"goal"`
	Met    *bool    `json:"met"`
}

// New returns a row with the median of what the rounds measured.
func New(name, unit string, better Better, ours []float64) Result {
	return Result{Name: name, Unit: unit, Better: better, Ours: round(Median(ours))}
}

// Against puts a peer beside it.
func (r Result) Against(peer string, theirs []float64) Result {
	r.Peer, r.Theirs = &peer, round(Median(theirs))
	if r.Ours == nil || r.Theirs == nil {
		return r
	}
	over, under := *r.Ours, *r.Theirs
	if r.Better == Lower {
		over, under = under, over
	}
	if under > 0 {
		ratio := over / under
		r.Ratio = round(&ratio)
	}
	return r
}

// Toward states a goal.
func (r Result) Toward(goal float64) Result {
	r.Goal = &goal
	met := r.Ours != nil && (r.Better == Higher && *r.Ours >= goal || r.Better == Lower && *r.Ours <= goal)
	r.Met = &met
	return r
}

// Median returns the middle of values, nil for none.
func Median(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	s := slices.Clone(values)
	slices.SortFunc(s, cmp.Compare[float64])
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (m + s[len(s)/2-1]) / 2
	}
	return &m
}

// round keeps four digits: what is beyond them is noise.
func round(v *float64) *float64 {
	if v == nil {
		return nil
	}
	n, err := strconv.ParseFloat(strconv.FormatFloat(*v, 'g', 4, 64), 64)
	if err != nil { // only for what FormatFloat does not write
		return v
	}
	return &n
}

// Write writes rows to <dir>/<area>.json, whole or not at all.
func Write(dir, area string, rows []Result) error {
	raw, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("write results of %s: %w", area, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write results of %s: %w", area, err)
	}
	path := filepath.Join(dir, area+".json")
	if err := os.WriteFile(path+".new", append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results of %s: %w", area, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write results of %s: %w", area, err)
	}
	return nil
}

// Table prints rows.
func Table(w io.Writer, rows []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "what\tunit\tours\tpeer\ttheirs\tratio\tgoal\tmet")
	for _, r := range rows {
		goal, met, peer := "", "", ""
		if r.Goal != nil {
			goal = map[Better]string{Higher: "≥ ", Lower: "≤ "}[r.Better] + number(r.Goal)
		}
		if r.Met != nil {
			met = map[bool]string{true: "yes", false: "NO"}[*r.Met]
		}
		if r.Peer != nil {
			peer = *r.Peer
		}
		_, _ = fmt.Fprintln(t, strings.Join([]string{r.Name, r.Unit, number(r.Ours), peer, number(r.Theirs), number(r.Ratio), goal, met}, "\t"))
	}
	return t.Flush()
}

func number(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', -1, 64)
}
