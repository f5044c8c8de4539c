package gateway

import (
	"bytes"
	"encoding/json"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// vaultDebt is a session whose device is to be logged out at the homeserver.
// Entries of earlier versions have the first two members only.
type vaultDebt struct {
	Box    []byte `json:"box"`
	Tries  int    `json:"tries"`
	User   string `json:"user,omitempty"`
	Device string `json:"device,omitempty"`
	Named  bool   `json:"named,omitempty"`  // User and Device are known
	Hard   bool   `json:"hard,omitempty"`   // it ended hard at the service
	Reap   bool   `json:"reap,omitempty"`   // it ended softly, long ago
	Left   bool   `json:"left,omitempty"`   // its client logged out
	New    bool   `json:"new,omitempty"`    // its login failed, and only the login made the device
	Unused bool   `json:"unused,omitempty"` // the homeserver did not see the device in use since; it is asked once, which is a use
}

// condemn moves a session to those whose device is to be logged out at the
// homeserver. The session's entry in the vault goes before d.
func (v *vault) condemn(id caveat.SessionID, d vaultDebt) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return condemn(tx, id, d) })
}

func condemn(tx *bbolt.Tx, id caveat.SessionID, d vaultDebt) error {
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
	return putJSON(tx.Bucket(bucketCondemned), id[:], d)
}

// condemnAll does the same for many sessions that are in the vault.
func (v *vault) condemnAll(ids []caveat.SessionID, reap bool) error {
	const atATime = 1000
	for len(ids) > 0 {
		some := ids[:min(atATime, len(ids))]
		ids = ids[len(some):]
		err := v.db.Update(func(tx *bbolt.Tx) error {
			for _, id := range some {
				if err := condemn(tx, id, vaultDebt{Hard: !reap, Reap: reap}); err != nil {
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

// soften notes that a session ended softly. If that was by a newer login on its
// device, nothing is left to be done for it.
func (v *vault) soften(id caveat.SessionID, e ending) error {
	if e.replaced() {
		return v.drop(id)
	}
	if e.at == 0 {
		return nil // reconciling finds out when
	}
	return v.setEnd(id, 0, e.at, !e.overByTime())
}

// restore takes a session off the list of those to be logged out and puts it
// back among the others: it lives, or ended softly at a time, Unix ms.
func (v *vault) restore(id caveat.SessionID, d vaultDebt, ended int64) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		if err := remove(tx, id); err != nil {
			return err
		}
		return putSession(tx, id, vaultSession{User: d.User, Device: d.Device, Box: d.Box, Ended: ended})
	})
}

// condemnedOn lists the sessions on a device that are to be logged out.
func condemnedOn(tx *bbolt.Tx, user, device string) (ids []caveat.SessionID, err error) {
	err = tx.Bucket(bucketCondemned).ForEach(func(k, data []byte) error {
		var d vaultDebt
		if err := json.Unmarshal(data, &d); err != nil {
			return err
		}
		if d.Named && d.User == user && d.Device == device {
			ids = append(ids, caveat.SessionID(k))
		}
		return nil
	})
	return ids, err
}

// revoke notes a revocation: after a hard end the sessions that it is about are
// condemned, after a soft one their devices stay. It returns which sessions were
// condemned. Those that had ended before stay as they ended.
func (v *vault) revoke(r wire.Revocation) (ids []caveat.SessionID, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		return revokedSessions(tx, r, func(id caveat.SessionID) { ids = append(ids, id) })
	})
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	if !r.Soft {
		return ids, v.condemnAll(ids, false)
	}
	for _, id := range ids {
		if err := v.soften(id, ending{soft: true, reason: r.Reason, at: r.At.UnixMilli()}); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// revokedSessions calls f with the sessions in the vault that a revocation is
// about.
func revokedSessions(tx *bbolt.Tx, r wire.Revocation, f func(caveat.SessionID)) error {
	meant := func(id caveat.SessionID) error {
		s, ok, err := getSession(tx, id)
		switch {
		case err != nil || !ok || s.Ended > 0 || id == r.Except:
			return err
		case r.Session == id, r.Session == caveat.SessionID{} && s.Minted < r.Before.UnixMilli():
			f(id)
		}
		return nil
	}
	o := order{Op: endUser, User: r.User, Every: !r.Devices}
	switch {
	case r.All:
		return tx.Bucket(bucketSessions).ForEach(func(k, _ []byte) error { return meant(caveat.SessionID(k)) })
	case r.Session != caveat.SessionID{}:
		o = order{Op: endSession, Session: r.Session}
	case r.Device != "":
		o = order{Op: endDevice, User: r.User, Device: r.Device}
	}
	for _, id := range of(tx, o) {
		if err := meant(id); err != nil {
			return err
		}
	}
	return nil
}

// nextCondemned returns the first session after one that is to be logged out.
// It reports false if there is none.
func (v *vault) nextCondemned(after caveat.SessionID) (id caveat.SessionID, ok bool, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketCondemned).Cursor()
		k, _ := c.Seek(after[:])
		if bytes.Equal(k, after[:]) {
			k, _ = c.Next()
		}
		if k != nil {
			id, ok = caveat.SessionID(k), true
		}
		return nil
	})
	return id, ok, err
}

// condemned returns a session that is to be logged out. It reports false if
// there is none such.
func (v *vault) condemned(id caveat.SessionID) (d vaultDebt, ok bool, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		data := tx.Bucket(bucketCondemned).Get(id[:])
		if ok = data != nil; !ok {
			return nil
		}
		return json.Unmarshal(data, &d)
	})
	return d, ok, err
}

// owe replaces the entry of a session to be logged out, if there still is one.
func (v *vault) owe(id caveat.SessionID, d vaultDebt) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketCondemned)
		if b.Get(id[:]) == nil {
			return nil
		}
		return putJSON(b, id[:], d)
	})
}

// paid takes a session off the list.
func (v *vault) paid(id caveat.SessionID) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucketCondemned).Delete(id[:]) })
}
