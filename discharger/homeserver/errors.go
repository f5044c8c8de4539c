package homeserver

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Kinds of errors of [Homeserver.Verify] and [Middleware], for errors.Is. The error
// is an [*Error], which has the details.
var (
	// ErrNoToken: the request has no token. Only [Middleware] returns it.
	ErrNoToken = errors.New("request has no token")
	// ErrMalformed: not a bundle, or one of another minter.
	ErrMalformed = errors.New("malformed bundle")
	// ErrUnknownKey: minted with a master key that is neither in the ring nor
	// retired. Another process may have the key already, so the session may live.
	// Such a bundle is easily made up, so limit its log messages.
	ErrUnknownKey = errors.New("minted with an unknown key")
	// ErrRetiredKey: minted with a retired master key. The session has ended, softly.
	ErrRetiredKey = errors.New("minted with a retired key")
	// ErrBadSignature: forged or damaged, or the discharge is not bound to this
	// access macaroon.
	ErrBadSignature = errors.New("bad signature")
	// ErrNotDischarged: a valid access macaroon without its discharge.
	ErrNotDischarged = errors.New("not discharged")
	// ErrExpired: a time-before has passed. Error.Part is the macaroon that has it:
	// a refresh replaces an expired discharge, but not an expired access macaroon.
	ErrExpired = errors.New("expired")
	// ErrNotMet: another caveat does not hold for this request.
	ErrNotMet = errors.New("caveat does not hold")
	// ErrUnknownCaveat: a caveat that is not defined, or not at its place.
	ErrUnknownCaveat = errors.New("unknown caveat")
	// ErrRevoked: revoked before it expired. Error.Soft is the kind of end.
	ErrRevoked = errors.New("revoked")
	// ErrUndecided: revocations are out of date, see [Freshness], or Config.Check
	// failed to decide. The session may live.
	ErrUndecided = errors.New("undecided")
)

// Part is one of the two macaroons of a bundle.
type Part string

// The parts of a bundle.
const (
	PartAccess    Part = "access macaroon"
	PartDischarge Part = "discharge"
)

// Error is why a bundle was refused. It matches Kind, and all that Err matches.
type Error struct {
	Kind      error     // one of the Err variables
	Part      Part      // the macaroon at fault; empty: the bundle
	Condition string    // of the caveat, with ErrNotMet and ErrUnknownCaveat
	At        time.Time // when it expired, with ErrExpired
	Soft      bool      // the kind of end, with ErrRevoked; true if [Config.Revocations] does not record it
	Err       error     // details, such as the key's id with ErrUnknownKey; may be nil
}

// Error returns the error in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Part != "" {
		b.WriteString(string(e.Part) + ": ")
	}
	b.WriteString(e.Kind.Error())
	if e.Condition != "" {
		fmt.Fprintf(&b, " %.80q", e.Condition)
	}
	if !e.At.IsZero() {
		b.WriteString(" at " + e.At.UTC().Format(time.RFC3339))
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Undecided reports whether the error decides nothing about the session: it is of
// kind [ErrUndecided] or [ErrUnknownKey].
func (e *Error) Undecided() bool { return e.Kind == ErrUndecided || e.Kind == ErrUnknownKey }

// StatusCode returns the HTTP status of the answer to the client:
//
//	503  undecided: the client keeps everything and retries
//	403  a caveat does not hold for this request; others may succeed
//	401  every other error: the client refreshes, or logs in again
//
// A client-ip caveat of the discharge is 401, since another discharge may be for
// the client's present address. A wrong 401 costs users their encryption keys; see
// [Error.SoftLogout].
func (e *Error) StatusCode() int {
	switch {
	case e.Undecided():
		return http.StatusServiceUnavailable
	case e.Kind == ErrNotMet && !e.boundElsewhere():
		return http.StatusForbidden
	}
	return http.StatusUnauthorized
}

// boundElsewhere reports whether the discharge is bound to another address.
func (e *Error) boundElsewhere() bool {
	name, _ := rawmacaroon.CutCondition(e.Condition)
	return e.Part == PartDischarge && name == rawmacaroon.CondClientIP
}

// SoftLogout returns the value of soft_logout in a Matrix homeserver's answer. An
// answer with status 401 must have the member, and no other answer may: a client
// that finds it false or missing deletes its encryption keys. It is false only if
// the session was revoked with a hard end.
func (e *Error) SoftLogout() bool { return e.Kind != ErrRevoked || e.Soft }

// Code returns Matrix's errcode for the answer.
func (e *Error) Code() string {
	switch {
	case e.Kind == ErrNoToken:
		return "M_MISSING_TOKEN"
	case e.StatusCode() == http.StatusServiceUnavailable:
		return "M_UNKNOWN"
	case e.StatusCode() == http.StatusForbidden:
		return "M_FORBIDDEN"
	}
	return "M_UNKNOWN_TOKEN"
}

// Unwrap returns Kind and Err.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}
