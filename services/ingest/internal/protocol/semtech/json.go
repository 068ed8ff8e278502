package semtech

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

const (
	// MaxPackets is the most packets of a PUSH_DATA: eight times what the
	// reference forwarder sends.
	MaxPackets = 64
	// MaxPayload is the longest packet that a LoRa radio receives.
	MaxPayload = 255
)

// Payload is a packet, in base64 on the wire. Forwarders differ in padding and
// alphabet, and the protocol's own examples mix them: any is read, the standard
// one with padding is written.
type Payload []byte

var urlAlphabet = strings.NewReplacer("-", "+", "_", "/")

// UnmarshalJSON reads base64 of at most MaxPayload bytes.
func (p *Payload) UnmarshalJSON(raw []byte) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	s = urlAlphabet.Replace(strings.TrimRight(s, "="))
	if n := base64.RawStdEncoding.DecodedLen(len(s)); n > MaxPayload {
		return fmt.Errorf("data: must be at most %d bytes, is %d", MaxPayload, n)
	}
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	*p = b
	return nil
}

// MarshalJSON writes standard base64 with padding.
func (p Payload) MarshalJSON() ([]byte, error) {
	return json.Marshal(base64.StdEncoding.EncodeToString(p))
}

// DataRate is a LoRa data rate such as `SF7BW125`, or an FSK one in bits per
// second.
type DataRate struct {
	// LoRa is the identifier; empty for FSK.
	LoRa string
	// FSK is in bits per second; 0 for LoRa.
	FSK uint32
}

// UnmarshalJSON reads a string or a number.
func (d *DataRate) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, &d.LoRa)
	}
	return json.Unmarshal(raw, &d.FSK)
}

// MarshalJSON writes a string or a number.
func (d DataRate) MarshalJSON() ([]byte, error) {
	if d.LoRa != "" {
		return json.Marshal(d.LoRa)
	}
	return json.Marshal(d.FSK)
}

// The CRC states of a packet heard.
const (
	CRCFailed = -1
	CRCNone   = 0
	CRCGood   = 1
)

// Packet is a packet that a gateway heard (`rxpk`).
type Packet struct {
	// Time is when it was received, UTC, ISO 8601 with µs; empty without GPS.
	Time string `json:"time,omitempty"`
	// GPSMilliseconds is when, since 1980-01-06 in GPS time; 0 without GPS.
	GPSMilliseconds uint64 `json:"tmms,omitempty"`
	// Timestamp is the concentrator's counter in µs; it wraps after 71 minutes.
	Timestamp uint32 `json:"tmst"`
	// Frequency is in MHz.
	Frequency float64 `json:"freq"`
	// Channel and Chain are those of the concentrator.
	Channel uint8 `json:"chan"`
	Chain   uint8 `json:"rfch"`
	// CRC is CRCGood, CRCFailed or CRCNone.
	CRC int8 `json:"stat"`
	// Modulation is `LORA` or `FSK`.
	Modulation string `json:"modu"`
	// DataRate is the data rate.
	DataRate DataRate `json:"datr"`
	// CodeRate is the LoRa coding rate, for example `4/5`.
	CodeRate string `json:"codr,omitempty"`
	// RSSI is in dBm.
	RSSI float64 `json:"rssi"`
	// SNR is in dB, of LoRa.
	SNR float64 `json:"lsnr,omitempty"`
	// Size is the length of Data.
	Size int `json:"size"`
	// Data is the packet.
	Data Payload `json:"data"`
}

// At returns Time. ok is false when it is empty or not ISO 8601.
func (p *Packet) At() (t time.Time, ok bool) {
	t, err := time.Parse(time.RFC3339Nano, p.Time)
	return t, err == nil
}

// AppendValues appends how the packet was heard: signal_dbm, snr_decibels and
// frequency_megahertz.
func (p *Packet) AppendValues(dst []protocol.Value) []protocol.Value {
	return append(
		dst,
		protocol.Value{Name: "signal_dbm", Number: p.RSSI},
		protocol.Value{Name: "snr_decibels", Number: p.SNR},
		protocol.Value{Name: "frequency_megahertz", Number: p.Frequency},
	)
}

