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

	"github.com/discharger/discharger/discharger/caveat"
)

// vault persists calls still to be made to the service and the homeserver: which
// sessions have a device at the homeserver, which of these are to be logged out
// there, and which orders the service did not get yet. It is one file:
//
//	sessions   session id                  vaultSession
//	by_user    user, 00, session id        device
//	condemned  session id                  vaultDebt: device to be logged out at the homeserver
//	orders     sequence number             order: to be sent to the service
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
	Missing int64  `json:"missing,omitempty"` // since when the service does not list it, Unix ms by the service's clock
	Ended   int64  `json:"ended,omitempty"`   // when it ended softly, likewise: its device stays for ForgetAfter
	Decided bool   `json:"decided,omitempty"` // with Ended: it ended by a decision, and not by time
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

// begin notes a session that has begun. A device has one session: those before it
// are taken out, and a logout that was still to come is cancelled. The result are
// the sessions before.
func (v *vault) begin(id caveat.SessionID, s vaultSession) (before []caveat.SessionID, err error) {
	err = v.db.Batch(func(tx *bbolt.Tx) error {
		before = nil
		if s.Device != "" {
			before = of(tx, order{Op: endDevice, User: s.User, Device: s.Device, Session: id})
			cancelled, err := condemnedOn(tx, s.User, s.Device)
			if err != nil {
				return err
			}
			for _, other := range append(cancelled, before...) {
				if err := remove(tx, other); err != nil {
					return err
				}
			}
			before = append(before, cancelled...)
		}
		users := tx.Bucket(bucketUsers)
		if users.Get([]byte(s.User)) == nil {
			if err := users.Put([]byte(s.User), binary.BigEndian.AppendUint64(nil, uint64(s.Minted))); err != nil {
				return err
			}
		}
		return putSession(tx, id, s)
	})
	return before, err
}

func putSession(tx *bbolt.Tx, id caveat.SessionID, s vaultSession) error {
	if err := putJSON(tx.Bucket(bucketSessions), id[:], s); err != nil {
		return err
	}
	return tx.Bucket(bucketByUser).Put(userKey(s.User, id), []byte(s.Device))
}

// knows reports whether a user ever had a session.
func (v *vault) knows(user string) (known bool) {
	_ = v.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(bucketUsers).Get([]byte(user)) != nil
		return nil
	})
	return known
}

// remove takes a session out, and off the list of those to be logged out.
func remove(tx *bbolt.Tx, id caveat.SessionID) error {
	if err := tx.Bucket(bucketCondemned).Delete(id[:]); err != nil {
		return err
	}
	s, ok, err := getSession(tx, id)
	if err != nil || !ok {
		return err
	}
	if err := tx.Bucket(bucketByUser).Delete(userKey(s.User, id)); err != nil {
		return err
	}
	return tx.Bucket(bucketSessions).Delete(id[:])
}

func getSession(tx *bbolt.Tx, id caveat.SessionID) (s vaultSession, ok bool, err error) {
	data := tx.Bucket(bucketSessions).Get(id[:])
	if data == nil {
		return s, false, nil
	}
	return s, true, json.Unmarshal(data, &s)
}

// drop takes a session out.
func (v *vault) drop(id caveat.SessionID) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return remove(tx, id) })
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
		if id != o.Session && (o.Op == endUser && (o.Every || len(device) > 0) || o.Op == endDevice && string(device) == o.Device) {
			ids = append(ids, id)
		}
	}
	return ids
}

// forget takes out the sessions that an order is about, and returns those that
// it ends: a session that ended softly before stays as it ended.
func (v *vault) forget(o order) (gone []caveat.SessionID, err error) {
	if o.Op == endOlder {
		return nil, nil
	}
	err = v.db.Batch(func(tx *bbolt.Tx) error {
		gone = nil
		for _, id := range of(tx, o) {
			s, ok, err := getSession(tx, id)
			if err != nil {
				return err
			}
			if s.Ended == 0 && (ok || o.Op == endSession) {
				gone = append(gone, id)
			}
			if err := remove(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	return gone, err
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

// ended lists the sessions that logged out or ended hard: those whose end is still
// to be sent to the service, and those whose end is still to be sent to the
// homeserver.
func (v *vault) ended() (unsent, condemned []caveat.SessionID, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketOrders).ForEach(func(_, data []byte) error {
			var o order
			if err := json.Unmarshal(data, &o); err != nil {
				return err
			}
			unsent = append(unsent, o.sessions()...)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketCondemned).ForEach(func(k, data []byte) error {
			var d vaultDebt
			if err := json.Unmarshal(data, &d); err != nil {
				return err
			}
			if d.Hard || d.Left {
				condemned = append(condemned, caveat.SessionID(k))
			}
			return nil
		})
	})
	return unsent, condemned, err
}

// sent takes an order off the list.
func (v *vault) sent(key []byte) error {
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
		for _, id := range of(tx, order{Op: endUser, User: user, Every: true}) {
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

// mayLeave reports whether a session has its device as far as the vault shows, and
// did not end by a decision.
func (v *vault) mayLeave(id caveat.SessionID) (may bool) {
	_ = v.db.View(func(tx *bbolt.Tx) error {
		s, ok, err := getSession(tx, id)
		may = err == nil && ok && !s.Decided
		return nil
	})
	return may
}

// setEnd notes since when the service does not list a session, and when it ended
// softly, Unix ms; 0: it lives, or that is not known.
func (v *vault) setEnd(id caveat.SessionID, missing, ended int64, decided bool) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		s, ok, err := getSession(tx, id)
		if err != nil || !ok {
			return err
		}
		s.Missing, s.Ended, s.Decided = missing, ended, decided
		return putJSON(tx.Bucket(bucketSessions), id[:], s)
	})
}
