// Package bus is the node's side of NATS: the subjects, the streams and the
// publishing of telemetry and events.
package bus

import (
	"fmt"
	"strconv"
	"strings"
)

// prefix is the version of the subjects' layout.
const prefix = "xh.v1"

// maxToken bounds a token; NATS itself has no bound.
const maxToken = 64

// Subjects names what a node publishes:
// `xh.v1.<site>.<node>.{tel.<source>.<device>|evt.<service>|status.<device>}`.
type Subjects struct {
	base string
	site string
	node string
}

// NewSubjects returns the subjects of a node. Its names must be tokens.
func NewSubjects(site, node string) (Subjects, error) {
	for _, t := range []struct{ field, value string }{{"site", site}, {"node", node}} {
		if !IsToken(t.value) {
			return Subjects{}, fmt.Errorf("%s: must be 1 to %d of [A-Za-z0-9_-], is %q", t.field, maxToken, t.value)
		}
	}
	return Subjects{base: prefix + "." + site + "." + node + ".", site: site, node: node}, nil
}

// IsToken reports whether s is 1 to 64 of [A-Za-z0-9_-]: a name that has no
// meaning of its own in a NATS subject, an MQTT topic or a file path.
func IsToken(s string) bool {
	if s == "" || len(s) > maxToken {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// Telemetry is where a device's readings go. Both names must be tokens.
func (s Subjects) Telemetry(source, device string) string {
	return s.base + "tel." + source + "." + device
}

// AllTelemetry matches every Telemetry subject of the node.
func (s Subjects) AllTelemetry() string { return s.base + "tel.>" }

// Event is where a service's events go.
func (s Subjects) Event(service string) string { return s.base + "evt." + service }

// AllEvents matches every Event subject of the node.
func (s Subjects) AllEvents() string { return s.base + "evt.>" }

// Status is where a device's status goes.
func (s Subjects) Status(device string) string { return s.base + "status." + device }

// TelemetryStream and EventStream name the node's JetStream streams.
func (s Subjects) TelemetryStream() string { return "XH_TEL_" + s.site + "_" + s.node }

// EventStream names the JetStream stream of the events.
func (s Subjects) EventStream() string { return "XH_EVT_" + s.site + "_" + s.node }

// MsgID is the Nats-Msg-Id of a message: `<node>/<epoch>/<sequence>`. The same
// message sent again has the same id, and JetStream takes it once.
func (s Subjects) MsgID(epoch, sequence uint64) string {
	var b strings.Builder
	b.Grow(len(s.node) + 42)
	b.WriteString(s.node)
	b.WriteByte('/')
	b.WriteString(strconv.FormatUint(epoch, 10))
	b.WriteByte('/')
	b.WriteString(strconv.FormatUint(sequence, 10))
	return b.String()
}
