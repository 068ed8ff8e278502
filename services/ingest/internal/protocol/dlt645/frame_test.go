package dlt645_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/dlt645"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("hex %q: %v", s, err)
	}
	return b
}

func address(t testing.TB, s string) dlt645.Address {
	t.Helper()
	a, err := dlt645.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// telegrams were captured on real buses and published: the first in
// juejin.cn/post/7468708001337491510, the others in a protocol log of
// DL/T 645-2007 telegrams (meter 000000000161); the data of the last is
// serialport/node-serialport issue 2627.
var telegrams = []struct {
	raw, meter, di string
	control        dlt645.Control
	want           []protocol.Value
}{
	{
		"fefefefe 68 292507072120 68 91 08 33333333 a94a3633 2e16", "202107072529", "00000000", 0x91,
		[]protocol.Value{{Name: "combined_active_energy_kilowatt_hours", Number: 317.76}},
	},
	{
		"68 610100000000 68 91 08 33333433 59333333 8a16", "161", "00010000", 0x91,
		[]protocol.Value{{Name: "forward_active_energy_kilowatt_hours", Number: 0.26}},
	},
	{
		"68 610100000000 68 91 06 33343435 3443 1016", "161", "02010100", 0x91,
		[]protocol.Value{{Name: "voltage_a_volts", Number: 100.1}},
	},
	{
		"fe 68 610100000000 68 91 06 33343435 3c55 2a16", "161", "02010100", 0x91,
		[]protocol.Value{{Name: "voltage_a_volts", Number: 220.9}},
	},
}

func TestCapturedTelegrams(t *testing.T) {
	for _, tt := range telegrams {
		raw := unhex(t, tt.raw)
		var f dlt645.Frame
		n, err := dlt645.Parse(raw, &f)
		if err != nil || n != len(raw) {
			t.Errorf("Parse(%s) = %d, %v, want %d", tt.raw, n, err, len(raw))
			continue
		}
		if !f.Answers(address(t, tt.meter), dlt645.ReadData) || f.Control != tt.control {
			t.Errorf("Parse(%s): address %v control %02X, want %s %02X", tt.raw, f.Address, f.Control, tt.meter, tt.control)
		}
		di, err := dlt645.ParseDI(tt.di)
		if err != nil {
			t.Fatal(err)
		}
		item, err := dlt645.Lookup(di)
		if err != nil {
			t.Fatal(err)
		}
		got, err := item.AppendReply(nil, &f)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("AppendReply(%s) = %v, %v, want %v", tt.raw, got, err, tt.want)
		}
	}
}

