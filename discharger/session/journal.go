package session

import (
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

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

// RevokedHomeserver returns the latest revocation of a homeserver's stored record,
// without an event.
func RevokedHomeserver(homeserver string, record []byte) (revocation.Revocation, error) {
	var v GenerationRecord
	if err := v.UnmarshalBinary(record); err != nil {
		return revocation.Revocation{}, fmt.Errorf("read revocation of a homeserver: %w", err)
	}
	r := revocation.Revocation{Kind: revocation.KindHomeserver, Homeserver: homeserver, Generation: v.Generation, At: v.At}
	v.setEnd(&r)
	return r, nil
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
