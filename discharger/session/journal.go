package session

import (
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// journalSession returns the entry of one session that becomes a tombstone.
func RevokedSession(user store.UserKey, id caveat.SessionID, r *Record, expires time.Time) revocation.Revocation {
	return revocation.Revocation{
		Kind: revocation.KindSession, Homeserver: user.Homeserver, User: user.User, Session: id, Generation: r.Confirmed.Epoch,
		At: r.End.At, Keep: KeepUntil(expires), Soft: r.End.Soft, Cause: r.End.Cause, Code: r.End.Code,
	}
}

// journalUser returns the entry of a user's revocation.
func RevokedUser(user store.UserKey, v *GenerationRecord, expires time.Time) revocation.Revocation {
	e := revocation.Revocation{
		Kind: revocation.KindUser, Homeserver: user.Homeserver, User: user.User, Except: v.Except, Generation: v.Generation, At: v.At,
		Keep: KeepUntil(expires),
	}
	e.Devices = v.Devices
	setEnd(&e, v)
	return e
}

// setEnd notes how the latest revocation of a record ended sessions.
func setEnd(e *revocation.Revocation, v *GenerationRecord) {
	if v.Generation == 0 {
		return
	}
	end := v.EndAbove(v.Generation - 1)
	e.Soft, e.Cause, e.Code = end.Soft, end.Cause, end.Code
}

// JournalOfHomeserver returns what a new record of a homeserver revokes.
func RevokedHomeserver(homeserver string, record []byte) (revocation.Revocation, error) {
	var v GenerationRecord
	if err := v.UnmarshalBinary(record); err != nil {
		return revocation.Revocation{}, fmt.Errorf("journal revocation of a homeserver: %w", err)
	}
	e := revocation.Revocation{Kind: revocation.KindHomeserver, Homeserver: homeserver, Generation: v.Generation, At: v.At}
	setEnd(&e, &v)
	return e, nil
}

func KeepUntil(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix() + 1
}
