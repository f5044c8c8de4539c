package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// vault remembers, across restarts, what the gateway owes to others: which
// sessions have a device at the homeserver, which of these are to be logged out
// there, and what the service could not be told yet. It is one file:
//
//	sessions   session id                  vaultSession
//	by_user    user, 00, session id        device
//	condemned  session id                  vaultDebt: to be logged out at the homeserver
//	orders     sequence number             order: to be told to the service
//	users      user                        when their first session began, Unix ms
//	tried      "at"                        when it was last tried whether the file can be written, Unix ms
//
// Nothing in it is needed to recognize a token. If it is lost, sessions go on,
// and devices whose sessions end elsewhere stay at the homeserver until their
// token is presented.
type vault struct{ db *bbolt.DB }

// vaultSession is a session of which the homeserver has a device.
type vaultSession struct {
	User    string `json:"user"`
	Device  string `json:"device"`
	Box     []byte `json:"box"`               // the homeserver's token, sealed
	Minted  int64  `json:"minted"`            // Unix ms
	Missing int64  `json:"missing,omitempty"` // since when the service does not list it, Unix ms
}

// vaultDebt is a session to be logged out at the homeserver.
type vaultDebt struct {
	Box   []byte `json:"box"`
	Tries int    `json:"tries"`
}

var (
	bucketSessions  = []byte("sessions")
	bucketByUser    = []byte("by_user")
	bucketCondemned = []byte("condemned")
	bucketOrders    = []byte("orders")
	bucketUsers     = []byte("users")
	bucketTried     = []byte("tried")
)

// openVault opens the file, and makes it if there is none. Its mode is 0600.
func openVault(path string) (*vault, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: another process has it open", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketSessions, bucketByUser, bucketCondemned, bucketOrders, bucketUsers, bucketTried} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", path, err), db.Close())
	}
	return &vault{db: db}, nil
}

func (v *vault) close() error { return v.db.Close() }

func userKey(user string, id caveat.SessionID) []byte {
	return append(append([]byte(user), 0), id[:]...)
}

func putJSON(b *bbolt.Bucket, key []byte, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return b.Put(key, data)
}

// try finds out whether the file can be written.
func (v *vault) try(now time.Time) error {
	return v.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketTried).Put([]byte("at"), binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli())))
	})
}

// add notes a session that has begun.
func (v *vault) add(id caveat.SessionID, s vaultSession) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		if err := putJSON(tx.Bucket(bucketSessions), id[:], s); err != nil {
			return err
		}
		users := tx.Bucket(bucketUsers)
		if users.Get([]byte(s.User)) == nil {
			if err := users.Put([]byte(s.User), binary.BigEndian.AppendUint64(nil, uint64(s.Minted))); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketByUser).Put(userKey(s.User, id), []byte(s.Device))
	})
}

// knows reports whether a user ever had a session.
func (v *vault) knows(user string) (known bool) {
	_ = v.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(bucketUsers).Get([]byte(user)) != nil
		return nil
	})
	return known
}

// remove takes a session out.
func remove(tx *bbolt.Tx, id caveat.SessionID) error {
	sessions := tx.Bucket(bucketSessions)
	data := sessions.Get(id[:])
	if data == nil {
		return nil
	}
	var s vaultSession
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	if err := tx.Bucket(bucketByUser).Delete(userKey(s.User, id)); err != nil {
		return err
	}
	return sessions.Delete(id[:])
}

// of lists the sessions that an order is about.
func of(tx *bbolt.Tx, o order) (ids []caveat.SessionID) {
	if o.Op == endSession {
		return []caveat.SessionID{o.Session}
	}
	prefix := append([]byte(o.User), 0)
	c := tx.Bucket(bucketByUser).Cursor()
	for k, device := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(k) == len(prefix)+len(caveat.SessionID{}); k, device = c.Next() {
		id := caveat.SessionID(k[len(prefix):])
		if id != o.Session && (o.Op == endUser || string(device) == o.Device) {
			ids = append(ids, id)
		}
	}
	return ids
}

