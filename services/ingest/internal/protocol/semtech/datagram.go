package semtech

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

const (
	version     = 2
	headSize    = 4
	gatewayHead = headSize + len(Gateway{})

	// MaxDatagram is the longest datagram that is read: far more than a
	// forwarder's buffer of eight packets, and what one from anywhere may make
	// the node parse.
	MaxDatagram = 16 << 10
)

// Kind is the identifier of a datagram.
type Kind uint8

// The kinds.
const (
	PushData Kind = 0 // gateway: packets heard, or its status
	PushAck  Kind = 1 // server: answer to PushData
	PullData Kind = 2 // gateway: keeps the way back open
	PullResp Kind = 3 // server: a packet to send
	PullAck  Kind = 4 // server: answer to PullData
	TxAck    Kind = 5 // gateway: what became of a PullResp
)

// String returns the name that the protocol gives the kind.
func (k Kind) String() string {
	names := [...]string{"PUSH_DATA", "PUSH_ACK", "PULL_DATA", "PULL_RESP", "PULL_ACK", "TX_ACK"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// fromGateway reports whether datagrams of the kind carry a gateway's identity.
func (k Kind) fromGateway() bool { return k == PushData || k == PullData || k == TxAck }

// hasBody reports whether datagrams of the kind may end in JSON.
func (k Kind) hasBody() bool { return k == PushData || k == PullResp || k == TxAck }

// Gateway is a gateway's EUI-64.
type Gateway [8]byte

// ParseGateway reads 16 hexadecimal digits.
func ParseGateway(s string) (Gateway, error) {
	var g Gateway
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(g) {
		return Gateway{}, fmt.Errorf("gateway: must have %d hexadecimal digits, is %.40q", 2*len(g), s)
	}
	return Gateway(b), nil
}

// String returns 16 hexadecimal digits.
func (g Gateway) String() string { return hex.EncodeToString(g[:]) }

// ErrDatagram means that bytes are no datagram of the protocol, or its JSON is
// not of the protocol. Match it with errors.Is.
var ErrDatagram = errors.New("semtech: malformed datagram")

// Datagram is one datagram.
type Datagram struct {
	// Kind says what it is for.
	Kind Kind
	// Token pairs an answer with its question. PULL_RESP and TX_ACK: the token
	// that the server chose.
	Token uint16
	// Gateway is who sent a PUSH_DATA, PULL_DATA or TX_ACK.
	Gateway Gateway
	// Body is the JSON, not yet looked at: of PUSH_DATA and PULL_RESP, and of a
	// TX_ACK if any. It lies in the bytes that were parsed.
	Body []byte
}

// Parse reads a datagram. It allocates nothing. Every error is ErrDatagram.
func Parse(raw []byte) (Datagram, error) {
	if len(raw) < headSize || len(raw) > MaxDatagram {
		return Datagram{}, fmt.Errorf("%w: must have %d to %d bytes, has %d", ErrDatagram, headSize, MaxDatagram, len(raw))
	}
	if raw[0] != version {
		return Datagram{}, fmt.Errorf("%w: version must be %d, is %d", ErrDatagram, version, raw[0])
	}
	d := Datagram{Kind: Kind(raw[3]), Token: binary.BigEndian.Uint16(raw[1:])}
	if d.Kind > TxAck {
		return Datagram{}, fmt.Errorf("%w: kind must be 0 to %d, is %d", ErrDatagram, TxAck, d.Kind)
	}
	rest := raw[headSize:]
	if d.Kind.fromGateway() {
		if len(raw) < gatewayHead {
			return Datagram{}, fmt.Errorf("%w: %v must have %d bytes or more, has %d", ErrDatagram, d.Kind, gatewayHead, len(raw))
		}
		d.Gateway, rest = Gateway(rest[:len(d.Gateway)]), raw[gatewayHead:]
	}
	if len(rest) > 0 {
		if !d.Kind.hasBody() {
			return Datagram{}, fmt.Errorf("%w: %v with %d bytes behind it", ErrDatagram, d.Kind, len(rest))
		}
		d.Body = rest
	}
	return d, nil
}

// Append appends the datagram to dst. It fails when it would be longer than
// MaxDatagram, and when a kind without JSON has a Body.
func (d Datagram) Append(dst []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, version, byte(d.Token>>8), byte(d.Token), byte(d.Kind))
	if d.Kind.fromGateway() {
		dst = append(dst, d.Gateway[:]...)
	}
	dst = append(dst, d.Body...)
	if _, err := Parse(dst[start:]); err != nil {
		return dst[:start], err
	}
	return dst, nil
}

// AppendAck appends the answer that a server owes at once: PUSH_ACK to
// PUSH_DATA, PULL_ACK to PULL_DATA. For other kinds it appends nothing.
func (d Datagram) AppendAck(dst []byte) []byte {
	kind := PushAck
	switch d.Kind {
	case PushData:
	case PullData:
		kind = PullAck
	default:
		return dst
	}
	return append(dst, version, byte(d.Token>>8), byte(d.Token), byte(kind))
}
