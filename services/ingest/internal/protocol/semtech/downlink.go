package semtech

import (
	"encoding/json"
	"fmt"
)

// Transmit is a packet that a gateway is to send (`txpk`).
type Transmit struct {
	// Immediately sends at once; Timestamp and Time are then not read.
	Immediately bool `json:"imme,omitempty"`
	// Timestamp is when by the concentrator's counter, in µs.
	Timestamp *uint32 `json:"tmst,omitempty"`
	// GPSMilliseconds is when by GPS time; 0 when not used.
	GPSMilliseconds uint64 `json:"tmms,omitempty"`
	// Frequency is in MHz.
	Frequency float64 `json:"freq"`
	// Chain is that of the concentrator.
	Chain uint8 `json:"rfch"`
	// Power is in dBm.
	Power int8 `json:"powe,omitempty"`
	// Modulation is `LORA` or `FSK`.
	Modulation string `json:"modu"`
	// DataRate and CodeRate are as of Packet.
	DataRate DataRate `json:"datr"`
	CodeRate string   `json:"codr,omitempty"`
	// Deviation is that of FSK, in Hz.
	Deviation uint32 `json:"fdev,omitempty"`
	// Inverted is the polarisation of LoRa: true to devices.
	Inverted bool `json:"ipol,omitempty"`
	// Preamble is its length in symbols; 0 for the gateway's default.
	Preamble uint16 `json:"prea,omitempty"`
	// Size is the length of Data.
	Size int `json:"size"`
	// Data is the packet, 1 to MaxPayload bytes.
	Data Payload `json:"data"`
	// NoCRC leaves the radio's CRC out.
	NoCRC bool `json:"ncrc,omitempty"`
}

type pull struct {
	Transmit *Transmit `json:"txpk"`
}

// AppendPullResp appends a PULL_RESP. Size is taken from Data.
func AppendPullResp(dst []byte, token uint16, t Transmit) ([]byte, error) {
	if len(t.Data) == 0 || len(t.Data) > MaxPayload {
		return dst, fmt.Errorf("txpk.data: must be 1 to %d bytes, is %d", MaxPayload, len(t.Data))
	}
	t.Size = len(t.Data)
	body, err := json.Marshal(pull{&t})
	if err != nil {
		return dst, fmt.Errorf("write txpk: %w", err)
	}
	return Datagram{Kind: PullResp, Token: token, Body: body}.Append(dst)
}

// ParsePullResp reads the JSON of a PULL_RESP, as a gateway does.
func ParsePullResp(body []byte) (*Transmit, error) {
	var p pull
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, fmt.Errorf("%w: PULL_RESP: %w", ErrDatagram, err)
	}
	if p.Transmit == nil || p.Transmit.Size != len(p.Transmit.Data) {
		return nil, fmt.Errorf("%w: PULL_RESP without txpk, or with a size that is not that of its data", ErrDatagram)
	}
	return p.Transmit, nil
}

// TransmitError is why a gateway did not send a packet: the code of its TX_ACK,
// for example `TOO_LATE`, `TOO_EARLY`, `COLLISION_PACKET`, `COLLISION_BEACON`,
// `TX_FREQ`, `TX_POWER`, `GPS_UNLOCKED`.
type TransmitError string

// Error says that the gateway refused, and its code.
func (e TransmitError) Error() string { return "gateway did not send: " + string(e) }

// ParseTxAck reads the JSON of a TX_ACK, which may be empty. It returns nil when
// the packet was taken, a TransmitError when it was not, and ErrDatagram.
func ParseTxAck(body []byte) error {
	if len(body) == 0 {
		return nil
	}
	var a struct {
		Ack struct {
			Error string `json:"error"`
		} `json:"txpk_ack"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("%w: TX_ACK: %w", ErrDatagram, err)
	}
	switch code := a.Ack.Error; {
	case code == "" || code == "NONE":
		return nil
	case len(code) > 64:
		return fmt.Errorf("%w: txpk_ack.error: must be at most 64 bytes, is %d", ErrDatagram, len(code))
	default:
		return TransmitError(code)
	}
}
