package session

import (
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// Record is the stored record of one session. Times are Unix milliseconds; Created
// and LastUsed are kept to the second.
//
// The record of an ended session (End.At > 0) is a tombstone: besides End it keeps
// only Device and Confirmed.Epoch.
type Record struct {
	Mode    caveat.Mode
	Created int64          // first discharge
	End     revocation.End // End.At is kept to the second; zero: the session lives

	UserGeneration       uint64 // the user's generation when the session was activated
	HomeserverGeneration uint64 // likewise the homeserver's

	Device   string            // as in the condition
	Policy   string            // as in the condition
	Labels   map[string]string // stored by a policy, without those of the condition
	LastUsed int64             // last discharge; up to an hour too early in modes open and held
	First    Party             // that activated the session
	Last     Party             // of the last use

	// Confirmed and Successor are of mode rotate. Epoch 0 is activation, for which
	// no token exists. Every token of the successor's epoch is unused, and the first
	// one that is used becomes Confirmed.
	Confirmed Confirmed
	Successor *Successor // nil: none was issued
}

// Over reports whether the session has ended.
func (r *Record) Over() bool { return r.End.At > 0 }

// known returns the latest time in the record except LastUsed, which is stored as
// the difference from it.
func (r *Record) known() int64 {
	switch {
	case r.Successor != nil:
		return r.Successor.IssuedAt
	case r.Mode == caveat.ModeRotate:
		return r.Confirmed.At
	}
	return r.Created
}

// LastUse returns the time of the last use, in mode rotate to the millisecond.
func (r *Record) LastUse() int64 { return max(r.LastUsed, r.known()) }

// used returns the record after a use by the event's party.
func (r *Record) used(e *Event) *Record {
	next := *r
	next.LastUsed = max(r.LastUsed, e.Now/1000*1000)
	next.Last = e.From.cut()
	return &next
}

// Tombstone returns the tombstone of the record.
func (r *Record) Tombstone(end revocation.End) *Record {
	end.At = max(end.At, 1000) / 1000 * 1000
	return &Record{End: end, Device: r.Device, Confirmed: Confirmed{Epoch: r.Confirmed.Epoch}}
}

// NewestEpoch returns the epoch of the newest token that was issued.
func (r *Record) NewestEpoch() uint64 {
	if r.Successor != nil {
		return r.Confirmed.Epoch + 1
	}
	return r.Confirmed.Epoch
}

// RevokedSession returns the revocation of a session that becomes the tombstone r,
// without an event.
func RevokedSession(user store.UserKey, id caveat.SessionID, r *Record, expires time.Time) revocation.Revocation {
	return revocation.Revocation{
		Kind: revocation.KindSession, Homeserver: user.Homeserver, User: user.User, Session: id, Generation: r.Confirmed.Epoch,
		At: r.End.At, Keep: KeepUntil(expires), Soft: r.End.Soft, Cause: r.End.Cause, Code: r.End.Code,
	}
}

// RevokedUser returns the latest revocation of a user's record, without an event.
func RevokedUser(user store.UserKey, v *GenerationRecord, expires time.Time) revocation.Revocation {
	r := revocation.Revocation{
		Kind: revocation.KindUser, Homeserver: user.Homeserver, User: user.User, Except: v.Except, Generation: v.Generation, At: v.At,
		Devices: v.Devices, Keep: KeepUntil(expires),
	}
	v.setEnd(&r)
	return r
}

// RevokedHomeserver returns the latest revocation of a homeserver's record,
// without an event.
func RevokedHomeserver(homeserver string, v *GenerationRecord) revocation.Revocation {
	r := revocation.Revocation{Kind: revocation.KindHomeserver, Homeserver: homeserver, Generation: v.Generation, At: v.At}
	v.setEnd(&r)
	return r
}

// setEnd sets the end of r to that of the record's latest revocation.
func (v *GenerationRecord) setEnd(r *revocation.Revocation) {
	if v.Generation == 0 {
		return
	}
	end := v.EndAbove(v.Generation - 1)
	r.Soft, r.Cause, r.Code = end.Soft, end.Cause, end.Code
}

// KeepUntil returns the Keep of a revocation whose record expires at a time; the
// zero time is never.
func KeepUntil(expires time.Time) int64 {
	if expires.IsZero() {
		return 0
	}
	return expires.Unix() + 1
}
