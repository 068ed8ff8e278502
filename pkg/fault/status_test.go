package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

func TestStatus(t *testing.T) {
	tests := []struct {
		name  string
		err   error
		want  codes.Code
		known bool
	}{
		{"nil", nil, codes.OK, true},
		{"wrapped kind", fmt.Errorf("get: %w", fmt.Errorf("%w: rule 7", fault.ErrNotFound)), codes.NotFound, true},
		{"field", fmt.Errorf("put: %w", fault.Invalid("page_size", "must be 0 to 1000, is %d", 2000)), codes.InvalidArgument, true},
		{"joined fields", errors.Join(fault.Invalid("a", "x"), fault.Invalid("b", "y")), codes.InvalidArgument, true},
		{"conflict", fault.ErrConflict, codes.Aborted, true},
		{"deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), codes.DeadlineExceeded, true},
		{"peer's status", status.Error(codes.DataLoss, "gone"), codes.DataLoss, true},
		{"unknown", errors.New("password is hunter2"), codes.Internal, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, known := fault.Status(tt.err)
			if got.Code() != tt.want || known != tt.known {
				t.Errorf("Status(%v) = %v, %v, want %v, %v", tt.err, got.Code(), known, tt.want, tt.known)
			}
		})
	}
}

func TestStatusNamesEveryField(t *testing.T) {
	st, _ := fault.Status(fmt.Errorf("put: %w", errors.Join(fault.Invalid("a", "x"), fault.Invalid("b", "y"))))
	var fields []string
	for _, d := range st.Details() {
		if br, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range br.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	if fmt.Sprint(fields) != "[a b]" {
		t.Errorf("fields = %v, want [a b]", fields)
	}
}

func TestStatusHidesUnknownText(t *testing.T) {
	st, _ := fault.Status(errors.New("password is hunter2"))
	if got := st.Message(); got != "internal error; see the service's log" {
		t.Errorf("message = %q, want the cause hidden", got)
	}
}

func TestStatusTellsWhenToRetry(t *testing.T) {
	st, _ := fault.Status(fault.ErrUnavailable)
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok && r.GetRetryDelay().AsDuration() > 0 {
			return
		}
	}
	t.Errorf("details = %v, want a RetryInfo", st.Details())
}
