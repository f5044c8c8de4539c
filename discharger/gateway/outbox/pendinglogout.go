package outbox

import (
	"slices"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// PendingLogout is a session whose device is to be logged out at the homeserver.
// Entries of earlier versions have the first two members only.
type PendingLogout struct {
	Box    []byte `json:"box"` // the homeserver's token, sealed
	Tries  int    `json:"tries"`
	User   string `json:"user,omitempty"`
	Device string `json:"device,omitempty"`
	Named  bool   `json:"named,omitempty"`  // User and Device are known
	Hard   bool   `json:"hard,omitempty"`   // ended hard at the service
	Reap   bool   `json:"reap,omitempty"`   // ended softly, ForgetAfter ago
	Left   bool   `json:"left,omitempty"`   // logged out by its client
	New    bool   `json:"new,omitempty"`    // its login failed, and only the login made the device
	Unused bool   `json:"unused,omitempty"` // the homeserver did not see the device in use since; requested once, since a request is a use
}

// AddLogout replaces a session in the file by a pending logout. The members of the
// session, if it is in the file, precede those of d.
func (v *Store) AddLogout(id caveat.SessionID, d PendingLogout) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return addLogout(tx, id, d) })
}

func addLogout(tx *bbolt.Tx, id caveat.SessionID, d PendingLogout) error {
	s, ok, err := getSession(tx, id)
	if err != nil {
		return err
	}
	if ok {
		d.Box, d.User, d.Device, d.Named = s.Box, s.User, s.Device, true
	}
	if d.Box == nil {
		return nil
	}
	if err := remove(tx, id); err != nil {
		return err
	}
	return putJSON(tx.Bucket(bucketLogouts), id[:], d)
}

// addLogouts does the same for many sessions in the file.
func (v *Store) addLogouts(ids []caveat.SessionID, reap bool) error {
	for some := range slices.Chunk(ids, 1000) {
		err := v.db.Update(func(tx *bbolt.Tx) error {
			for _, id := range some {
				if err := addLogout(tx, id, PendingLogout{Hard: !reap, Reap: reap}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// endSoftly records a soft end. A session that ended by a newer login on its device is
// removed.
func (v *Store) endSoftly(id caveat.SessionID, e End) error {
	if e.Replaced() {
		return v.Drop(id)
	}
	if e.at == 0 {
		return nil // reconciling sets the time
	}
	return v.setEnd(id, 0, e.at, !e.Expired())
}

// restore replaces a pending logout by its session, which is live or ended softly at a
// time, Unix ms.
func (v *Store) restore(id caveat.SessionID, d PendingLogout, ended int64) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		if err := remove(tx, id); err != nil {
			return err
		}
		return putSession(tx, id, Session{User: d.User, Device: d.Device, Box: d.Box, Ended: ended})
	})
}

// logoutsOn returns the pending logouts of a device.
func logoutsOn(tx *bbolt.Tx, user, device string) (ids []caveat.SessionID, err error) {
	err = eachJSON(tx.Bucket(bucketLogouts), func(k []byte, d PendingLogout) {
		if d.Named && d.User == user && d.Device == device {
			ids = append(ids, caveat.SessionID(k))
		}
	})
	return ids, err
}

// revoke records a revocation: its sessions have pending logouts after a hard end, and
// are kept after a soft end. It returns the pending logouts. Sessions that had ended
// before do not change.
func (v *Store) revoke(r revocation.Event) (ids []caveat.SessionID, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		return revokedSessions(tx, r, func(id caveat.SessionID) { ids = append(ids, id) })
	})
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	if !r.Soft {
		return ids, v.addLogouts(ids, false)
	}
	for _, id := range ids {
		if err := v.endSoftly(id, End{Soft: true, Cause: r.Reason, at: r.At.UnixMilli()}); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// revokedSessions calls f with the sessions in the file that a revocation covers.
func revokedSessions(tx *bbolt.Tx, r revocation.Event, f func(caveat.SessionID)) error {
	check := func(id caveat.SessionID) error {
		s, ok, err := getSession(tx, id)
		switch {
		case err != nil || !ok || s.Ended > 0 || id == r.Except:
			return err
		case r.Session == id, r.Session == caveat.SessionID{} && s.Minted < r.Before.UnixMilli():
			f(id)
		}
		return nil
	}
	j := Job{Op: EndUser, User: r.User, Every: !r.Devices}
	switch {
	case r.All:
		return tx.Bucket(bucketSessions).ForEach(func(k, _ []byte) error { return check(caveat.SessionID(k)) })
	case r.Session != caveat.SessionID{}:
		j = Job{Op: EndSession, Session: r.Session}
	case r.Device != "":
		j = Job{Op: EndDevice, User: r.User, Device: r.Device}
	}
	for _, id := range sessionsOf(tx, j) {
		if err := check(id); err != nil {
			return err
		}
	}
	return nil
}

// Logouts returns the sessions of all pending logouts.
func (v *Store) Logouts() (ids []caveat.SessionID, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketLogouts).ForEach(func(k, _ []byte) error {
			ids = append(ids, caveat.SessionID(k))
			return nil
		})
	})
	return ids, err
}

// Logout returns a pending logout. It reports false if there is none.
func (v *Store) Logout(id caveat.SessionID) (d PendingLogout, ok bool, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		d, ok, err = getJSON[PendingLogout](tx.Bucket(bucketLogouts), id[:])
		return err
	})
	return d, ok, err
}

// updateLogout replaces a pending logout, if it is still in the file.
func (v *Store) updateLogout(id caveat.SessionID, d PendingLogout) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketLogouts)
		if b.Get(id[:]) == nil {
			return nil
		}
		return putJSON(b, id[:], d)
	})
}
