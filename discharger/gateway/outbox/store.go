package outbox

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/discharger/discharger/discharger/boltfile"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
)

// Store is the file of an [Outbox]; see the package comment. Its methods are atomic and
// durable, and return an error for a damaged file.
type Store struct{ db *boltfile.DB }

// Session is a session of which the homeserver has a device.
type Session struct {
	User    string `json:"user"`
	Device  string `json:"device"`
	Box     []byte `json:"box"`               // the homeserver's token, sealed
	Minted  int64  `json:"minted"`            // Unix ms
	Missing int64  `json:"missing,omitempty"` // since when the service does not list it, Unix ms by the service's clock
	Ended   int64  `json:"ended,omitempty"`   // when it ended softly, likewise: its device stays for ForgetAfter
	Decided bool   `json:"decided,omitempty"` // with Ended: it ended by a decision, and not by time
}

var (
	bucketSessions = []byte("sessions")
	bucketByUser   = []byte("by_user")
	bucketLogouts  = []byte("condemned")
	bucketJobs     = []byte("orders")
	bucketUsers    = []byte("users")
	bucketTried    = []byte("tried")
)

// openStore opens the file, and makes it if there is none. Its mode is 0600.
func openStore(path string) (*Store, error) {
	db, err := boltfile.Open(path, boltfile.Options{LockTimeout: 2 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketSessions, bucketByUser, bucketLogouts, bucketJobs, bucketUsers, bucketTried} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

func (v *Store) Close() error { return v.db.Close() }

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

// Probe finds out whether the file can be written.
func (v *Store) Probe(now time.Time) error {
	return v.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketTried).Put([]byte("at"), binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli())))
	})
}

// Begin notes a session that has begun. A device has one session: those before it
// are taken out, and a logout that was still to come is cancelled. The result are
// the sessions before.
func (v *Store) Begin(id caveat.SessionID, s Session) (before []caveat.SessionID, err error) {
	err = v.db.Batch(func(tx *bbolt.Tx) error {
		before = nil
		if s.Device != "" {
			before = sessionsOf(tx, Job{Op: EndDevice, User: s.User, Device: s.Device, Session: id})
			cancelled, err := logoutsOn(tx, s.User, s.Device)
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

func putSession(tx *bbolt.Tx, id caveat.SessionID, s Session) error {
	if err := putJSON(tx.Bucket(bucketSessions), id[:], s); err != nil {
		return err
	}
	return tx.Bucket(bucketByUser).Put(userKey(s.User, id), []byte(s.Device))
}

// KnowsUser reports whether a user ever had a session.
func (v *Store) KnowsUser(user string) (known bool) {
	_ = v.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(bucketUsers).Get([]byte(user)) != nil
		return nil
	})
	return known
}

// remove takes a session out, and off the list of those to be logged out.
func remove(tx *bbolt.Tx, id caveat.SessionID) error {
	if err := tx.Bucket(bucketLogouts).Delete(id[:]); err != nil {
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

func getSession(tx *bbolt.Tx, id caveat.SessionID) (s Session, ok bool, err error) {
	data := tx.Bucket(bucketSessions).Get(id[:])
	if data == nil {
		return s, false, nil
	}
	return s, true, json.Unmarshal(data, &s)
}

// Session returns a session. It reports false if the file has none such.
func (v *Store) Session(id caveat.SessionID) (s Session, ok bool, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		s, ok, err = getSession(tx, id)
		return err
	})
	return s, ok, err
}

// Drop takes a session out.
func (v *Store) Drop(id caveat.SessionID) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return remove(tx, id) })
}

// sessionsOf lists the sessions that an order is about.
func sessionsOf(tx *bbolt.Tx, o Job) (ids []caveat.SessionID) {
	if o.Op == EndSession {
		return []caveat.SessionID{o.Session}
	}
	prefix := append([]byte(o.User), 0)
	c := tx.Bucket(bucketByUser).Cursor()
	for k, device := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(k) == len(prefix)+len(caveat.SessionID{}); k, device = c.Next() {
		id := caveat.SessionID(k[len(prefix):])
		if id != o.Session && (o.Op == EndUser && (o.Every || len(device) > 0) || o.Op == EndDevice && string(device) == o.Device) {
			ids = append(ids, id)
		}
	}
	return ids
}

// forget takes out the sessions that an order is about, and returns those that
// it ends: a session that ended softly before stays as it ended.
func (v *Store) forget(o Job) (gone []caveat.SessionID, err error) {
	if o.Op == endOlder {
		return nil, nil
	}
	err = v.db.Batch(func(tx *bbolt.Tx) error {
		gone = nil
		for _, id := range sessionsOf(tx, o) {
			s, ok, err := getSession(tx, id)
			if err != nil {
				return err
			}
			if s.Ended == 0 && (ok || o.Op == EndSession) {
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

// PutJob keeps an order for later.
func (v *Store) PutJob(o Job) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketJobs)
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		return putJSON(b, binary.BigEndian.AppendUint64(nil, n), o)
	})
}

// FirstJob gives the oldest order, of one user or of any.
func (v *Store) FirstJob(user string) (key []byte, first Job, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketJobs).Cursor()
		for k, data := c.First(); k != nil; k, data = c.Next() {
			var o Job
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
func (v *Store) ended() (unsent, condemned []caveat.SessionID, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketJobs).ForEach(func(_, data []byte) error {
			var o Job
			if err := json.Unmarshal(data, &o); err != nil {
				return err
			}
			unsent = append(unsent, o.sessions()...)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketLogouts).ForEach(func(k, data []byte) error {
			var d PendingLogout
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

// JobDone takes an order off the list.
func (v *Store) JobDone(key []byte) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucketJobs).Delete(key) })
}

// Users gives up to n users after one, in order.
func (v *Store) Users(after string, n int) (names []string, err error) {
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

// Sessions gives the sessions of a user.
func (v *Store) Sessions(user string) (map[caveat.SessionID]Session, error) {
	all := make(map[caveat.SessionID]Session)
	err := v.db.View(func(tx *bbolt.Tx) error {
		for _, id := range sessionsOf(tx, Job{Op: EndUser, User: user, Every: true}) {
			var s Session
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

// HasDevice reports whether a session has its device as far as the vault shows, and
// did not end by a decision.
func (v *Store) HasDevice(id caveat.SessionID) (may bool) {
	_ = v.db.View(func(tx *bbolt.Tx) error {
		s, ok, err := getSession(tx, id)
		may = err == nil && ok && !s.Decided
		return nil
	})
	return may
}

// setEnd notes since when the service does not list a session, and when it ended
// softly, Unix ms; 0: it lives, or that is not known.
func (v *Store) setEnd(id caveat.SessionID, missing, ended int64, decided bool) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		s, ok, err := getSession(tx, id)
		if err != nil || !ok {
			return err
		}
		s.Missing, s.Ended, s.Decided = missing, ended, decided
		return putJSON(tx.Bucket(bucketSessions), id[:], s)
	})
}
