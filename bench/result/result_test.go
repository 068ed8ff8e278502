package result

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRows(t *testing.T) {
	tests := []struct {
		row        Result
		ours       float64
		ratio      float64
		met, given bool
	}{
		{New("a", "/s", Higher, []float64{3, 1, 2}).Against("p", []float64{1, 1}).Toward(2), 2, 2, true, true},
		{New("a", "/s", Higher, []float64{1, 2}).Against("p", []float64{3}).Toward(2), 1.5, 0.5, false, true},
		{New("a", "MB", Lower, []float64{10}).Against("p", []float64{40}).Toward(10), 10, 4, true, true},
		{New("a", "MB", Lower, []float64{40}).Against("p", []float64{10}).Toward(38), 40, 0.25, false, true},
		{New("a", "/s", Higher, []float64{31234.56}).Against("p", []float64{1}), 31230, 31230, false, false},
	}
	for _, tt := range tests {
		if *tt.row.Ours != tt.ours || *tt.row.Ratio != tt.ratio {
			t.Errorf("row has ours %v, ratio %v; want %v, %v", *tt.row.Ours, *tt.row.Ratio, tt.ours, tt.ratio)
		}
		if (tt.row.Met != nil) != tt.given || tt.given && *tt.row.Met != tt.met {
			t.Errorf("row has met %v, want %v (%v)", tt.row.Met, tt.met, tt.given)
		}
	}
}

func TestWriteAndTable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	rows := []Result{
		New("readings", "/s", Higher, []float64{5}).Against("naive", []float64{2}).Toward(6),
		New("memory", "MB", Lower, nil).Against("naive", nil),
	}
	if err := Write(dir, "node", rows); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(raw, &back); err != nil || len(back) != 2 {
		t.Fatalf("results read as %v: %v", back, err)
	}
	for _, key := range []string{"name", "unit", "better", "ours", "peer", "theirs", "ratio", "goal", "met"} {
		for i, row := range back {
			if _, ok := row[key]; !ok {
				t.Errorf("row %d has no %q", i, key)
			}
		}
	}
	if back[1]["ours"] != nil || back[1]["met"] != nil {
		t.Errorf("row 1 is %v, want nulls", back[1])
	}
	var table strings.Builder
	if err := Table(&table, rows); err != nil {
		t.Fatal(err)
	}
	if got := table.String(); !strings.Contains(got, "2.5") || !strings.Contains(got, "≥ 6") || !strings.Contains(got, "NO") {
		t.Errorf("Table wrote %q", got)
	}
}
