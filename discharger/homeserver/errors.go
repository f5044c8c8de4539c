package homeserver

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// What [Homeserver.Verify] fails with, for errors.Is. The error is an [*Error],
// which says more.
var (
	// ErrMalformed: not a bundle, or one that nobody here minted.
	ErrMalformed = errors.New("malformed bundle")
	// ErrUnknownKey: minted with a master key that is not in the ring and was not
	// retired. Another process may have the key already, so it says nothing about
	// the session: a homeserver answers 503, never 401. Anyone can make up such a
	// bundle, so log it rarely.
	ErrUnknownKey = errors.New("minted with an unknown key")
	// ErrRetiredKey: minted with a retired master key. The session is over, softly.
	ErrRetiredKey = errors.New("minted with a retired key")
	// ErrBadSignature: forged or damaged, or the discharge is not bound to this
	// access macaroon.
	ErrBadSignature = errors.New("bad signature")
	// ErrNotDischarged: an access macaroon that is in order, but without its
	// discharge.
	ErrNotDischarged = errors.New("not discharged")
	// ErrExpired: a time-before has passed. Error.Part says whether that of
	// the discharge, which a refresh cures, or of the access macaroon.
	ErrExpired = errors.New("expired")
	// ErrNotMet: some other caveat does not hold for this request.
	ErrNotMet = errors.New("caveat does not hold")
	// ErrUnknownCaveat: a caveat that nobody here knows or that must not be
	// where it is.
	ErrUnknownCaveat = errors.New("unknown caveat")
	// ErrRevoked: revoked before it expired. Error.SoftLogout is the kind of
	// end.
	ErrRevoked = errors.New("revoked")
	// ErrUndecided: the bundle is in order, but what was revoked is not known
	// well enough; see [Freshness]. It says nothing about the session: a
	// homeserver answers 503, never 401.
	ErrUndecided = errors.New("undecided")
)

// Part is one of the two macaroons of a bundle.
type Part string

// The parts of a bundle.
const (
	PartAccess    Part = "access macaroon"
	PartDischarge Part = "discharge"
)

// Error says why a bundle was refused. It matches Kind, and what Err matches.
type Error struct {
	Kind      error     // one of the Err variables
	Part      Part      // what it is about; empty: the bundle
	Condition string    // the caveat's, with ErrNotMet and ErrUnknownCaveat
	At        time.Time // since when, with ErrExpired
	// SoftLogout, with ErrRevoked, is soft_logout in a Matrix homeserver's
	// answer: the client logs in again and keeps its encryption keys. It is
	// true as well if [Config.Revocations] is no [RevocationKinds].
	SoftLogout bool
	Err        error // more about it, such as the key's id with ErrUnknownKey; may be nil
}

// Error says it all in a line.
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

// Undecided reports whether the error says nothing about the session: it is of
// kind [ErrUndecided] or [ErrUnknownKey]. A homeserver answers 503, never 401.
func (e *Error) Undecided() bool { return e.Kind == ErrUndecided || e.Kind == ErrUnknownKey }

// Unwrap gives Kind and Err.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}
