package journal

import (
	"io"
	"testing"
	"time"
)

func TestEverySideIsMeasured(t *testing.T) {
	rows, err := Run(t.Context(), Options{Dir: t.TempDir(), Rounds: 1, Measure: 50 * time.Millisecond}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 9 {
		t.Errorf("rows = %d, want 9", len(rows))
	}
	for _, r := range rows {
		if r.Ours == nil || r.Theirs == nil {
			t.Errorf("row %q has not both sides", r.Name)
		}
	}
}
