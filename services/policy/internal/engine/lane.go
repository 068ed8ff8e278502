package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/abi"
)

// lane is what one evaluation needs for itself: an instance of each module,
// made when it is first asked, and the reading in the guests' form.
type lane struct {
	g         *generation
	instances []*instance // by the module's place; nil until started or after a trap
	input     []byte
	mode      FailMode
	fuel      uint64
}

// instance is one running guest. One goroutine uses it at a time.
type instance struct {
	mod      api.Module
	memory   api.Memory
	evaluate api.Function
	fuel     api.MutableGlobal
	buffer   uint32
	stack    [1]uint64 // of the call, kept here so that no call allocates
}

func (l *lane) grow(n int) {
	for len(l.instances) < n {
		l.instances = append(l.instances, nil)
	}
}

// noModules is the verdict's reason while no modules could be taken at all.
const noModules = "no policy is in force"

// judge asks the modules in order. The first that rejects decides; else the
// first that alerts.
func (l *lane) judge(ctx context.Context, r *abi.Reading, v *Verdict) error {
	var err error
	if l.input, err = abi.Append(l.input[:0], r); err != nil {
		return err
	}
	*v = Verdict{Action: abi.Accept}
	if l.g.number == 0 {
		l.failed(v, "", noModules)
		return nil
	}
	l.grow(len(l.g.modules))
	for i, m := range l.g.modules {
		m.stats.evaluations.Add(1)
		action, reason, err := l.ask(ctx, i, m)
		if err != nil {
			m.stats.traps.Add(1)
			m.stats.log.failed(ctx, err)
			if l.failed(v, m.name, err.Error()) {
				m.stats.rejections.Add(1)
				return nil
			}
			continue
		}
		switch action {
		case abi.Reject:
			m.stats.rejections.Add(1)
			*v = Verdict{Action: abi.Reject, Module: m.name, Reason: reason}
			return nil
		case abi.Alert:
			if v.Action != abi.Alert {
				v.Action, v.Module, v.Reason = abi.Alert, m.name, reason
			}
		default: // an acceptance's reason is not told: nobody asked
		}
	}
	return nil
}

// failed applies the fail mode; stop means that the verdict is final.
func (l *lane) failed(v *Verdict, module, reason string) (stop bool) {
	if l.mode == Closed {
		*v = Verdict{Action: abi.Reject, Module: module, Reason: reason, Unevaluated: true}
		return true
	}
	if v.Action == abi.Accept && !v.Unevaluated {
		v.Module, v.Reason = module, reason
	}
	v.Unevaluated = true
	return false
}

// errs of a guest that answers, but not within the ABI.
var errTransform = errors.New("asked for TRANSFORM, which this engine does not carry out")

// ask has one module judge the lane's input. A guest that trapped, exited or
// ran out of fuel is discarded: its memory may be in any state.
func (l *lane) ask(ctx context.Context, i int, m *module) (abi.Action, string, error) {
	in := l.instances[i]
	if in == nil {
		var err error
		if in, err = m.start(ctx); err != nil {
			return 0, "", err
		}
		l.instances[i] = in
	}
	if !in.memory.Write(in.buffer, l.input) {
		return 0, "", fmt.Errorf("scratch buffer at %d is out of its memory", in.buffer)
	}
	in.fuel.Set(l.fuel)
	in.stack[0] = uint64(len(l.input))
	// The caller's context stays out: wazero would look for values in it, and
	// fuel ends the call sooner than any deadline.
	if err := in.evaluate.CallWithStack(context.Background(), in.stack[:]); err != nil {
		cause := in.cause(err)
		_ = in.mod.Close(ctx)
		l.instances[i] = nil
		return 0, "", errors.New(cause)
	}
	action, id, _ := abi.Unpack(in.stack[0])
	switch action {
	case abi.Accept, abi.Reject, abi.Alert:
	case abi.Transform:
		return 0, "", errTransform
	default:
		return 0, "", fmt.Errorf("answered with action %d, must be 1 to 4", uint8(action))
	}
	switch {
	case id == 0:
		return action, "", nil
	case int(id) <= len(m.reasons):
		return action, m.reasons[id-1], nil
	}
	return action, fmt.Sprintf("reason %d, which the module does not name", id), nil
}
