package xh

import "testing"

func TestVerdict(t *testing.T) {
	if got, want := Verdict(Reject, 0x1abcdef), uint64(0x02_abcdef_00000000); got != want {
		t.Errorf("Verdict(Reject, 0x1abcdef) = %#x, want %#x: 8 bits, 24 bits, 32 bits", got, want)
	}
}
