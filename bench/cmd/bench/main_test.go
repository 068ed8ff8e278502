package main

import (
	"io"
	"strings"
	"testing"
)

func TestRunRefuses(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"-area", "moon"}, `-area: must be one of journal, node, is "moon"`},
		{[]string{"-rounds", "0"}, "-rounds, -warm, -measure: must be over 0"},
		{[]string{"-binary", "/nonexistent"}, "find the node"},
		{[]string{"naive", "-x"}, "not defined"},
	}
	for _, tt := range tests {
		if err := run(t.Context(), tt.args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("run(%v) = %v, want %q", tt.args, err, tt.want)
		}
	}
}