func TestRequests(t *testing.T) {
	clock, err := dlt645.AppendBroadcastTime(nil, time.Date(2024, 2, 29, 23, 58, 7, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"read data":    {dlt645.AppendReadData(nil, address(t, "161"), 0x00010000), "fefefefe 68 610100000000 68 11 04 33333433 1416"}, // the same log
		"read any":     {dlt645.AppendReadData(nil, dlt645.Wildcard, 0x02010100), "fefefefe 68 aaaaaaaaaaaa 68 11 04 33343435 b116"},   // WKJay/DLT645 issue 10
		"read address": {dlt645.AppendReadAddress(nil), "fefefefe 68 aaaaaaaaaaaa 68 13 00 df16"},
		"follow-up":    {dlt645.AppendReadFollowUp(nil, address(t, "161"), 0x0001FF00, 1), "fefefefe 68 610100000000 68 12 05 33323433 34 4916"},
		"broadcast":    {clock, "fefefefe 68 999999999999 68 08 06 3a 8b 56 5c 35 57 7716"},
	} {
		if want := unhex(t, tt.want); !bytes.Equal(tt.got, want) {
			t.Errorf("%s = % x, want % x", name, tt.got, want)
		}
	}
	if _, err := dlt645.AppendBroadcastTime(nil, time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil {
		t.Error("AppendBroadcastTime(1999) = nil, want an error")
	}
	if _, err := dlt645.AppendFrame(nil, dlt645.Wildcard, 0x91, make([]byte, 201)...); err == nil {
		t.Error("AppendFrame of 201 bytes = nil, want an error")
	}
}

func TestParseRefuses(t *testing.T) {
	for raw, want := range map[string]error{
		"":                 dlt645.ErrShort,
		"fefefe":           dlt645.ErrShort,
		"68":               dlt645.ErrShort,
		"16":               dlt645.ErrStart,
		"686101":           dlt645.ErrShort,
		"68610a":           dlt645.ErrAddress,
		"68a0":             dlt645.ErrAddress,
		"6861010000000067": dlt645.ErrStart,
		"6861010000000067910833333433593333338a16":  dlt645.ErrStart,
		"68610b000000006891083333343359333333 8a16": dlt645.ErrAddress,
		"68610100000000689108333334335933333389":    dlt645.ErrShort,
		"68610100000000689108333334335933333389 16": dlt645.ErrChecksum,
		"6861010000000068910833333433593333338a 17": dlt645.ErrEnd,
		"686101000000006891c933":                    dlt645.ErrLength,
	} {
		var f dlt645.Frame
		if n, err := dlt645.Parse(unhex(t, raw), &f); !errors.Is(err, want) || n != 0 {
			t.Errorf("Parse(%s) = %d, %v, want %v", raw, n, err, want)
		}
	}
}

func TestErrorReply(t *testing.T) {
	raw, err := dlt645.AppendFrame(nil, address(t, "161"), 0xD1, 0x06)
	if err != nil {
		t.Fatal(err)
	}
	var f dlt645.Frame
	if _, err := dlt645.Parse(raw, &f); err != nil {
		t.Fatal(err)
	}
	if !f.Answers(address(t, "161"), dlt645.ReadData) || f.Answers(address(t, "162"), dlt645.ReadData) || f.Answers(address(t, "161"), dlt645.ReadAddress) {
		t.Error("Answers: want true for the meter and request only")
	}
	var reply *dlt645.ReplyError
	if err := f.Err(); !errors.As(err, &reply) || reply.Word != dlt645.NoSuchData|dlt645.Unauthorised {
		t.Fatalf("Err() = %v, want no such data and unauthorised", err)
	}
	const want = "meter 000000000161 refuses request 11H: no such data, unauthorised"
	if reply.Error() != want {
		t.Errorf("Error() = %q, want %q", reply.Error(), want)
	}
	if got := dlt645.ErrorWord(0).String(); got != "no reason given" {
		t.Errorf("ErrorWord(0) = %q", got)
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{"220514030093": "220514030093", "161": "000000000161", "": "", "1234567890123": "", "12a": ""} {
		a, err := dlt645.ParseAddress(in)
		if want == "" {
			if err == nil {
				t.Errorf("ParseAddress(%q) = %v, want an error", in, a)
			}
			continue
		}
		if err != nil || a.String() != want {
			t.Errorf("ParseAddress(%q) = %v, %v, want %s", in, a, err, want)
		}
	}
	// The high end may be wildcards.
	short := dlt645.Address{0x93, 0x00, 0xAA, 0xAA, 0xAA, 0xAA}
	if !short.Matches(address(t, "220514030093")) || short.Matches(address(t, "220514030193")) {
		t.Errorf("%v does not match by its last four digits", short)
	}

	raw, err := dlt645.AppendFrame(nil, address(t, "220514030093"), 0x93, 0x93, 0x00, 0x03, 0x14, 0x05, 0x22)
	if err != nil {
		t.Fatal(err)
	}
	var f dlt645.Frame
	if _, err := dlt645.Parse(raw, &f); err != nil {
		t.Fatal(err)
	}
	if a, err := f.AddressReply(); err != nil || a.String() != "220514030093" || !f.Answers(dlt645.Wildcard, dlt645.ReadAddress) {
		t.Errorf("AddressReply() = %v, %v", a, err)
	}
}
