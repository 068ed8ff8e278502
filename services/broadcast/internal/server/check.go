package server

import (
	"encoding/base64"
	"fmt"
	"strings"

	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

const (
	maxBatch    = 256
	maxValues   = 256 // the names that ingest keeps of a device
	maxName     = 64
	maxText     = 256
	defaultPage = 100
	maxPage     = 1000
)

// check refuses a batch whole: nothing of it is queued.
func check(req *broadcastv1.PublishStatusRequest, sequence uint64) error {
	if got := req.GetSequence(); got != sequence {
		return fault.Invalid("sequence", "must rise by one with each batch, want %d, is %d", sequence, got)
	}
	if n := len(req.GetStatuses()); n < 1 || n > maxBatch {
		return fault.Invalid("statuses", "must be 1 to %d, are %d", maxBatch, n)
	}
	for i, s := range req.GetStatuses() {
		if err := checkStatus(s); err != nil {
			return fault.Invalid(fmt.Sprintf("statuses[%d].%s", i, err.Field), "%s", err.Description)
		}
	}
	return nil
}

func checkStatus(s *broadcastv1.DeviceStatus) *fault.FieldError {
	if !bus.IsToken(s.GetDeviceId()) {
		return invalid("device_id", "must be 1 to 64 of [A-Za-z0-9_-], is %.80q", s.GetDeviceId())
	}
	if t := s.GetTime(); t != nil {
		if err := t.CheckValid(); err != nil {
			return invalid("time", "must be in the years 1 to 9999: %v", err)
		}
	}
	if n := len(s.GetValues()); n > maxValues {
		return invalid("values", "must be at most %d, are %d", maxValues, n)
	}
	previous := ""
	for i, v := range s.GetValues() {
		if err := checkValue(v); err != nil {
			err.Field = fmt.Sprintf("values[%d].%s", i, err.Field)
			return err
		}
		if v.GetName() <= previous {
			return invalid(fmt.Sprintf("values[%d].name", i), "must come after %q in order, is %q", previous, v.GetName())
		}
		previous = v.GetName()
	}
	return nil
}

func checkValue(v *telemetryv1.Value) *fault.FieldError {
	if name := v.GetName(); name == "" || len(name) > maxName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return invalid("name", "must be 1 to %d of [a-z0-9_], is %.80q", maxName, name)
	}
	if n := len(v.GetText()); n > maxText {
		return invalid("text", "must be at most %d bytes, is %d", maxText, n)
	}
	return nil
}

func invalid(field, format string, args ...any) *fault.FieldError {
	return &fault.FieldError{Field: field, Description: fmt.Sprintf(format, args...)}
}

// tokenPrefix tells our page tokens from others, and this form from later ones.
const tokenPrefix = "q1:"

func pageToken(lastID string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenPrefix + lastID))
}

func page(req *broadcastv1.ListQueuesRequest) (size int, after string, err error) {
	size = int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	if size < 1 || size > maxPage {
		return 0, "", fault.Invalid("page_size", "must be 1 to %d, or 0 for %d, is %d", maxPage, defaultPage, size)
	}
	if req.GetPageToken() == "" {
		return size, "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	after, ours := strings.CutPrefix(string(raw), tokenPrefix)
	if err != nil || !ours || !bus.IsToken(after) {
		return 0, "", fault.Invalid("page_token", "must be the next_page_token of an answer, is %.80q", req.GetPageToken())
	}
	return size, after, nil
}
