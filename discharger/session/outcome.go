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
