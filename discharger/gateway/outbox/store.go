package outbox

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/caveat"
)

// Store is the file of an [Outbox]; see the package comment. Its methods are atomic and
// durable, and return an error for a damaged file.
type Store struct{ db *boltfile.DB }

// Session is a session with a device at the homeserver.
type Session struct {
	User    string `json:"user"`
	Device  string `json:"device"`
	Box     []byte `json:"box"`               // the homeserver's token, sealed
	Minted  int64  `json:"minted"`            // Unix ms
	Missing int64  `json:"missing,omitempty"` // since when it is missing at the service, Unix ms by the service's clock
	Ended   int64  `json:"ended,omitempty"`   // when it ended softly, likewise
	Decided bool   `json:"decided,omitempty"` // with Ended: revoked, not expired
}

var (
	bucketSessions = []byte("sessions")
	bucketByUser   = []byte("by_user")
	bucketLogouts  = []byte("condemned")
	bucketJobs     = []byte("orders")
	bucketUsers    = []byte("users")
	bucketTried    = []byte("tried")
)

// openStore opens or creates the file. Its mode is 0600.
func openStore(path string) (*Store, error) {
	db, err := boltfile.Open(path, boltfile.Options{LockTimeout: 2 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// In a page that leads back to itself bbolt would descend for ever.
	if err = boltfile.Check(path); err == nil || errors.Is(err, boltfile.ErrRoot) {
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, name := range [][]byte{bucketSessions, bucketByUser, bucketLogouts, bucketJobs, bucketUsers, bucketTried} {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

// Close closes the file.
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

func getJSON[T any](b *bbolt.Bucket, key []byte) (value T, ok bool, err error) {
	data := b.Get(key)
	if data == nil {
		return value, false, nil
	}
	return value, true, json.Unmarshal(data, &value)
}

func eachJSON[T any](b *bbolt.Bucket, f func(key []byte, value T)) error {
	return b.ForEach(func(k, data []byte) error {
		var value T
		if err := json.Unmarshal(data, &value); err != nil {
			return err
		}
		f(k, value)
		return nil
	})
}

// Probe writes to the file, and returns the error.
func (v *Store) Probe(now time.Time) error {
	return v.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketTried).Put([]byte("at"), binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli())))
	})
}

// Begin records a session that has begun. A device has one session: Begin removes and
// returns the sessions and pending logouts before it.
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

// KnowsUser reports whether a user has ever had a session.
func (v *Store) KnowsUser(user string) (known bool) {
	_ = v.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(bucketUsers).Get([]byte(user)) != nil
		return nil
	})
	return known
}

// remove removes a session, or its pending logout.
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
	return getJSON[Session](tx.Bucket(bucketSessions), id[:])
}

// Session returns a session. It reports false if it is not in the file.
func (v *Store) Session(id caveat.SessionID) (s Session, ok bool, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		s, ok, err = getSession(tx, id)
		return err
	})
	return s, ok, err
}

// Drop removes a session, or its pending logout.
func (v *Store) Drop(id caveat.SessionID) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return remove(tx, id) })
}

// sessionsOf returns the sessions that a job covers.
func sessionsOf(tx *bbolt.Tx, j Job) (ids []caveat.SessionID) {
	if j.Op == EndSession {
		return []caveat.SessionID{j.Session}
	}
	prefix := append([]byte(j.User), 0)
	c := tx.Bucket(bucketByUser).Cursor()
	for k, device := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(k) == len(prefix)+len(caveat.SessionID{}); k, device = c.Next() {
		id := caveat.SessionID(k[len(prefix):])
		if id != j.Session && (j.Op == EndUser && (j.Every || len(device) > 0) || j.Op == EndDevice && string(device) == j.Device) {
			ids = append(ids, id)
		}
	}
	return ids
}

// forget removes the sessions that a job covers, and returns those that had not ended.
func (v *Store) forget(j Job) (gone []caveat.SessionID, err error) {
	if j.Op == endOlder {
		return nil, nil
	}
	err = v.db.Batch(func(tx *bbolt.Tx) error {
		gone = nil
		for _, id := range sessionsOf(tx, j) {
			s, ok, err := getSession(tx, id)
			if err != nil {
				return err
			}
			if s.Ended == 0 && (ok || j.Op == EndSession) {
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

// putJob adds a job.
func (v *Store) putJob(j Job) error {
	return v.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketJobs)
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		return putJSON(b, binary.BigEndian.AppendUint64(nil, n), j)
	})
}

// firstJob returns the oldest job of a user; "": of any user. A nil key: there is none.
func (v *Store) firstJob(user string) (key []byte, first Job, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketJobs).Cursor()
		for k, data := c.First(); k != nil; k, data = c.Next() {
			var j Job
			if err := json.Unmarshal(data, &j); err != nil {
				return err
			}
			if user == "" || j.User == user {
				key, first = bytes.Clone(k), j
				return nil
			}
		}
		return nil
	})
	return key, first, err
}

// ended returns the sessions in jobs, and those in pending logouts that logged out or
// ended hard.
func (v *Store) ended() (unsent, condemned []caveat.SessionID, err error) {
	err = v.db.View(func(tx *bbolt.Tx) error {
		err := eachJSON(tx.Bucket(bucketJobs), func(_ []byte, j Job) { unsent = append(unsent, j.sessions()...) })
		if err != nil {
			return err
		}
		return eachJSON(tx.Bucket(bucketLogouts), func(k []byte, d PendingLogout) {
			if d.Hard || d.Left {
				condemned = append(condemned, caveat.SessionID(k))
			}
		})
	})
	return unsent, condemned, err
}

// jobDone removes a job.
func (v *Store) jobDone(key []byte) error {
	return v.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucketJobs).Delete(key) })
}

// users returns up to n users with sessions after one, in order.
func (v *Store) users(after string, n int) (names []string, err error) {
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

// sessions returns the sessions of a user.
func (v *Store) sessions(user string) (map[caveat.SessionID]Session, error) {
	all := make(map[caveat.SessionID]Session)
	err := v.db.View(func(tx *bbolt.Tx) error {
		for _, id := range sessionsOf(tx, Job{Op: EndUser, User: user, Every: true}) {
			s, ok, err := getSession(tx, id)
			if err != nil {
				return err
			}
			if ok {
				all[id] = s
			}
		}
		return nil
	})
	return all, err
}

// HasDevice reports whether a session is in the file and was not revoked.
func (v *Store) HasDevice(id caveat.SessionID) bool {
	s, ok, err := v.Session(id)
	return err == nil && ok && !s.Decided
}

// setEnd sets the members of a soft end; 0: live, or unknown.
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
