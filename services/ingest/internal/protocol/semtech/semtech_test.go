package semtech_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/semtech"
)

// pushed is the example of PROTOCOL.TXT in Lora-net/packet_forwarder, with the
// status beside the packets.
const pushed = `{"rxpk":[
 {"time":"2013-03-31T16:21:17.528002Z","tmst":3512348611,"chan":2,"rfch":0,"freq":866.349812,"stat":1,"modu":"LORA","datr":"SF7BW125","codr":"4/6","rssi":-35,"lsnr":5.1,"size":32,"data":"-DS4CGaDCdG+48eJNM3Vai-zDpsR71Pn9CPA9uCON84"},
 {"time":"2013-03-31T16:21:17.530974Z","tmst":3512348514,"chan":9,"rfch":1,"freq":869.1,"stat":1,"modu":"FSK","datr":50000,"rssi":-75,"size":16,"data":"VEVTVF9QQUNLRVRfMTIzNA==","own":{"x":1}}
],"stat":{"time":"2014-01-12 08:59:28 GMT","lati":46.24000,"long":3.25230,"alti":145,"rxnb":2,"rxok":2,"rxfw":2,"ackr":100.0,"dwnb":2,"txnb":2}}`

var gateway = semtech.Gateway{0xB8, 0x27, 0xEB, 0xFF, 0xFE, 0, 0, 1}

func TestPush(t *testing.T) {
	raw, err := semtech.Datagram{Kind: semtech.PushData, Token: 0x1234, Gateway: gateway, Body: []byte(pushed)}.Append(nil)
	if err != nil || !bytes.HasPrefix(raw, []byte{2, 0x12, 0x34, 0, 0xB8}) {
		t.Fatalf("Append = % x, %v", raw, err)
	}
	d, err := semtech.Parse(raw)
	if err != nil || d.Kind != semtech.PushData || d.Token != 0x1234 || d.Gateway != gateway {
		t.Fatalf("Parse = %+v, %v", d, err)
	}
	if got, want := d.AppendAck(nil), []byte{2, 0x12, 0x34, 1}; !bytes.Equal(got, want) {
		t.Errorf("AppendAck = % x, want % x", got, want)
	}
	p, err := semtech.ParsePush(d.Body)
	if err != nil || len(p.Packets) != 2 || p.Status == nil {
		t.Fatalf("ParsePush = %+v, %v", p, err)
	}
	first, second := p.Packets[0], p.Packets[1]
	if at, ok := first.At(); !ok || !at.Equal(time.Date(2013, 3, 31, 16, 21, 17, 528002000, time.UTC)) {
		t.Errorf("At = %v, %v", at, ok)
	}
	if first.DataRate.LoRa != "SF7BW125" || first.Data[0] != 0xF8 || len(first.Data) != 32 || first.SNR != 5.1 {
		t.Errorf("first packet = %+v", first)
	}
	if second.DataRate.FSK != 50000 || string(second.Data) != "TEST_PACKET_1234" || second.RSSI != -75 {
		t.Errorf("second packet = %+v", second)
	}
	values := p.Status.AppendValues(first.AppendValues(nil))
	if len(values) != 12 || values[0] != (protocol.Value{Name: "signal_dbm", Number: -35}) || values[11].Number != 145 {
		t.Errorf("values = %+v", values)
	}
	for _, v := range values {
		if !protocol.IsName(v.Name) {
			t.Errorf("%q may not name a value", v.Name)
		}
	}
}

