package journal

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("JOURNAL_KILLED"); dir != "" {
		os.Exit(appendUntilKilled(dir))
	}
	goleak.VerifyTestMain(m)
}
