package discharger

import (
	"errors"
	"fmt"
	"github.com/discharger/discharger/discharger/session"
	"time"
)

// ErrBadRequest is matched by errors that mean a request can never be served:
// it is malformed, or not meant for this service.
var ErrBadRequest = errors.New("bad request")

// ErrUnavailable is matched by errors that mean nothing was decided. The
// session is as it was, and the same request may succeed later.
var ErrUnavailable = errors.New("unavailable")

// ErrUnknownKey is matched by errors that match [ErrUnavailable] because a key is
// not in the ring of this process: one that a caveat is sealed to or with, or that
// a refresh token is signed with. Another process may have the key already.
var ErrUnknownKey = errors.New("unknown key")

// Refusal is the error for a request that was understood and decided against.
// If the session has ended, that is final. Otherwise the refusal is about the
// request, and the session is as it was.
type Refusal struct {
	Reason     session.Reason
	Ended      bool   // the session is over
	SoftLogout bool   // with Ended: logging in again may keep the device's keys
	Message    string // for people; empty unless a policy gave one
}

// Error says what was refused and why.
func (r *Refusal) Error() string {
	if r.Message != "" {
		return fmt.Sprintf("refused (%s): %s", r.Reason, r.Message)
	}
	return fmt.Sprintf("refused (%s)", r.Reason)
}

func refusal(r *session.Ruling) error {
	return &Refusal{Reason: r.Reason, Ended: r.Ended, SoftLogout: r.Ended && r.End.Soft, Message: r.Message}
}

// UnavailableError carries the cause of an undecided request, which is for
// the log and not for the client.
type UnavailableError struct {
	RetryAfter time.Duration // 0: the caller's usual
	err        error
}

// Error says what went wrong.
func (e *UnavailableError) Error() string { return "unavailable: " + e.err.Error() }

// Unwrap returns [ErrUnavailable] and the cause.
func (e *UnavailableError) Unwrap() []error { return []error{ErrUnavailable, e.err} }

// unavailable marks an error as undecided, once.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return &UnavailableError{err: err}
}

// unknownKeyError is an undecided request, for want of a key of a kind.
type unknownKeyError struct {
	kind KeyKind
	err  error
}

func (e *unknownKeyError) Error() string   { return e.err.Error() }
func (e *unknownKeyError) Unwrap() []error { return []error{ErrUnknownKey, e.err} }

func badRequest(err error) error { return fmt.Errorf("%w: %w", ErrBadRequest, err) }