func TestOtherKinds(t *testing.T) {
	for _, tt := range []struct {
		raw  string
		want semtech.Datagram
		ack  string
	}{
		{"02 abcd 02 b827ebfffe000001", semtech.Datagram{Kind: semtech.PullData, Token: 0xABCD, Gateway: gateway}, "02abcd04"},
		{"02 abcd 04", semtech.Datagram{Kind: semtech.PullAck, Token: 0xABCD}, ""},
		{"02 abcd 01", semtech.Datagram{Kind: semtech.PushAck, Token: 0xABCD}, ""},
		{"02 0001 05 b827ebfffe000001", semtech.Datagram{Kind: semtech.TxAck, Token: 1, Gateway: gateway}, ""},
		{"02 0001 05 b827ebfffe000001 7b7d", semtech.Datagram{Kind: semtech.TxAck, Token: 1, Gateway: gateway, Body: []byte("{}")}, ""},
	} {
		raw := unhex(t, tt.raw)
		got, err := semtech.Parse(raw)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Parse(%s) = %+v, %v, want %+v", tt.raw, got, err, tt.want)
		}
		if again, err := got.Append(nil); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("Append(%+v) = % x, %v", got, again, err)
		}
		if ack := got.AppendAck(nil); !bytes.Equal(ack, unhex(t, tt.ack)) {
			t.Errorf("AppendAck(%s) = % x, want %s", tt.raw, ack, tt.ack)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("hex %q: %v", s, err)
	}
	return b
}

func TestParseRefuses(t *testing.T) {
	for name, raw := range map[string][]byte{
		"empty": nil, "short": {2, 0, 0}, "version": {1, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8}, "kind": {2, 0, 0, 6},
		"no gateway": {2, 0, 0, 2, 1, 2, 3}, "ack with more": {2, 0, 0, 1, '{', '}'}, "poll with more": append([]byte{2, 0, 0, 2}, make([]byte, 9)...),
		"long": append([]byte{2, 0, 0, 0}, make([]byte, semtech.MaxDatagram)...),
	} {
		if d, err := semtech.Parse(raw); !errors.Is(err, semtech.ErrDatagram) {
			t.Errorf("Parse of %s = %+v, %v, want ErrDatagram", name, d, err)
		}
	}
}

func TestParsePushRefuses(t *testing.T) {
	const good = `{"freq":868.1,"stat":1,"modu":"LORA","datr":"SF7BW125","size":1,"data":"AA=="}`
	if _, err := semtech.ParsePush([]byte(`{"rxpk":[` + good + `]}`)); err != nil {
		t.Fatal(err)
	}
	for says, body := range map[string]string{
		"PUSH_DATA":      `{"rxpk":[`,
		"at most 64":     `{"rxpk":[` + strings.Repeat(good+",", 64) + good + `]}`,
		"rxpk[1].size":   `{"rxpk":[` + good + `,` + strings.Replace(good, `"size":1`, `"size":2`, 1) + `]}`,
		"rxpk[0].stat":   `{"rxpk":[` + strings.Replace(good, `"stat":1`, `"stat":2`, 1) + `]}`,
		"rxpk[0].modu":   `{"rxpk":[` + strings.Replace(good, `LORA`, `AM`, 1) + `]}`,
		"rxpk[0].freq":   `{"rxpk":[` + strings.Replace(good, `868.1`, `-1`, 1) + `]}`,
		"rxpk[0].datr":   `{"rxpk":[` + strings.Replace(good, `SF7BW125`, strings.Repeat("S", 33), 1) + `]}`,
		"at most 255":    `{"rxpk":[` + strings.Replace(good, `AA==`, strings.Repeat("A", 344), 1) + `]}`,
		"illegal base64": `{"rxpk":[` + strings.Replace(good, `AA==`, `A!==`, 1) + `]}`,
	} {
		if p, err := semtech.ParsePush([]byte(body)); !errors.Is(err, semtech.ErrDatagram) || !strings.Contains(err.Error(), says) {
			t.Errorf("ParsePush(%.80s) = %+v, %v, want one that says %q", body, p, err, says)
		}
	}
}