// forget takes out the sessions that an order is about, and says which.
func (v *vault) forget(o order) (gone []caveat.SessionID, err error) {
	var ids []caveat.SessionID
	if err := v.db.View(func(tx *bbolt.Tx) error { ids = of(tx, o); return nil }); err != nil || len(ids) == 0 {
		return nil, err
	}
	err = v.db.Batch(func(tx *bbolt.Tx) error {
		gone = of(tx, o)
		for _, id := range gone {
			if err := remove(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	return gone, err
}

// condemn moves a session to those that are to be logged out at the
// homeserver. Box counts if the session is not in the vault.
func (v *vault) condemn(id caveat.SessionID, box []byte) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return condemn(tx, id, box) })
}

func condemn(tx *bbolt.Tx, id caveat.SessionID, box []byte) error {
	if data := tx.Bucket(bucketSessions).Get(id[:]); data != nil {
		var s vaultSession
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		box = s.Box
	}
	if box == nil {
		return nil
	}
	if err := remove(tx, id); err != nil {
		return err
	}
	return putJSON(tx.Bucket(bucketCondemned), id[:], vaultDebt{Box: box})
}

// condemnAll does the same for many sessions that are in the vault.
func (v *vault) condemnAll(ids []caveat.SessionID) error {
	const atATime = 1000
	for len(ids) > 0 {
		some := ids[:min(atATime, len(ids))]
		ids = ids[len(some):]
		err := v.db.Update(func(tx *bbolt.Tx) error {
			for _, id := range some {
				if err := condemn(tx, id, nil); err != nil {
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

// has reports whether a session is in the vault.
func (v *vault) has(id caveat.SessionID) (has bool) {
	_ = v.db.View(func(tx *bbolt.Tx) error {
		has = tx.Bucket(bucketSessions).Get(id[:]) != nil
		return nil
	})
	return has
}

// box gives the homeserver's token of a session, sealed; nil if the session is
// not in the vault.
func (v *vault) box(id caveat.SessionID) (box []byte, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		data := tx.Bucket(bucketSessions).Get(id[:])
		if data == nil {
			return nil
		}
		var s vaultSession
		err := json.Unmarshal(data, &s)
		box = s.Box
		return err
	})
	return box, err
}

// condemnRevoked condemns the sessions that a revocation is about, and says
// which they were.
func (v *vault) condemnRevoked(r api.Revocation) (ids []caveat.SessionID, err error) {
	meant := func(id caveat.SessionID, data []byte) error {
		if data == nil || id == r.Except {
			return nil
		}
		var s vaultSession
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		if r.Session == id || r.Session == (caveat.SessionID{}) && s.Minted < r.Before.UnixMilli() {
			ids = append(ids, id)
		}
		return nil
	}
	err = v.db.View(func(tx *bbolt.Tx) error {
		sessions := tx.Bucket(bucketSessions)
		switch {
		case r.All:
			return sessions.ForEach(func(k, data []byte) error { return meant(caveat.SessionID(k), data) })
		case r.User == "":
			return meant(r.Session, sessions.Get(r.Session[:]))
		}
		for _, id := range of(tx, order{Op: endUser, User: r.User}) {
			if err := meant(id, sessions.Get(id[:])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ids, v.condemnAll(ids)
}

// nextCondemned gives the first session after one that is to be logged out. It
// reports false if there is none.
func (v *vault) nextCondemned(after caveat.SessionID) (id caveat.SessionID, d vaultDebt, ok bool, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketCondemned).Cursor()
		k, data := c.Seek(after[:])
		if bytes.Equal(k, after[:]) {
			k, data = c.Next()
		}
		if k == nil {
			return nil
		}
		id, ok = caveat.SessionID(k), true
		return json.Unmarshal(data, &d)
	})
	return id, d, ok, err
}

// owe notes that another try failed.
func (v *vault) owe(id caveat.SessionID, d vaultDebt) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return putJSON(tx.Bucket(bucketCondemned), id[:], d) })
}

// paid takes a session off the list.
func (v *vault) paid(id caveat.SessionID) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucketCondemned).Delete(id[:]) })
}

// putOrder keeps an order for later.
func (v *vault) putOrder(o order) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketOrders)
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		return putJSON(b, binary.BigEndian.AppendUint64(nil, n), o)
	})
}

// firstOrder gives the oldest order, of one user or of any.
func (v *vault) firstOrder(user string) (key []byte, first order, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketOrders).Cursor()
		for k, data := c.First(); k != nil; k, data = c.Next() {
			var o order
			if err := json.Unmarshal(data, &o); err != nil {
				return err
			}
			if user == "" || o.User == user {
				key, first = bytes.Clone(k), o
				return nil
			}
		}
		return nil
	})
	return key, first, err
}

// told takes an order off the list.
func (v *vault) told(key []byte) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucketOrders).Delete(key) })
}

// users gives up to n users after one, in order.
func (v *vault) users(after string, n int) (names []string, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketByUser).Cursor()
		k, _ := c.Seek(append([]byte(after), 1))
		for k != nil && len(names) < n {
			user, _, _ := bytes.Cut(k, []byte{0})
			names = append(names, string(user))
			k, _ = c.Seek(append(bytes.Clone(user), 1))
		}
		return nil
	})
	return names, err
}

// sessionsOf gives the sessions of a user.
func (v *vault) sessionsOf(user string) (map[caveat.SessionID]vaultSession, error) {
	all := make(map[caveat.SessionID]vaultSession)
	err := v.db.View(func(tx *bbolt.Tx) error {
		for _, id := range of(tx, order{Op: endUser, User: user}) {
			var s vaultSession
			if data := tx.Bucket(bucketSessions).Get(id[:]); data == nil {
				continue
			} else if err := json.Unmarshal(data, &s); err != nil {
				return err
			}
			all[id] = s
		}
		return nil
	})
	return all, err
}

// setMissing notes since when the service does not list a session; 0: it does.
func (v *vault) setMissing(id caveat.SessionID, since int64) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSessions)
		data := b.Get(id[:])
		if data == nil {
			return nil
		}
		var s vaultSession
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		s.Missing = since
		return putJSON(b, id[:], s)
	})
}
