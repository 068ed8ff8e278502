package fault

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the ErrorInfo domain of every error of the node.
const Domain = "xinghuo"

// retryAfter is what UNAVAILABLE suggests: about as long as a service takes to
// come back.
const retryAfter = time.Second

var kinds = []struct {
	err    error
	code   codes.Code
	reason string
}{
	{ErrInvalid, codes.InvalidArgument, "INVALID_ARGUMENT"},
	{ErrNotFound, codes.NotFound, "NOT_FOUND"},
	{ErrExists, codes.AlreadyExists, "ALREADY_EXISTS"},
	{ErrConflict, codes.Aborted, "CONFLICT"},
	{ErrPrecondition, codes.FailedPrecondition, "FAILED_PRECONDITION"},
	{ErrExhausted, codes.ResourceExhausted, "RESOURCE_EXHAUSTED"},
	{ErrDenied, codes.PermissionDenied, "PERMISSION_DENIED"},
	{ErrUnavailable, codes.Unavailable, "UNAVAILABLE"},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
	{context.Canceled, codes.Canceled, "CANCELED"},
}

// Status turns an error into the status that leaves the service: its kind's
// code, the error's text, and ErrorInfo, BadRequest and RetryInfo where they
// apply. A status of our own or of a peer passes as it is. The second result is
// false for an error of no kind, whose text stays inside: the status says
// INTERNAL and the caller is to log the cause.
func Status(err error) (*status.Status, bool) {
	if err == nil {
		return status.New(codes.OK, ""), true
	}
	for _, k := range kinds {
		if !errors.Is(err, k.err) {
			continue
		}
		details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: Domain, Reason: k.reason}}
		if v := violations(err); len(v) > 0 {
			details = append(details, &errdetails.BadRequest{FieldViolations: v})
		}
		if k.code == codes.Unavailable {
			details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
		}
		st, derr := status.New(k.code, err.Error()).WithDetails(details...)
		if derr != nil { // only for a detail that does not marshal; the code is what matters
			return status.New(k.code, err.Error()), true
		}
		return st, true
	}
	if st, ok := status.FromError(err); ok {
		return st, true
	}
	return status.New(codes.Internal, "internal error; see the service's log"), false
}

// violations collects every FieldError in the tree of err.
func violations(err error) []*errdetails.BadRequest_FieldViolation {
	switch e := err.(type) { //nolint:errorlint // walks the tree by hand to find all of them, not the first
	case *FieldError:
		return []*errdetails.BadRequest_FieldViolation{{Field: e.Field, Description: e.Description}}
	case interface{ Unwrap() error }:
		return violations(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*errdetails.BadRequest_FieldViolation
		for _, sub := range e.Unwrap() {
			all = append(all, violations(sub)...)
		}
		return all
	}
	return nil
}
