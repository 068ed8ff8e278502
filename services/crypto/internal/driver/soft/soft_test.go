package soft

import (
	"errors"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
)

func TestGuarded(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name string
		call func() ([]byte, error)
		want error
	}{
		{"panic", func() ([]byte, error) { panic("index out of range") }, driver.ErrBroken},
		{"error with data", func() ([]byte, error) { return []byte("secret"), boom }, boom},
		{"fine", func() ([]byte, error) { return []byte("out"), nil }, nil},
	}
	for _, tt := range tests {
		out, err := guarded(tt.name, tt.call)
		if !errors.Is(err, tt.want) {
			t.Errorf("guarded(%s) = %v, want %v", tt.name, err, tt.want)
		}
		if (err != nil) != (out == nil) {
			t.Errorf("guarded(%s) = %q with error %v", tt.name, out, err)
		}
	}
}

func TestSelfTest(t *testing.T) {
	if err := driver.SelfTest(Driver{}); err != nil {
		t.Errorf("SelfTest = %v, want nil", err)
	}
}
