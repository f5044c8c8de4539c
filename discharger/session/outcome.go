package session

import (
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/policy"
)

// Outcome is the result of Step: what to answer, and what to store first.
type Outcome struct {
	// Reason is empty if the request is in order: a discharge may be issued,
	// or the logout took effect (perhaps earlier).
	Reason Reason

	// Ended is set with Reason if the session is over. Without it the refusal is
	// about the request, and the session is as it was. End is how the session
	// ended, or with NextUser how all of the user's did.
	Ended bool
	End   revocation.End

	// NotYet is set instead of Reason when nothing can be decided: the caveat
	// or a mark comes from the future, so one of two clocks is wrong.
	NotYet     bool
	FutureMark int64 // with NotYet: the mark, Unix ms; 0: it is the caveat

	// NeedsTime and NeedsDevice are set instead of all else when State.Now or
	// State.OnDevice is missing: few requests need them.
	NeedsTime, NeedsDevice bool

	Action policy.Action
	Replay policy.Replay

	// Session is the record as it stood, or would stand at activation; what
	// a policy sees. Nil if there is nothing to see.
	Session *Record

	// Next is the record to store; nil: leave what is there. NextUser and
	// NextDevice likewise.
	Next       *Record
	NextUser   *GenerationRecord
	NextDevice *DeviceRecord

	// Replaces holds the sessions that an activation ends.
	Replaces []caveat.SessionID

	// Touch is set when Next only notes that the session was used, which
	// the answer does not depend on.
	Touch bool

	// Issue is the refresh token to hand out, in mode rotate. Its epoch is
	// also the discharge's.
	Issue *Token

	// Ends is when the session ends whatever happens; 0: no such time.
	Ends int64

	// LostWrite is set when a token from the future shows that the store
	// has lost what this service once wrote.
	LostWrite bool
}

// Revokes reports whether the outcome ends the session.
func (o *Outcome) Revokes() bool { return o.Next != nil && o.Next.Over() || o.NextUser != nil }

// refuse is the outcome for a request that is refused while the session is as
// it was.
func refuse(r Reason) Outcome { return Outcome{Reason: r} }

// over is the outcome for a session that has ended.
func over(e revocation.End) Outcome { return Outcome{Reason: ReasonOf(e), Ended: true, End: e} }

// ended returns the outcome that ends its session.
func (o Outcome) ended(end revocation.End) Outcome {
	o.Reason, o.Ended, o.End = ReasonOf(end), true, end
	o.Next, o.NextDevice, o.Replaces, o.Issue = o.Session.Tombstone(end), nil, nil, nil
	return o
}

// Reason says why something was refused. Its text is part of the wire contract.
type Reason string

// The reasons for a refusal by the core.
const (
	ReasonSessionEnded       Reason = "session_ended"       // logged out or revoked; or there is no record of it
	ReasonSessionExpired     Reason = "session_expired"     // too old, or idle for too long
	ReasonSessionLost        Reason = "session_lost"        // the store lost its data since
	ReasonReplaced           Reason = "replaced"            // a newer login on the same device
	ReasonTokenRequired      Reason = "token_required"      // mode rotate, and no refresh token was presented
	ReasonTokenInvalid       Reason = "token_invalid"       // the refresh token is not ours, or may not be used here and now
	ReasonTokenSuperseded    Reason = "token_superseded"    // a newer refresh token is in use already; fork and stale
	ReasonTokenReused        Reason = "token_reused"        // two parties hold one token: the session was ended
	ReasonHomeserverRequired Reason = "homeserver_required" // only the session's homeserver may do this
	ReasonPolicy             Reason = "policy"              // unless the policy gives another one
)

// reasonOf returns the reason of refusals because of an end.
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
