package server

import (
	"context"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/abi"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/engine"
)

// accepted is the verdict of nearly every reading. It is only read, so that all
// answers share it.
var accepted = &policyv1.Verdict{Action: policyv1.Action_ACTION_ACCEPT}

// batch is the room of one stream, used again for each of its batches.
type batch struct {
	readings []abi.Reading
	values   []abi.Value // of all readings, in one piece
	verdicts []engine.Verdict
}

// judge returns a verdict for each reading. The answer is new each time: grpc
// may read it after Send.
func (b *batch) judge(ctx context.Context, judge Judge, in []*policyv1.DeviceReading) ([]*policyv1.Verdict, uint64, error) {
	if n := len(in); n < 1 || n > maxBatch {
		return nil, 0, fault.Invalid("readings", "must be 1 to %d, are %d", maxBatch, n)
	}
	b.take(in)
	generation, err := judge.EvaluateBatch(ctx, b.readings, b.verdicts)
	if err != nil {
		return nil, 0, err
	}
	out := make([]*policyv1.Verdict, len(b.verdicts))
	for i := range b.verdicts {
		out[i] = verdict(&b.verdicts[i])
	}
	return out, generation, nil
}

func (b *batch) take(in []*policyv1.DeviceReading) {
	total := 0
	for _, r := range in {
		total += len(r.GetReading().GetValues())
	}
	if cap(b.values) < total {
		b.values = make([]abi.Value, total)
	}
	if cap(b.readings) < len(in) {
		b.readings, b.verdicts = make([]abi.Reading, len(in)), make([]engine.Verdict, len(in))
	}
	values := b.values[:total]
	b.readings, b.verdicts = b.readings[:len(in)], b.verdicts[:len(in)]
	for i, r := range in {
		reading := r.GetReading()
		n := len(reading.GetValues())
		for k, v := range reading.GetValues() {
			values[k] = abi.Value{Name: v.GetName(), Number: v.GetNumber(), Text: v.GetText(), IsText: v.GetText() != ""}
		}
		b.readings[i] = abi.Reading{
			Device: r.GetDeviceId(), Source: r.GetSource(), Sequence: reading.GetSequence(),
			UnixNano: nanos(reading.GetTime()), Values: values[:n:n],
		}
		values = values[n:]
	}
}

// nanos returns t in nanoseconds since 1970, 0 when it is unset. A time that
// does not fit (before 1677-09-21, after 2262-04-11) is the nearest that does:
// a device's broken clock is no reason to judge none of a batch.
func nanos(t *timestamppb.Timestamp) int64 {
	const (
		second = int64(time.Second)
		margin = math.MaxInt32/second + 1 // an invalid timestamp's nanos are any int32
	)
	switch s := t.GetSeconds(); {
	case s < math.MinInt64/second+margin:
		return math.MinInt64
	case s > math.MaxInt64/second-margin:
		return math.MaxInt64
	default:
		return s*second + int64(t.GetNanos())
	}
}

func verdict(v *engine.Verdict) *policyv1.Verdict {
	if *v == (engine.Verdict{Action: abi.Accept}) {
		return accepted
	}
	return &policyv1.Verdict{Action: action(v.Action), Module: v.Module, Reason: v.Reason, Unevaluated: v.Unevaluated}
}

func action(a abi.Action) policyv1.Action {
	switch a {
	case abi.Accept:
		return policyv1.Action_ACTION_ACCEPT
	case abi.Reject:
		return policyv1.Action_ACTION_REJECT
	case abi.Alert:
		return policyv1.Action_ACTION_ALERT
	case abi.Transform:
		return policyv1.Action_ACTION_TRANSFORM
	}
	return policyv1.Action_ACTION_UNSPECIFIED
}
