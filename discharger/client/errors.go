package client

import (
	"errors"
	"fmt"
	"time"
)

// Errors of the methods of [Client] and [Session], for errors.Is. Each has a type
// with details, for errors.As.
var (
	ErrRefused     = errors.New("refused")             // a decision; see RefusedError
	ErrUnavailable = errors.New("service unavailable") // undecided; see UnavailableError
	ErrBadRequest  = errors.New("bad request")         // not accepted; see BadRequestError
)

// RefusedError is a decided refusal, status 401. With Ended the session is over: no
// later request can succeed, and the user has to log in again. Otherwise the
// refusal concerns this request, and the session is as it was.
type RefusedError struct {
	Reason     string // a Reason constant of wire, or one of a policy; empty if absent
	Ended      bool   // the session is over
	SoftLogout bool   // with Ended: the client keeps its encryption keys when it logs in again
	Message    string // a sentence for people
}

// Error returns the message and the reason.
func (e *RefusedError) Error() string {
	switch {
	case e.Message == "":
		return fmt.Sprintf("discharge refused: %s", e.Reason)
	case e.Reason == "":
		return fmt.Sprintf("discharge refused: %s", e.Message)
	}
	return fmt.Sprintf("discharge refused: %s (%s)", e.Message, e.Reason)
}

// Is reports whether target is ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// UnavailableError decides nothing about the session: the service was not reached,
// could not decide, or something else answered in its place.
type UnavailableError struct {
	RetryAfter time.Duration // least pause before the next attempt; 0: none given
	Err        error         // the cause
}

// Error returns the cause.
func (e *UnavailableError) Error() string { return fmt.Sprintf("%v: %v", ErrUnavailable, e.Err) }

// Is reports whether target is ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns the cause, for instance context.Canceled.
func (e *UnavailableError) Unwrap() error { return e.Err }

// BadRequestError is a request that the service does not accept, for instance with
// a wrong API key. It decides nothing about the session.
type BadRequestError struct {
	Status  int    // HTTP status
	Code    string // a Code constant of wire
	Message string // a sentence for people
}

// Error returns the message and the code.
func (e *BadRequestError) Error() string {
	return fmt.Sprintf("service does not accept the request: %s (%s)", e.Message, e.Code)
}

// Is reports whether target is ErrBadRequest.
func (e *BadRequestError) Is(target error) bool { return target == ErrBadRequest }
