package discharger

import (
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
)

// journalSession returns the entry of one session that becomes a tombstone.
func journalSession(user UserKey, id caveat.SessionID, r *session.Record, expires time.Time) revocation.Revocation {
	return revocation.Revocation{
		Kind: revocation.KindSession, Homeserver: user.Homeserver, User: user.User, Session: id, Generation: r.Confirmed.Epoch,
		At: r.End.At, Keep: unixOrNever(expires), Soft: r.End.Soft, Cause: r.End.Cause, Code: r.End.Code,
	}
}

// journalUser returns the entry of a user's revocation.
func journalUser(user UserKey, v *session.GenerationRecord, expires time.Time) revocation.Revocation {
	e := revocation.Revocation{
		Kind: revocation.KindUser, Homeserver: user.Homeserver, User: user.User, Except: v.Except, Generation: v.Generation, At: v.At,
		Keep: unixOrNever(expires),
	}
	e.Devices = v.Devices
	setEnd(&e, v)
	return e
}

// setEnd notes how the latest revocation of a record ended sessions.
func setEnd(e *revocation.Revocation, v *session.GenerationRecord) {
	if v.Generation == 0 {
		return
	}
	end := v.EndAbove(v.Generation - 1)
	e.Soft, e.Cause, e.Code = end.Soft, end.Cause, end.Code
}

// JournalOfHomeserver returns what a new record of a homeserver revokes.
func JournalOfHomeserver(homeserver string, record []byte) (revocation.Revocation, error) {
	var v session.GenerationRecord
	if err := v.UnmarshalBinary(record); err != nil {
		return revocation.Revocation{}, fmt.Errorf("journal revocation of a homeserver: %w", err)
	}
	e := revocation.Revocation{Kind: revocation.KindHomeserver, Homeserver: homeserver, Generation: v.Generation, At: v.At}
	setEnd(&e, &v)
	return e, nil
}

func unixOrNever(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix() + 1
}
