package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
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
func (b *Store) Load(ctx context.Context, user store.UserKey, session caveat.SessionID, device revocation.DeviceTag) (v store.View, err error) {
	defer wrap(&err, "load session")
	err = b.view(ctx, func(tx *bbolt.Tx) (err error) {
		now, prefix := b.cfg.now(), userPrefix(user)
		if v.User, err = readRow(tx, prefix, caveat.SessionID{}, revocation.DeviceTag{}, now); err != nil {
			return err
		}
		if session != (caveat.SessionID{}) {
			if v.Session, err = readRow(tx, prefix, session, revocation.DeviceTag{}, now); err != nil {
				return err
			}
		}
		if device != (revocation.DeviceTag{}) {
			if v.Device, err = readRow(tx, prefix, caveat.SessionID{}, device, now); err != nil {
				return err
			}
		}
		v.Homeserver, v.Losses = readHomeserver(tx, user.Homeserver), b.Losses() // of the store that is usable now
		return nil
	}, limits.CheckUser(user))
	return v, err
}

// List reads a user's record and those of the user's sessions and devices.
func (b *Store) List(ctx context.Context, user store.UserKey) (l store.Listing, err error) {
	defer wrap(&err, "list sessions")
	err = b.view(ctx, func(tx *bbolt.Tx) (err error) {
		l, err = listRows(tx, user, b.cfg.now())
		return err
	}, limits.CheckUser(user))
	return l, err
}

func listRows(tx *bbolt.Tx, user store.UserKey, now time.Time) (l store.Listing, err error) {
	l = store.Listing{Sessions: make(map[caveat.SessionID][]byte), Devices: make(map[revocation.DeviceTag][]byte)}
	prefix := userPrefix(user)
	if l.User, err = readRow(tx, prefix, caveat.SessionID{}, revocation.DeviceTag{}, now); err != nil {
		return l, err
	}
	c := tx.Bucket(bucketRecords).Cursor()
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

// view runs f in a read transaction.
func (b *Store) view(ctx context.Context, f func(*bbolt.Tx) error, invalid error) error {
	if err := cmp.Or(invalid, b.usable(ctx)); err != nil {
		return err
	}
	return b.db.View(f)
}

// rowAt returns the bucket and the key of the row of a session, of a device, or,
// if both are zero, of the user. The key shares the capacity of the prefix, and is
// valid until the next call.
func rowAt(tx *bbolt.Tx, prefix []byte, session caveat.SessionID, device revocation.DeviceTag) (*bbolt.Bucket, []byte) {
	if device != (revocation.DeviceTag{}) {
		return tx.Bucket(bucketDevices), append(prefix, device[:]...)
	}
	return tx.Bucket(bucketRecords), append(prefix, session[:]...)
}

// readRow copies the record of such a row, nil if it has expired. The records of a
// user and of devices stay as long as any of the user's sessions.
func readRow(tx *bbolt.Tx, prefix []byte, session caveat.SessionID, device revocation.DeviceTag, now time.Time) ([]byte, error) {
	bucket, key := rowAt(tx, prefix, session, device)
	row := bucket.Get(key)
	if row == nil {
		return nil, nil
	}
	e, record, err := record.SplitRow(row)
	if err != nil {
		return nil, err
	}
	if e.Passed(now) {
		if session != (caveat.SessionID{}) {
			return nil, nil
		}
		if live, err := liveSession(tx.Bucket(bucketRecords), prefix, now); err != nil || !live {
			return nil, err
		}
	}
	return bytes.Clone(record), nil
}

// readHomeserver copies a homeserver's record, nil for none.
func readHomeserver(tx *bbolt.Tx, homeserver string) []byte {
	return bytes.Clone(tx.Bucket(bucketHomeservers).Get(appendName(nil, homeserver)))
}

// Swap makes all of a write's changes or none. Concurrent writes share a commit.
func (b *Store) Swap(ctx context.Context, w store.Write) (done bool, err error) {
	defer wrap(&err, "swap")
	return b.write(ctx, w.User.Homeserver, w.Revocations, limits.CheckWrite(w), func(tx *bbolt.Tx) (bool, error) {
		return swapRows(tx, w, b.cfg.now())
	})
}

// swapRows compares all records before the first change.
func swapRows(tx *bbolt.Tx, w store.Write, now time.Time) (bool, error) {
	prefix := userPrefix(w.User)
	due := make([]store.Change, 0, len(w.Changes))
	for _, c := range w.Changes {
		current, err := readRow(tx, prefix, c.Session, c.Device, now)
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
		bucket, key := rowAt(tx, prefix, c.Session, c.Device)
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
func (b *Store) SwapHomeserver(ctx context.Context, homeserver string, old, new []byte, revocations ...revocation.Revocation) (done bool, err error) {
	defer wrap(&err, "swap record of homeserver")
	return b.write(ctx, homeserver, revocations, limits.CheckHomeserverSwap(homeserver, old, new), func(tx *bbolt.Tx) (bool, error) {
		return swapHomeserver(tx, homeserver, old, new)
	})
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

// write makes a swap and publishes its revocations in one transaction. They are
// journaled first, and their entries become void if the swap has no effect.
func (b *Store) write(ctx context.Context, homeserver string, revocations []revocation.Revocation, invalid error, swap func(*bbolt.Tx) (bool, error)) (done bool, err error) {
	events, err := revocation.Lines(revocations)
	if err := errors.Join(err, invalid); err != nil {
		return false, err
	}
	j := b.cfg.Journal
	var n journal.Intent
	if entries := revocation.Journaled(revocations); j != nil && len(entries) > 0 {
		if err := b.usable(ctx); err != nil {
			return false, err
		}
		if n, err = j.Begin(ctx, entries); err != nil {
			return false, err
		}
	}
	err = b.update(ctx, func(tx *bbolt.Tx) (err error) {
		if done, err = swap(tx); err != nil || !done {
			return err
		}
		return errors.Join(b.appendEvents(tx, homeserver, events), b.noteJournal(tx, n.Last()))
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
	if done {
		b.wakes.wake(homeserver, events)
	}
	return done, nil
}

// update runs f in a write transaction that concurrent callers share: they wait up to
// batchDelay for each other, and then for one sync. f may be run more than once.
func (b *Store) update(ctx context.Context, f func(*bbolt.Tx) error, invalid error) error {
	if err := cmp.Or(invalid, b.usable(ctx)); err != nil {
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
