package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/record"
)

// Load reads the records of a session, its user, its homeserver and a device.
func (b *Store) Load(ctx context.Context, user store.UserKey, session caveat.SessionID, device revocation.DeviceTag) (store.View, error) {
	var v store.View
	err := b.view(ctx, func(tx *bbolt.Tx) (err error) {
		now, records, prefix := b.cfg.now(), tx.Bucket(bucketRecords), userPrefix(user)
		if v.Session, err = readSession(records, prefix, session, now); err != nil {
			return err
		}
		if v.User, err = readUser(records, prefix, now); err != nil {
			return err
		}
		if device != (revocation.DeviceTag{}) {
			if v.Device, err = readDevice(tx, prefix, device, now); err != nil {
				return err
			}
		}
		v.Homeserver = bytes.Clone(tx.Bucket(bucketHomeservers).Get(appendName(nil, user.Homeserver)))
		return nil
	}, limits.CheckUser(user))
	if err != nil {
		return store.View{}, fmt.Errorf("load session: %w", err)
	}
	v.Losses = b.Losses()
	return v, nil
}

// List reads a user's record and those of the user's sessions and devices.
func (b *Store) List(ctx context.Context, user store.UserKey) (l store.Listing, err error) {
	err = b.view(ctx, func(tx *bbolt.Tx) (err error) {
		l, err = listRows(tx, user, b.cfg.now())
		return err
	}, limits.CheckUser(user))
	if err != nil {
		return store.Listing{}, fmt.Errorf("list sessions: %w", err)
	}
	return l, nil
}

func listRows(tx *bbolt.Tx, user store.UserKey, now time.Time) (l store.Listing, err error) {
	l = store.Listing{Sessions: make(map[caveat.SessionID][]byte), Devices: make(map[revocation.DeviceTag][]byte)}
	records, prefix := tx.Bucket(bucketRecords), userPrefix(user)
	if l.User, err = readUser(records, prefix, now); err != nil {
		return l, err
	}
	c := records.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		e, record, err := record.SplitRow(v)
		if err != nil {
			return l, err
		}
		if id := rowSession(k); id != (caveat.SessionID{}) && !e.Passed(now) {
			l.Sessions[id] = bytes.Clone(record)
		}
	}
	c = tx.Bucket(bucketDevices).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		e, record, err := record.SplitRow(v)
		if err != nil {
			return l, err
		}
		if !e.Passed(now) || len(l.Sessions) > 0 {
			l.Devices[rowDevice(k)] = bytes.Clone(record)
		}
	}
	return l, nil
}

func (b *Store) view(ctx context.Context, f func(*bbolt.Tx) error, invalid error) error {
	if invalid != nil {
		return invalid
	}
	if err := b.usable(ctx); err != nil {
		return err
	}
	return b.db.View(f)
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
	e, record, err := record.SplitRow(row)
	if err != nil || e.Passed(now) {
		return nil, err
	}
	return bytes.Clone(record), nil
}

// readDevice copies a device's record, nil if it has expired and so have all of
// the user's sessions.
func readDevice(tx *bbolt.Tx, prefix []byte, device revocation.DeviceTag, now time.Time) ([]byte, error) {
	row := tx.Bucket(bucketDevices).Get(append(bytes.Clone(prefix), device[:]...))
	return readKept(tx.Bucket(bucketRecords), row, prefix, now)
}

// readUser copies a user's own record, nil if it has expired and so have all
// of the user's sessions.
func readUser(records *bbolt.Bucket, prefix []byte, now time.Time) ([]byte, error) {
	row := records.Get(append(bytes.Clone(prefix), make([]byte, len(caveat.SessionID{}))...))
	return readKept(records, row, prefix, now)
}

// readKept copies the record in a row that stays as long as any of the user's
// sessions.
func readKept(records *bbolt.Bucket, row, prefix []byte, now time.Time) ([]byte, error) {
	if row == nil {
		return nil, nil
	}
	e, record, err := record.SplitRow(row)
	if err != nil {
		return nil, err
	}
	if e.Passed(now) {
		if live, err := liveSession(records, prefix, now); err != nil || !live {
			return nil, err
		}
	}
	return bytes.Clone(record), nil
}

// Swap makes all of a write's changes or none. Writes at the same time share a
// commit. Revocations are in the journal first.
func (b *Store) Swap(ctx context.Context, w store.Write) (bool, error) {
	events, err := revocation.Lines(w.Revocations)
	if err := errors.Join(err, limits.CheckWrite(w)); err != nil {
		return false, fmt.Errorf("swap: %w", err)
	}
	done, err := b.revoke(ctx, w.Revocations, func(tx *bbolt.Tx) (done bool, err error) {
		if done, err = swapRows(tx, w, b.cfg.now()); err != nil || !done {
			return false, err
		}
		return true, b.appendEvents(tx, w.User.Homeserver, events)
	})
	if err != nil {
		return false, fmt.Errorf("swap: %w", err)
	}
	if done {
		b.wakes.wake(w.User.Homeserver, events)
	}
	return done, nil
}

