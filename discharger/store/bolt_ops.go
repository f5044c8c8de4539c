package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
)

// Load reads a session's record, its user's and its homeserver's.
func (b *Bolt) Load(ctx context.Context, user discharger.UserKey, session caveat.SessionID) (discharger.View, error) {
	var v discharger.View
	err := b.view(ctx, func(tx *bbolt.Tx) (err error) {
		now, records, prefix := b.cfg.Now(), tx.Bucket(bucketRecords), userPrefix(user)
		if v.Session, err = readSession(records, prefix, session, now); err != nil {
			return err
		}
		if v.User, err = readUser(records, prefix, now); err != nil {
			return err
		}
		v.Homeserver = bytes.Clone(tx.Bucket(bucketHomeservers).Get(appendName(nil, user.Homeserver)))
		return nil
	}, checkUser(user))
	if err != nil {
		return discharger.View{}, fmt.Errorf("load session: %w", err)
	}
	return v, nil
}

// List reads a user's record and all of the user's sessions.
func (b *Bolt) List(ctx context.Context, user discharger.UserKey) (discharger.Listing, error) {
	l := discharger.Listing{Sessions: make(map[caveat.SessionID][]byte)}
	err := b.view(ctx, func(tx *bbolt.Tx) (err error) {
		now, records, prefix := b.cfg.Now(), tx.Bucket(bucketRecords), userPrefix(user)
		if l.User, err = readUser(records, prefix, now); err != nil {
			return err
		}
		c := records.Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			e, record, err := splitRow(v)
			if err != nil {
				return err
			}
			if id := rowSession(k); id != (caveat.SessionID{}) && !e.passed(now) {
				l.Sessions[id] = bytes.Clone(record)
			}
		}
		return nil
	}, checkUser(user))
	if err != nil {
		return discharger.Listing{}, fmt.Errorf("list sessions: %w", err)
	}
	return l, nil
}

func (b *Bolt) view(ctx context.Context, f func(*bbolt.Tx) error, invalid error) error {
	if invalid != nil {
		return invalid
	}
	if err := b.usable(ctx); err != nil {
		return err
	}
	return guard(func() error { return b.db.View(f) })
}

// readSession copies a session's record, nil if it has expired.
func readSession(records *bbolt.Bucket, prefix []byte, id caveat.SessionID, now time.Time) ([]byte, error) {
	if id == (caveat.SessionID{}) { // the user's own row
		return nil, nil
	}
	row := records.Get(append(bytes.Clone(prefix), id[:]...))
	if row == nil {
		return nil, nil
	}
	e, record, err := splitRow(row)
	if err != nil || e.passed(now) {
		return nil, err
	}
	return bytes.Clone(record), nil
}

// readUser copies a user's own record, nil if it has expired and so have all
// of the user's sessions.
func readUser(records *bbolt.Bucket, prefix []byte, now time.Time) ([]byte, error) {
	row := records.Get(append(bytes.Clone(prefix), make([]byte, len(caveat.SessionID{}))...))
	if row == nil {
		return nil, nil
	}
	e, record, err := splitRow(row)
	if err != nil {
		return nil, err
	}
	if e.passed(now) {
		if live, err := liveSession(records, prefix, now); err != nil || !live {
			return nil, err
		}
	}
	return bytes.Clone(record), nil
}

// Swap makes all of a write's changes or none. Writes at the same time share a
// commit.
func (b *Bolt) Swap(ctx context.Context, w discharger.Write) (bool, error) {
	var done bool
	err := b.update(ctx, func(tx *bbolt.Tx) (err error) {
		if done, err = swapRows(tx.Bucket(bucketRecords), w, b.cfg.Now()); err != nil || !done {
			return err
		}
		return b.appendEvents(tx, w.User.Homeserver, w.Events)
	}, checkWrite(w))
	if err != nil {
		return false, fmt.Errorf("swap: %w", err)
	}
	if done {
		b.wakes.wake(w.User.Homeserver, w.Events)
	}
	return done, nil
}

// swapRows does all comparing before the first change.
func swapRows(records *bbolt.Bucket, w discharger.Write, now time.Time) (bool, error) {
	prefix := userPrefix(w.User)
	due := make([]discharger.Change, 0, len(w.Changes))
	for _, c := range w.Changes {
		var current []byte
		var err error
		if c.Session == (caveat.SessionID{}) {
			current, err = readUser(records, prefix, now)
		} else {
			current, err = readSession(records, prefix, c.Session, now)
		}
		if err != nil {
			return false, err
		}
		if !agrees(current, c.Old, c.New) {
			return false, nil
		}
		if bytes.Equal(current, c.Old) {
			due = append(due, c)
		}
	}
	for _, c := range due {
		key := append(bytes.Clone(prefix), c.Session[:]...)
		if c.New == nil {
			if err := records.Delete(key); err != nil {
				return false, err
			}
			continue
		}
		row := append(expiryOf(c.Expires).append(make([]byte, 0, expirySize+len(c.New))), c.New...)
		if err := records.Put(key, row); err != nil {
			return false, err
		}
	}
	return true, nil
}

// SwapHomeserver replaces a homeserver's record. One process has the file, and
// it reads the record with every Load.
func (b *Bolt) SwapHomeserver(ctx context.Context, homeserver string, old, new []byte, events ...discharger.FeedEvent) (bool, error) {
	var done bool
	err := b.update(ctx, func(tx *bbolt.Tx) (err error) {
		bucket, key := tx.Bucket(bucketHomeservers), appendName(nil, homeserver)
		if done = agrees(bucket.Get(key), old, new); !done {
			return nil
		}
		if new == nil {
			err = bucket.Delete(key)
		} else {
			err = bucket.Put(key, new)
		}
		if err != nil {
			return err
		}
		return b.appendEvents(tx, homeserver, events)
	}, checkHomeserverSwap(homeserver, old, new, events))
	if err != nil {
		return false, fmt.Errorf("swap record of homeserver: %w", err)
	}
	if done {
		b.wakes.wake(homeserver, events)
	}
	return done, nil
}

// update runs f in a write transaction, together with others that come at the
// same time: then it waits for them up to batchDelay, and with them for one sync
// instead of for theirs, one after the other. f may be run more than once.
func (b *Bolt) update(ctx context.Context, f func(*bbolt.Tx) error, invalid error) error {
	if invalid != nil {
		return invalid
	}
	if err := b.usable(ctx); err != nil {
		return err
	}
	defer b.writers.Add(-1)
	if b.writers.Add(1) == 1 {
		return guard(func() error { return b.db.Update(f) })
	}
	return guard(func() error { return b.db.Batch(f) })
}