func TestDownlink(t *testing.T) {
	at := uint32(3512348611)
	sent := semtech.Transmit{Timestamp: &at, Frequency: 869.525, Power: 14, Modulation: "LORA", DataRate: semtech.DataRate{LoRa: "SF9BW125"}, CodeRate: "4/5", Inverted: true, NoCRC: true, Data: []byte{1, 2, 3}}
	raw, err := semtech.AppendPullResp(nil, 7, sent)
	if err != nil {
		t.Fatal(err)
	}
	d, err := semtech.Parse(raw)
	if err != nil || d.Kind != semtech.PullResp || d.Token != 7 {
		t.Fatalf("Parse = %+v, %v", d, err)
	}
	sent.Size = 3
	if got, err := semtech.ParsePullResp(d.Body); err != nil || !reflect.DeepEqual(*got, sent) {
		t.Errorf("ParsePullResp = %+v, %v, want %+v", got, err, sent)
	}
	for _, n := range []int{0, 256} {
		if _, err := semtech.AppendPullResp(nil, 7, semtech.Transmit{Data: make([]byte, n)}); err == nil {
			t.Errorf("AppendPullResp of %d bytes = nil, want an error", n)
		}
	}
	if _, err := semtech.ParsePullResp([]byte(`{}`)); !errors.Is(err, semtech.ErrDatagram) {
		t.Errorf("ParsePullResp({}): %v, want ErrDatagram", err)
	}
}

func TestTxAck(t *testing.T) {
	for body, want := range map[string]error{
		"": nil, "{}": nil, `{"txpk_ack":{"error":"NONE"}}`: nil, `{"txpk_ack":{"error":"TOO_LATE"}}`: semtech.TransmitError("TOO_LATE"),
		`{`: semtech.ErrDatagram, fmt.Sprintf(`{"txpk_ack":{"error":"%065d"}}`, 0): semtech.ErrDatagram,
	} {
		if err := semtech.ParseTxAck([]byte(body)); !errors.Is(err, want) {
			t.Errorf("ParseTxAck(%s) = %v, want %v", body, err, want)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	raw, err := semtech.Datagram{Kind: semtech.PushData, Gateway: gateway, Body: []byte(pushed)}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	ack := make([]byte, 0, 4)
	if got := testing.AllocsPerRun(100, func() {
		d, err := semtech.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		ack = d.AppendAck(ack[:0])
	}); got != 0 {
		t.Errorf("a datagram allocates %v times before its JSON, want 0", got)
	}
}

func BenchmarkPush(b *testing.B) {
	raw, err := semtech.Datagram{Kind: semtech.PushData, Gateway: gateway, Body: []byte(pushed)}.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := semtech.Parse(raw)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := semtech.ParsePush(d.Body); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds()/1e3, "kpackets/s")
}

// FuzzDatagram holds that what is read can be written and read again, and that
// packets stay within their bounds.
func FuzzDatagram(f *testing.F) {
	for _, body := range []string{pushed, `{"txpk":{"size":1,"data":"AA"}}`, `{"txpk_ack":{"error":"TOO_LATE"}}`, ""} {
		for kind := range semtech.TxAck + 2 {
			f.Add(append(append([]byte{2, 1, 2, byte(kind)}, gateway[:]...), body...))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := semtech.Parse(raw)
		if err != nil {
			return
		}
		if again, err := d.Append(nil); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("% x became % x, %v", raw, again, err)
		}
		switch d.Kind {
		case semtech.PushData:
			p, err := semtech.ParsePush(d.Body)
			if err != nil {
				return
			}
			if len(p.Packets) > semtech.MaxPackets {
				t.Fatalf("%d packets", len(p.Packets))
			}
			body, err := json.Marshal(p)
			if err != nil {
				t.Fatalf("write %+v: %v", p, err)
			}
			again, err := semtech.ParsePush(body)
			if err != nil {
				t.Fatalf("read %s: %v", body, err)
			}
			for i, packet := range again.Packets {
				if len(packet.Data) > semtech.MaxPayload || !bytes.Equal(packet.Data, p.Packets[i].Data) {
					t.Fatalf("packet %d: %+v became %+v", i, p.Packets[i], packet)
				}
			}
		case semtech.TxAck:
			if err := semtech.ParseTxAck(d.Body); err != nil && len(err.Error()) > 4096 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
		case semtech.PullResp:
			if p, err := semtech.ParsePullResp(d.Body); err == nil && len(p.Data) > semtech.MaxPayload {
				t.Fatalf("%+v", p)
			}
		case semtech.PushAck, semtech.PullData, semtech.PullAck:
		}
	})
}
