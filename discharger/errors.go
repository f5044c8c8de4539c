package discharger

import (
	"errors"
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/session"
)

// ErrBadRequest is matched by the error of a request that can never be served: it is
// malformed, or not meant for this service.
var ErrBadRequest = errors.New("bad request")

// ErrUnavailable is matched by the error of an undecided request. The same request
// may succeed later.
var ErrUnavailable = errors.New("unavailable")

// ErrUnknownKey is matched, with [ErrUnavailable], by the error of a request whose
// caveat or refresh token was made with a key that this process does not have.
// Another process may have it already.
var ErrUnknownKey = errors.New("unknown key")

// Refusal is the error of a refused request. With Ended the refusal is final.
// Otherwise it is about the request, and the session is unchanged.
type Refusal struct {
	Reason     session.Reason
	Ended      bool   // the session is over
	SoftLogout bool   // with Ended: a soft end, after which the client keeps its keys
	Message    string // a policy's sentence for people; empty: none
}

// Error returns the reason, and the message if there is one.
func (r *Refusal) Error() string {
	if r.Message != "" {
		return fmt.Sprintf("refused (%s): %s", r.Reason, r.Message)
	}
	return fmt.Sprintf("refused (%s)", r.Reason)
}

func refusal(o *session.Outcome, message string) error {
	return &Refusal{Reason: o.Reason, Ended: o.Ended, SoftLogout: o.Ended && o.End.Soft, Message: message}
}

// UnavailableError is the error of an undecided request. Its cause is for the log
// and not for the client.
type UnavailableError struct {
	RetryAfter time.Duration // 0: the caller's default
	err        error
}

// Error returns the cause.
func (e *UnavailableError) Error() string { return "unavailable: " + e.err.Error() }

// Unwrap returns [ErrUnavailable] and the cause.
func (e *UnavailableError) Unwrap() []error { return []error{ErrUnavailable, e.err} }

// unavailable returns an error that matches ErrUnavailable.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return &UnavailableError{err: err}
}

// unknownKeyError is the error of a request with an unknown key.
type unknownKeyError struct {
	kind KeyKind
	err  error
}

func (e *unknownKeyError) Error() string   { return e.err.Error() }
func (e *unknownKeyError) Unwrap() []error { return []error{ErrUnknownKey, e.err} }

func badRequest(err error) error { return fmt.Errorf("%w: %w", ErrBadRequest, err) }
