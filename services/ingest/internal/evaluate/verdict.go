package evaluate

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

// maxTransformed bounds what policy may make of a reading, encoded: a frame.
const maxTransformed = 64 << 10

// answer takes the verdicts of the oldest open batch.
func (e *Evaluator) answer(resp *policyv1.EvaluateStreamResponse) error {
	if len(e.open) == 0 || resp.GetBatchId() != e.open[0].id {
		return fmt.Errorf("policy answered batch %d, which is not the oldest open one", resp.GetBatchId())
	}
	b := e.open[0]
	if got, want := len(resp.GetVerdicts()), len(b.items); got != want {
		return fmt.Errorf("policy gave %d verdicts on %d readings", got, want)
	}
	e.open[0] = nil
	e.open = e.open[1:]
	unevaluated := 0
	for i, v := range resp.GetVerdicts() {
		it := &b.items[i]
		it.Module, it.Reason = v.GetModule(), v.GetReason()
		switch {
		case v.GetAction() == policyv1.Action_ACTION_REJECT:
			it.Outcome = device.Reject
		case v.GetUnevaluated():
			it.Evaluation = telemetryv1.Evaluation_EVALUATION_UNEVALUATED
			unevaluated++
		case v.GetAction() == policyv1.Action_ACTION_ALERT:
			it.Evaluation = telemetryv1.Evaluation_EVALUATION_ALERTED
		case v.GetAction() == policyv1.Action_ACTION_TRANSFORM && v.GetTransformed() != nil:
			transform(it, v.GetTransformed())
		default:
			it.Evaluation = telemetryv1.Evaluation_EVALUATION_ACCEPTED
		}
	}
	if unevaluated > 0 {
		e.Unevaluated(unevaluated)
	}
	e.Out(b.items)
	return nil
}

// transform puts what policy made of a reading in its place. Its sequence is
// not policy's to change, and a message must hold it.
func transform(it *device.Item, to *telemetryv1.Reading) {
	to.Sequence = it.Reading.GetSequence()
	if to.Time == nil {
		to.Time = it.Reading.GetTime()
	}
	if it.Size = proto.Size(to); it.Size > maxTransformed {
		it.Outcome, it.Reason = device.Drop, "transform_too_large"
		return
	}
	it.Reading, it.Evaluation = to, telemetryv1.Evaluation_EVALUATION_TRANSFORMED
}

// refuse handles the oldest batch, which policy will not judge. A reading that
// stands alone is dropped; one among others is found by asking about each, so
// that it takes no other with it.
func (e *Evaluator) refuse() {
	b := e.open[0]
	if len(b.items) == 1 {
		e.open = e.open[1:]
		e.drop(b, "policy_refused")
		return
	}
	alone := make([]*batch, len(b.items))
	for i := range alone {
		e.last++
		alone[i] = &batch{id: e.last, items: b.items[i : i+1 : i+1]}
	}
	e.open = append(alone, e.open[1:]...)
}

// without handles a batch as the mode says.
func (e *Evaluator) without(b *batch) {
	if e.Mode == Drop {
		e.drop(b, "policy_away")
		return
	}
	for i := range b.items {
		b.items[i].Evaluation = telemetryv1.Evaluation_EVALUATION_UNEVALUATED
	}
	e.Unevaluated(len(b.items))
	e.Out(b.items)
}

func (e *Evaluator) drop(b *batch, reason string) {
	for i := range b.items {
		b.items[i].Outcome, b.items[i].Reason = device.Drop, reason
	}
	e.Out(b.items)
}
