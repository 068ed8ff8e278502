package protocol_test

import (
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

func TestIsName(t *testing.T) {
	for name, want := range map[string]bool{
		"": false, "voltage_a_volts": true, "x2": true, "Volts": false, "a-b": false, "a b": false, "é": false,
		strings.Repeat("a", 64): true, strings.Repeat("a", 65): false,
	} {
		if got := protocol.IsName(name); got != want {
			t.Errorf("IsName(%q) = %v, want %v", name, got, want)
		}
	}
}
