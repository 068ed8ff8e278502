package ws

import (
	"encoding/hex"
	"testing"

	"google.golang.org/protobuf/proto"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
)

// FuzzDeviceFrame holds that whatever bytes a device sends, a frame that is let
// through keeps what device/v1 promises, and survives being written again.
func FuzzDeviceFrame(f *testing.F) {
	for _, seed := range []string{"", "0a020807", "121608011a0c0a0161110000000000001440", "12120a10080112060880e2cfaa061a0401610000", "1a04080110012201ff"} {
		raw, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false)
	}
	f.Add([]byte(`{"readings":{"readings":[{"sequence":"1","values":[{"name":"a","number":"NaN"}]}]}}`), true)
	f.Fuzz(func(t *testing.T, raw []byte, json bool) {
		c := codecs[ProtoProtocol]
		if json {
			c = codecs[JSONProtocol]
		}
		var frame devicev1.DeviceFrame
		if len(raw) > MaxFrame || c.unmarshal(raw, &frame) != nil {
			return
		}
		rs := frame.GetReadings().GetReadings()
		if checkReadings(rs) != nil {
			return
		}
		if len(rs) == 0 || len(rs) > maxReadings {
			t.Fatalf("%d readings let through", len(rs))
		}
		for _, r := range rs {
			if r.GetSequence() == 0 || len(r.GetValues()) == 0 {
				t.Fatalf("reading let through: %v", r)
			}
			for _, v := range r.GetValues() {
				if isValueName(v.GetName()) != valueName.MatchString(v.GetName()) {
					t.Fatalf("name %q: the two rules disagree", v.GetName())
				}
			}
		}
		again, err := c.marshal(&frame)
		if err != nil {
			t.Fatalf("write again: %v", err)
		}
		var second devicev1.DeviceFrame
		if err := c.unmarshal(again, &second); err != nil {
			t.Fatalf("read again: %v", err)
		}
		if !json && !proto.Equal(&frame, &second) {
			t.Fatalf("%v became %v", &frame, &second)
		}
	})
}