// Status is how a gateway does (`stat`).
type Status struct {
	// Time is its clock, `2014-01-12 08:59:28 GMT`.
	Time string `json:"time,omitempty"`
	// Latitude and Longitude are in degrees, north and east positive; Altitude
	// is in metres. They are nil without GPS.
	Latitude  *float64 `json:"lati,omitempty"`
	Longitude *float64 `json:"long,omitempty"`
	Altitude  *float64 `json:"alti,omitempty"`
	// Received, Good and Forwarded count packets heard, those with a good CRC,
	// and those sent on.
	Received  uint32 `json:"rxnb"`
	Good      uint32 `json:"rxok"`
	Forwarded uint32 `json:"rxfw"`
	// Acknowledged is the share of datagrams that were, in percent.
	Acknowledged float64 `json:"ackr"`
	// Downlinks counts datagrams from the server, Sent packets sent by radio.
	Downlinks uint32 `json:"dwnb"`
	Sent      uint32 `json:"txnb"`
}

// AppendValues appends the counts, the share and the place.
func (s *Status) AppendValues(dst []protocol.Value) []protocol.Value {
	for _, v := range [...]struct {
		name string
		n    float64
	}{
		{"gateway_received_packets", float64(s.Received)},
		{"gateway_good_packets", float64(s.Good)},
		{"gateway_forwarded_packets", float64(s.Forwarded)},
		{"gateway_acknowledged_percent", s.Acknowledged},
		{"gateway_downlink_datagrams", float64(s.Downlinks)},
		{"gateway_sent_packets", float64(s.Sent)},
	} {
		dst = append(dst, protocol.Value{Name: v.name, Number: v.n})
	}
	for _, v := range [...]struct {
		name string
		n    *float64
	}{{"gateway_latitude_degrees", s.Latitude}, {"gateway_longitude_degrees", s.Longitude}, {"gateway_altitude_metres", s.Altitude}} {
		if v.n != nil {
			dst = append(dst, protocol.Value{Name: v.name, Number: *v.n})
		}
	}
	return dst
}

// Push is the JSON of a PUSH_DATA.
type Push struct {
	// Packets are 0 to MaxPackets.
	Packets []Packet `json:"rxpk,omitempty"`
	// Status is nil when it is not reported.
	Status *Status `json:"stat,omitempty"`
}

// ParsePush reads the JSON of a PUSH_DATA. Unknown fields are let pass: the
// protocol allows a forwarder its own. Every error is ErrDatagram. A bad packet
// refuses the whole.
func ParsePush(body []byte) (*Push, error) {
	// The packets are counted before they are made: a datagram full of `{}` must
	// not become a thousand times its size.
	var wire struct {
		Packets []json.RawMessage `json:"rxpk"`
		Status  *Status           `json:"stat"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("%w: PUSH_DATA: %w", ErrDatagram, err)
	}
	if len(wire.Packets) > MaxPackets {
		return nil, fmt.Errorf("%w: rxpk: must be at most %d, are %d", ErrDatagram, MaxPackets, len(wire.Packets))
	}
	p := &Push{Packets: make([]Packet, len(wire.Packets)), Status: wire.Status}
	for i, raw := range wire.Packets {
		if err := json.Unmarshal(raw, &p.Packets[i]); err != nil {
			return nil, fmt.Errorf("%w: rxpk[%d]: %w", ErrDatagram, i, err)
		}
		if err := p.Packets[i].check(); err != nil {
			return nil, fmt.Errorf("%w: rxpk[%d].%w", ErrDatagram, i, err)
		}
	}
	return p, nil
}

func (p *Packet) check() error {
	switch {
	case p.Size != len(p.Data):
		return fmt.Errorf("size: must be that of data, %d, is %d", len(p.Data), p.Size)
	case p.CRC < CRCFailed || p.CRC > CRCGood:
		return fmt.Errorf("stat: must be -1 to 1, is %d", p.CRC)
	case p.Modulation != "LORA" && p.Modulation != "FSK" && p.Modulation != "LR-FHSS":
		return fmt.Errorf("modu: must be LORA, FSK or LR-FHSS, is %.20q", p.Modulation)
	case p.Frequency <= 0 || p.Frequency > 3000 || math.IsNaN(p.Frequency):
		return fmt.Errorf("freq: must be above 0 and at most 3000 MHz, is %v", p.Frequency)
	case len(p.DataRate.LoRa) > 32 || len(p.CodeRate) > 32 || len(p.Time) > 64:
		return fmt.Errorf("datr, codr or time: longer than any")
	}
	return nil
}