// swapRows does all comparing before the first change.
func swapRows(tx *bbolt.Tx, w store.Write, now time.Time) (bool, error) {
	records, prefix := tx.Bucket(bucketRecords), userPrefix(w.User)
	due := make([]store.Change, 0, len(w.Changes))
	for _, c := range w.Changes {
		var current []byte
		var err error
		switch {
		case c.Device != revocation.DeviceTag{}:
			current, err = readDevice(tx, prefix, c.Device, now)
		case c.Session == caveat.SessionID{}:
			current, err = readUser(records, prefix, now)
		default:
			current, err = readSession(records, prefix, c.Session, now)
		}
		if err != nil {
			return false, err
		}
		if !record.Agrees(current, c.Old, c.New) {
			return false, nil
		}
		if bytes.Equal(current, c.Old) {
			due = append(due, c)
		}
	}
	for _, c := range due {
		bucket, key := records, append(bytes.Clone(prefix), c.Session[:]...)
		if c.Device != (revocation.DeviceTag{}) {
			bucket, key = tx.Bucket(bucketDevices), append(bytes.Clone(prefix), c.Device[:]...)
		}
		if c.New == nil {
			if err := bucket.Delete(key); err != nil {
				return false, err
			}
			continue
		}
		row := append(record.ExpiryOf(c.Expires).Append(make([]byte, 0, record.ExpirySize+len(c.New))), c.New...)
		if err := bucket.Put(key, row); err != nil {
			return false, err
		}
	}
	return true, nil
}

// SwapHomeserver replaces a homeserver's record. One process has the file, and
// it reads the record with every Load.
func (b *Store) SwapHomeserver(ctx context.Context, homeserver string, old, new []byte, revocations ...revocation.Revocation) (bool, error) {
	events, err := revocation.Lines(revocations)
	if err := errors.Join(err, limits.CheckHomeserverSwap(homeserver, old, new)); err != nil {
		return false, fmt.Errorf("swap record of homeserver: %w", err)
	}
	done, err := b.revoke(ctx, revocations, func(tx *bbolt.Tx) (bool, error) {
		if done, err := swapHomeserver(tx, homeserver, old, new); err != nil || !done {
			return false, err
		}
		return true, b.appendEvents(tx, homeserver, events)
	})
	if err != nil {
		return false, fmt.Errorf("swap record of homeserver: %w", err)
	}
	if done {
		b.wakes.wake(homeserver, events)
	}
	return done, nil
}

func swapHomeserver(tx *bbolt.Tx, homeserver string, old, new []byte) (bool, error) {
	bucket, key := tx.Bucket(bucketHomeservers), appendName(nil, homeserver)
	switch {
	case !record.Agrees(bucket.Get(key), old, new):
		return false, nil
	case new == nil:
		return true, bucket.Delete(key)
	}
	return true, bucket.Put(key, new)
}

// revoke makes a write that revokes. Its revocations are journaled first, and
// become void if it did not take effect.
func (b *Store) revoke(ctx context.Context, revocations []revocation.Revocation, write func(*bbolt.Tx) (bool, error)) (bool, error) {
	j := b.cfg.Journal
	var n journal.Intent
	if j != nil && len(revocations) > 0 {
		err := b.usable(ctx)
		if entries := revocation.Journaled(revocations); err == nil && len(entries) > 0 {
			n, err = j.Begin(ctx, entries)
		}
		if err != nil {
			return false, err
		}
	}
	var done bool
	err := b.update(ctx, func(tx *bbolt.Tx) (err error) {
		if done, err = write(tx); err != nil || !done {
			return err
		}
		return b.noteJournal(tx, n.Last())
	}, nil)
	if err != nil {
		n.Abandon()
		return false, err
	}
	if j != nil {
		if err := j.Commit(ctx, n, done); err != nil {
			return false, err
		}
	}
	return done, nil
}

// update runs f in a write transaction that concurrent callers share: they wait
// up to batchDelay for each other, and then for one sync. f may be run more
// than once.
func (b *Store) update(ctx context.Context, f func(*bbolt.Tx) error, invalid error) error {
	if invalid != nil {
		return invalid
	}
	if err := b.usable(ctx); err != nil {
		return err
	}
	var commit uint64
	var refused error
	numbered := func(tx *bbolt.Tx) (err error) {
		if commit, err = nextCommit(tx); err != nil {
			return err
		}
		refused = f(tx)
		return refused
	}
	write := b.db.Batch
	if b.writers.Add(1) == 1 {
		write = b.db.Update
	}
	defer b.writers.Add(-1)
	err := write(numbered)
	if err == nil {
		b.committed(commit)
	}
	if refused == nil {
		b.probe.wrote(err)
	}
	return err
}

// nextCommit numbers the commit of a transaction. Callers that share it have
// numbers of their own.
func nextCommit(tx *bbolt.Tx) (uint64, error) {
	meta := tx.Bucket(bucketMeta)
	commit := readNumber(meta, keyCommit) + 1
	return commit, putNumber(meta, keyCommit, commit)
}

// committed records the number of a commit that is on the disk.
func (b *Store) committed(commit uint64) {
	for {
		last := b.commits.Load()
		if commit <= last || b.commits.CompareAndSwap(last, commit) {
			return
		}
	}
}

func readNumber(meta *bbolt.Bucket, key []byte) uint64 {
	if v := meta.Get(key); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func putNumber(meta *bbolt.Bucket, key []byte, n uint64) error {
	return meta.Put(key, binary.BigEndian.AppendUint64(nil, n))
}
