package client

import (
	"errors"
	"fmt"
	"time"
)

// What the methods of [Client] and [Session] fail with, for errors.Is. Each
// has a type that says more, for errors.As.
var (
	// ErrRefused: it was decided that there is no discharge. See RefusedError.
	ErrRefused = errors.New("refused")
	// ErrUnavailable: nothing was decided. The session is as good as it was.
	// See UnavailableError.
	ErrUnavailable = errors.New("service unavailable")
	// ErrBadRequest: the service makes nothing of the request. See
	// BadRequestError.
	ErrBadRequest = errors.New("bad request")
)

// RefusedError is a decided refusal, status 401.
type RefusedError struct {
	Reason     string // one of the Reason constants, or what a policy says; empty if none was given
	Ended      bool   // the session is over; otherwise the refusal is about this request
	SoftLogout bool   // with Ended: after logging in again, go on with the encryption keys there are
	Message    string // a sentence for people
}

// Error gives the message and the reason.
func (e *RefusedError) Error() string {
	switch {
	case e.Message == "":
		return fmt.Sprintf("discharge refused: %s", e.Reason)
	case e.Reason == "":
		return fmt.Sprintf("discharge refused: %s", e.Message)
	}
	return fmt.Sprintf("discharge refused: %s (%s)", e.Message, e.Reason)
}

// Is makes it an ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Final reports whether the session is over: no later request can succeed, and
// the user has to log in again. After any other refusal the session lives on.
func (e *RefusedError) Final() bool { return e.Ended }

// UnavailableError means that nothing is known about the session: the service
// could not be reached, could not decide, or what answered was not it.
type UnavailableError struct {
	RetryAfter time.Duration // how long the service asks to be left alone; 0: it does not say
	Err        error         // what happened
}

// Error says what happened.
func (e *UnavailableError) Error() string { return fmt.Sprintf("%v: %v", ErrUnavailable, e.Err) }

// Is makes it an ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap gives what happened, for instance context.Canceled.
func (e *UnavailableError) Unwrap() error { return e.Err }

// BadRequestError means that the service will not look at a request like this
// one. It is no statement about the session.
type BadRequestError struct {
	Status  int    // HTTP status
	Code    string // one of the Code constants
	Message string // a sentence for people
}

// Error gives the message and the code.
func (e *BadRequestError) Error() string {
	return fmt.Sprintf("service does not accept the request: %s (%s)", e.Message, e.Code)
}

// Is makes it an ErrBadRequest.
func (e *BadRequestError) Is(target error) bool { return target == ErrBadRequest }
