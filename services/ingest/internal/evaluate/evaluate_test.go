package evaluate_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/evaluate"
)

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, evaluate.Hold)
		defer r.stop()
		r.send(1, 130)
		if got := fmt.Sprint(r.look().batches); got != "[64 64]" {
			t.Errorf("batches = %s, want two full ones at once", got)
		}
		r.pass(5 * time.Millisecond)
		if got := fmt.Sprint(r.look().batches); got != "[64 64 2]" {
			t.Errorf("batches = %s, want the rest after the delay", got)
		}
		r.want(130, accepted)
	})
}

func TestOrderIsKeptWhenStreamsBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, evaluate.Hold)
		defer r.stop()
		answers := 0
		r.set(false, func(req *policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) {
			if answers++; answers%3 == 0 { // with batches open behind it
				return nil, errBroken
			}
			return accept(req)
		})
		for s := 1; s <= 640; s += 64 {
			r.send(s, 64)
		}
		r.pass(time.Second)
		r.want(640, accepted)
		if n := len(r.look().streams); n < 3 {
			t.Errorf("%d streams, want several: the test broke none", n)
		}
	})
}

func TestAwayByMode(t *testing.T) {
	tests := []struct {
		mode        evaluate.Mode
		how         func(device.Item) bool
		reason      string
		unevaluated int
	}{
		{evaluate.Hold, accepted, "held", 0},
		{evaluate.Pass, unevaluated, "pass", 20},
		{evaluate.Drop, dropped, "drop", 0},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, tt.mode)
			defer r.stop()
			r.pass(time.Minute)
			r.set(true, silent)
			r.send(1, 10)
			r.pass(time.Second) // asked, and then the stream breaks
			r.breakStream(errBroken)
			r.pass(1900 * time.Millisecond)
			r.want(0, nil) // a restart costs no verdict
			r.pass(3 * time.Second)
			r.send(11, 10)
			r.pass(time.Second)
			if tt.mode == evaluate.Hold {
				r.want(0, nil)
			} else {
				r.want(20, tt.how)
			}
			if away := r.look().away; !strings.Contains(away, "away") {
				t.Errorf("%s: away = %q, want it told", tt.mode, away)
			}
			r.set(false, accept)
			r.pass(time.Second)
			r.want(20, tt.how)
			if got := r.look(); got.away != "" || got.unevaluated != tt.unevaluated {
				t.Errorf("%s: away = %q, %d unevaluated; want it back, %d", tt.mode, got.away, got.unevaluated, tt.unevaluated)
			}
		})
	}
}

// TestAPolicyThatEndsEachStream takes every stream and answers none: the mode
// takes effect as if it were away, and it is not asked in a tight loop.
func TestAPolicyThatEndsEachStream(t *testing.T) {
	for _, policy := range map[string]func(*policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error){
		"error": func(*policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) { return nil, errBroken },
		"another batch": func(req *policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) {
			return &policyv1.EvaluateStreamResponse{BatchId: req.GetBatchId() + 1}, nil
		},
		"fewer verdicts": func(req *policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) {
			resp, err := accept(req)
			resp.Verdicts = resp.Verdicts[1:]
			return resp, err
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, evaluate.Pass)
			defer r.stop()
			r.set(false, policy)
			r.send(1, 10)
			r.pass(10 * time.Second)
			r.want(10, unevaluated)
			if n := len(r.look().streams); n > 250 {
				t.Errorf("%d streams in 10 s, want a pause between them", n)
			}
			r.set(false, accept)
			r.send(11, 10)
			r.pass(time.Second)
			if out := r.look().out; len(out) != 20 || !accepted(out[19]) {
				t.Errorf("%d readings came out, want 20, the last ones accepted", len(out))
			}
		})
	}
}

func TestAPolicyThatSaysNothing(t *testing.T) {
	for mode, how := range map[evaluate.Mode]func(device.Item) bool{evaluate.Hold: accepted, evaluate.Pass: unevaluated} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, mode)
			defer r.stop()
			r.set(false, silent)
			r.send(1, 10)
			r.pass(4 * time.Second)
			if n := len(r.look().streams); n != 1 {
				t.Errorf("%d streams after 4 s, want 1", n)
			}
			r.pass(11 * time.Second) // two streams have timed out
			r.set(false, accept)
			r.pass(6 * time.Second)
			r.want(10, how)
		})
	}
}

func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, evaluate.Hold)
		defer r.stop()
		r.set(false, func(req *policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) {
			return &policyv1.EvaluateStreamResponse{BatchId: req.GetBatchId(), Verdicts: []*policyv1.Verdict{
				{Action: policyv1.Action_ACTION_ACCEPT},
				{Action: policyv1.Action_ACTION_REJECT, Module: "threshold", Reason: "too hot"},
				{Action: policyv1.Action_ACTION_ALERT, Reason: "warm"},
				{Action: policyv1.Action_ACTION_TRANSFORM, Transformed: &telemetryv1.Reading{Sequence: 99, Values: []*telemetryv1.Value{{Name: "a", Number: 1}}}},
				{Action: policyv1.Action_ACTION_TRANSFORM, Transformed: &telemetryv1.Reading{Values: []*telemetryv1.Value{{Name: "a", Text: strings.Repeat("x", 64<<10)}}}},
				{Action: policyv1.Action_ACTION_ACCEPT, Unevaluated: true},
			}}, nil
		})
		r.send(1, 6)
		r.pass(time.Second)
		wants := []device.Item{
			{Evaluation: telemetryv1.Evaluation_EVALUATION_ACCEPTED},
			{Outcome: device.Reject, Module: "threshold", Reason: "too hot"},
			{Evaluation: telemetryv1.Evaluation_EVALUATION_ALERTED, Reason: "warm"},
			{Evaluation: telemetryv1.Evaluation_EVALUATION_TRANSFORMED},
			{Outcome: device.Drop, Reason: "transform_too_large"},
			{Evaluation: telemetryv1.Evaluation_EVALUATION_UNEVALUATED},
		}
		r.want(len(wants), func(it device.Item) bool {
			w := wants[it.Reading.GetSequence()-1]
			return it.Outcome == w.Outcome && it.Evaluation == w.Evaluation && it.Module == w.Module && it.Reason == w.Reason
		})
		if got := r.look().out[3]; got.Reading.GetValues()[0].GetNumber() != 1 || got.Size >= 20 {
			t.Errorf("transformed = %v of %d bytes, want policy's values and their size", got.Reading, got.Size)
		}
	})
}

func TestARefusedReadingTakesNoOtherWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, evaluate.Hold)
		defer r.stop()
		r.set(false, func(req *policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) {
			for _, reading := range req.GetReadings() {
				if reading.GetReading().GetSequence()%50 == 0 {
					return nil, errRefused
				}
			}
			return accept(req)
		})
		r.send(1, 192)
		r.pass(time.Second)
		r.want(192, func(it device.Item) bool {
			if it.Reading.GetSequence()%50 == 0 {
				return it.Outcome == device.Drop && it.Reason == "policy_refused"
			}
			return accepted(it)
		})
	})
}

func TestStopAbandonsWhatHasNoVerdict(t *testing.T) {
	for _, down := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, evaluate.Hold)
			r.set(down, silent)
			if down {
				r.breakStream(errBroken)
			}
			r.send(1, 70)
			r.pass(time.Second)
			r.stop()
			left, got := len(r.in), r.look()
			if len(got.out) != 0 || got.abandoned+left != 70 {
				t.Errorf("down %v: %d came out, %d were abandoned, %d were not taken; want 70 in all, none out", down, len(got.out), got.abandoned, left)
			}
		})
	}
}
