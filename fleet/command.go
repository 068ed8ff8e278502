package fleet

import (
	"bytes"
	"encoding/json"
	"time"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
)

const (
	maxCommands = 64 // open at one time in a meter
	maxDelay    = time.Minute
)

// answer is a command's result and when it is to go out.
type answer struct {
	at     time.Time
	result *devicev1.CommandResult
}

// command answers a command with its own payload. Two payloads ask for more:
// `{"delay_ms":N}` is answered N ms later, at most 60,000, and
// `{"silent":true}` never.
func (l *link) command(c *devicev1.Command) {
	l.meter.mu.Lock()
	l.meter.count.commands++
	l.meter.mu.Unlock()
	a := answer{time.Now(), &devicev1.CommandResult{Id: c.GetId(), Ok: true, Payload: bytes.Clone(c.GetPayload())}}
	if p := c.GetPayload(); len(p) > 0 && p[0] == '{' {
		var ask struct {
			DelayMs int64 `json:"delay_ms"`
			Silent  bool  `json:"silent"`
		}
		// A payload that is no such JSON asks for nothing.
		if err := json.Unmarshal(p, &ask); err == nil {
			if ask.Silent {
				return
			}
			a.at = a.at.Add(min(time.Duration(max(ask.DelayMs, 0)), maxDelay/time.Millisecond) * time.Millisecond)
		}
	}
	select {
	case l.answers <- a:
	default: // it has as many as it can; the operator's deadline tells him
	}
}

// answer sends the answers that are due.
func (l *link) answer(now time.Time) error {
	if len(l.delayed) > maxCommands {
		l.delayed = l.delayed[:maxCommands]
	}
	kept := l.delayed[:0]
	for i, a := range l.delayed {
		if a.at.After(now) {
			kept = append(kept, a)
			continue
		}
		if err := l.send(&devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_CommandResult{CommandResult: a.result}}); err != nil {
			l.delayed = append(kept, l.delayed[i:]...)
			return err
		}
	}
	clear(l.delayed[len(kept):])
	l.delayed = kept
	return nil
}
