package session

import (
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/policy"
)

// Outcome is the result of Step: the answer, and the records to store before it.
type Outcome struct {
	// Reason is the refusal; empty: a discharge may be issued, or the logout took
	// effect, now or earlier.
	Reason Reason

	// Ended is set with Reason if the session is over. Without it the refusal is
	// about the request, and the session is unchanged. End is the end of the session,
	// or with NextUser of all of the user's.
	Ended bool
	End   revocation.End

	// NotYet is set instead of Reason if the request is undecided: the caveat or a
	// mark is from the future, so one of two clocks is wrong.
	NotYet     bool
	FutureMark int64 // with NotYet: the mark, Unix ms; 0: the caveat is from the future

	// NeedsTime and NeedsDevice are set instead of all else if State.Now or
	// State.OnDevice is required and missing: few requests need them.
	NeedsTime, NeedsDevice bool

	Action policy.Action
	Replay policy.Replay

	// Session is the record for the policy: the stored one, or at activation the
	// new one; nil: none.
	Session *Record

	// Next, NextUser and NextDevice are the records to store; nil: unchanged.
	Next       *Record
	NextUser   *GenerationRecord
	NextDevice *DeviceRecord

	Replaces []caveat.SessionID // sessions that an activation ends

	Touch bool   // Next only updates the last use, and may be dropped
	Issue *Token // mode rotate: the refresh token to issue, with the discharge's epoch
	Ends  int64  // when the session ends by its limits, Unix ms; 0: never

	LostWrite bool // the token is newer than the record: the store lost a write
}

// Revokes reports whether the outcome ends the session.
func (o *Outcome) Revokes() bool { return o.Next != nil && o.Next.Over() || o.NextUser != nil }

// refuse returns the outcome that refuses a request and leaves the session unchanged.
func refuse(r Reason) Outcome { return Outcome{Reason: r} }

// over returns the outcome for a session that has ended.
func over(e revocation.End) Outcome { return Outcome{Reason: ReasonOf(e), Ended: true, End: e} }

// ended returns the outcome that ends its session.
func (o Outcome) ended(end revocation.End) Outcome {
	o.Reason, o.Ended, o.End = ReasonOf(end), true, end
	o.Next, o.NextDevice, o.Replaces, o.Issue = o.Session.Tombstone(end), nil, nil, nil
	return o
}

// Reason is the reason of a refusal. Its text is part of the wire contract.
type Reason string

// The reasons for a refusal by the core.
const (
	ReasonSessionEnded       Reason = "session_ended"       // logged out, revoked or forgotten
	ReasonSessionExpired     Reason = "session_expired"     // too old, or idle for too long
	ReasonSessionLost        Reason = "session_lost"        // the store lost its data since
	ReasonReplaced           Reason = "replaced"            // a newer login on the same device
	ReasonTokenRequired      Reason = "token_required"      // mode rotate, and no refresh token was presented
	ReasonTokenInvalid       Reason = "token_invalid"       // the refresh token is of another service or session, or restricted
	ReasonTokenSuperseded    Reason = "token_superseded"    // a newer refresh token is in use; fork and stale
	ReasonTokenReused        Reason = "token_reused"        // two parties hold one token: the session has ended
	ReasonHomeserverRequired Reason = "homeserver_required" // only the session's homeserver may do this
	ReasonPolicy             Reason = "policy"              // unless the policy gives another one
)

// ReasonOf returns the reason of refusals after an end.
func ReasonOf(e revocation.End) Reason {
	switch e.Cause {
	case revocation.CauseReuse:
		return ReasonTokenReused
	case revocation.CauseExpired:
		return ReasonSessionExpired
	case revocation.CauseReplaced:
		return ReasonReplaced
	case revocation.CauseLost:
		return ReasonSessionLost
	case revocation.CausePolicy:
		if e.Code != "" {
			return Reason(e.Code)
		}
		return ReasonPolicy
	}
	return ReasonSessionEnded
}
