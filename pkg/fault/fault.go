// Package fault names the kinds of errors that services give each other, and
// says which gRPC status each becomes.
//
// A domain package wraps a kind (`fmt.Errorf("%w: rule %q", fault.ErrNotFound,
// id)`) or calls Invalid; it never touches a gRPC code. One interceptor calls
// Status on the way out.
package fault

import (
	"errors"
	"fmt"
)

// The kinds. Match them with errors.Is, through any wrapping.
var (
	// ErrInvalid is an argument out of its range. Prefer Invalid, which names
	// the field.
	ErrInvalid = errors.New("invalid argument")
	// ErrNotFound is a thing that is not there.
	ErrNotFound = errors.New("not found")
	// ErrExists is a thing that is there already.
	ErrExists = errors.New("already exists")
	// ErrConflict is a write that lost a race; reading again and retrying may
	// succeed.
	ErrConflict = errors.New("conflict")
	// ErrPrecondition is a call that this state of the system does not allow.
	ErrPrecondition = errors.New("failed precondition")
	// ErrExhausted is a limit that is reached.
	ErrExhausted = errors.New("resource exhausted")
	// ErrDenied is a caller without the right.
	ErrDenied = errors.New("permission denied")
	// ErrUnavailable is a peer that is away; retrying later may succeed.
	ErrUnavailable = errors.New("unavailable")
)

// FieldError is one field out of its range. It is an ErrInvalid.
type FieldError struct {
	// Field is the path of the field, for example `readings[3].values`.
	Field string
	// Description states the limit and the value.
	Description string
}

// Error returns the field and its description.
func (e *FieldError) Error() string { return e.Field + ": " + e.Description }

// Is reports that a FieldError is an ErrInvalid.
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

// Invalid returns a FieldError. The description is to state the limit and the
// value: `Invalid("page_size", "must be 0 to 1000, is %d", n)`.
func Invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Description: fmt.Sprintf(format, args...)}
}
