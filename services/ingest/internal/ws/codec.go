package ws

import (
	"fmt"
	"regexp"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// The sub-protocols of the door (RFC 6455, section 1.9).
const (
	ProtoProtocol = "xinghuo.v1+proto"
	JSONProtocol  = "xinghuo.v1+json"
)

// codec is how a connection writes its frames.
type codec struct {
	messageType int
	marshal     func(proto.Message) ([]byte, error)
	unmarshal   func([]byte, proto.Message) error
}

var codecs = map[string]codec{
	// Fields that this version does not know are not carried along: they would
	// stay in memory, counted by nobody.
	ProtoProtocol: {websocket.BinaryMessage, proto.Marshal, proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal},
	JSONProtocol:  {websocket.TextMessage, protojson.Marshal, protojson.Unmarshal},
}

const (
	maxReadings = 64
	maxValues   = 64
	maxText     = 256
	maxLabel    = 64
	maxPayload  = 32 << 10
)

var valueName = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)

// checkReadings checks what device/v1 states of a ReadingBatch.
func checkReadings(readings []*telemetryv1.Reading) error {
	if n := len(readings); n < 1 || n > maxReadings {
		return fault.Invalid("readings", "must be 1 to %d, are %d", maxReadings, n)
	}
	var last uint64
	for i, r := range readings {
		if s := r.GetSequence(); s <= last {
			return fault.Invalid(fmt.Sprintf("readings[%d].sequence", i), "must be above %d, is %d", last, s)
		}
		last = r.GetSequence()
		if r.GetTime() != nil {
			if err := r.GetTime().CheckValid(); err != nil {
				return fault.Invalid(fmt.Sprintf("readings[%d].time", i), "must be years 1 to 9999, is %v", r.GetTime())
			}
		}
		if err := checkValues(i, r.GetValues()); err != nil {
			return err
		}
	}
	return nil
}

func checkValues(i int, values []*telemetryv1.Value) error {
	if n := len(values); n < 1 || n > maxValues {
		return fault.Invalid(fmt.Sprintf("readings[%d].values", i), "must be 1 to %d, are %d", maxValues, n)
	}
	for j, v := range values {
		if !isValueName(v.GetName()) {
			return fault.Invalid(fmt.Sprintf("readings[%d].values[%d].name", i, j), "must match %s, is %.80q", valueName, v.GetName())
		}
		if n := len(v.GetText()); n > maxText {
			return fault.Invalid(fmt.Sprintf("readings[%d].values[%d].text", i, j), "must be at most %d bytes, is %d", maxText, n)
		}
		for _, other := range values[:j] {
			if other.GetName() == v.GetName() {
				return fault.Invalid(fmt.Sprintf("readings[%d].values[%d].name", i, j), "stands twice: %q", v.GetName())
			}
		}
	}
	return nil
}

// isValueName is valueName by hand: it runs for each value of each reading.
func isValueName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

func checkHello(h *devicev1.Hello) error {
	switch {
	case h == nil:
		return fault.Invalid("hello", "must be the first frame")
	case h.GetSession() == 0:
		return fault.Invalid("hello.session", "must not be 0")
	case len(h.GetModel()) > maxLabel:
		return fault.Invalid("hello.model", "must be at most %d bytes, is %d", maxLabel, len(h.GetModel()))
	case len(h.GetFirmware()) > maxLabel:
		return fault.Invalid("hello.firmware", "must be at most %d bytes, is %d", maxLabel, len(h.GetFirmware()))
	}
	return nil
}

func checkResult(r *devicev1.CommandResult) error {
	if n := len(r.GetPayload()); n > maxPayload {
		return fault.Invalid("command_result.payload", "must be at most %d bytes, is %d", maxPayload, n)
	}
	return nil
}
