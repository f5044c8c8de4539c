package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/backup"
	"github.com/discharger/discharger/discharger/store/record"
)

// Backup writes a backup of the store as it is at one instant. Other calls run meanwhile,
// but a write that needs a larger file waits for it: w should be a file.
func (b *Store) Backup(ctx context.Context, w io.Writer) (err error) {
	defer wrap(&err, "back up store")
	return b.view(ctx, func(tx *bbolt.Tx) error { return writeBackup(ctx, tx, w, b.cfg.now()) }, nil)
}

// BackupFile writes a backup of a file that no process has open.
func BackupFile(ctx context.Context, cfg Config, w io.Writer) (err error) {
	defer wrap(&err, "back up store "+cfg.Path)
	if cfg, err = cfg.complete(); err != nil {
		return err
	}
	empty := true
	err = boltfile.Inspect(cfg.Path, cfg.LockTimeout, func(tx *bbolt.Tx) error {
		empty = false
		return writeBackup(ctx, tx, w, cfg.now())
	})
	if err == nil && empty {
		if _, err = os.Stat(cfg.Path); err == nil {
			err = errEmpty
		}
	}
	return err
}

var errEmpty = errors.New("the file is empty")

func writeBackup(ctx context.Context, tx *bbolt.Tx, w io.Writer, now time.Time) error {
	id, err := readID(tx)
	if err == nil && id == "" {
		err = errEmpty
	}
	if err != nil {
		return err
	}
	meta := tx.Bucket(bucketMeta)
	l := readLosses(meta)
	out, err := backup.NewWriter(w, backup.Header{
		Store: id, At: now.UnixMilli(), Commit: readNumber(meta, keyCommit), Missing: l.Missing, All: l.All,
	})
	if err != nil {
		return err
	}
	n := 0
	for _, c := range []struct {
		bucket []byte
		write  func(out *backup.Writer, k, v []byte, now time.Time) error
	}{{bucketRecords, backupRecord}, {bucketDevices, backupDevice}, {bucketHomeservers, backupHomeserver}} {
		bucket := tx.Bucket(c.bucket)
		if bucket == nil { // of devices, in a file of an earlier version
			continue
		}
		err := bucket.ForEach(func(k, v []byte) error {
			if n++; n%1000 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			return c.write(out, k, v, now)
		})
		if err != nil {
			return err
		}
	}
	if err := backupFeeds(out, tx, now); err != nil {
		return err
	}
	return out.End()
}

func backupHomeserver(out *backup.Writer, k, v []byte, _ time.Time) error {
	name, _, ok := cutName(k)
	if !ok {
		return record.ErrDamaged
	}
	return out.Frame(backup.Homeserver, record.AppendText(nil, name), v)
}

// backupRecord writes the row of a user or a session.
func backupRecord(out *backup.Writer, k, v []byte, now time.Time) error {
	names, id, err := cutRow(k, len(caveat.SessionID{}))
	if err != nil {
		return err
	}
	e, _, err := record.SplitRow(v)
	switch {
	case err != nil:
		return err
	case caveat.SessionID(id) == caveat.SessionID{}:
		return out.Frame(backup.User, names, v)
	case e.Passed(now):
		return nil
	}
	return out.Frame(backup.Session, names, id, v)
}

func backupDevice(out *backup.Writer, k, v []byte, _ time.Time) error {
	names, id, err := cutRow(k, len(revocation.DeviceTag{}))
	if err == nil {
		_, _, err = record.SplitRow(v)
	}
	if err != nil {
		return err
	}
	return out.Frame(backup.Device, names, id, v)
}

// cutRow returns the names in the key of a row, in the form of a backup, and the id
// after them.
func cutRow(key []byte, idLen int) (names, id []byte, err error) {
	homeserver, rest, ok := cutName(key)
	user, id, ok2 := cutName(rest)
	if !ok || !ok2 || len(id) != idLen {
		return nil, nil, record.ErrDamaged
	}
	return record.AppendText(record.AppendText(nil, homeserver), user), id, nil
}

func backupFeeds(out *backup.Writer, tx *bbolt.Tx, now time.Time) error {
	feeds := tx.Bucket(bucketFeeds)
	if feeds == nil {
		return nil
	}
	return feeds.ForEachBucket(func(k []byte) error {
		name, _, ok := cutName(k)
		if !ok {
			return record.ErrDamaged
		}
		return feeds.Bucket(k).ForEach(func(k, v []byte) error {
			until, _, err := record.SplitEvent(v)
			if _, ok := eventNumber(k); !ok || err != nil || until <= now.UnixMilli() {
				return err
			}
			return out.Frame(backup.Event, record.AppendText(nil, name), v)
		})
	})
}

// cutName takes a name off a key.
func cutName(key []byte) (name string, rest []byte, ok bool) {
	if len(key) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(key))
	if len(key) < 2+n {
		return "", nil, false
	}
	return string(key[2 : 2+n]), key[2+n:], true
}
