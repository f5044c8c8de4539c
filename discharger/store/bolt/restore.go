package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/atomicfile"
	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/backup"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
)

// Restore creates the file of a [Store] from a backup. The file appears when it is
// complete. Sessions without a record that were minted before the restore are refused as
// lost from then on, softly, and so are those with a record if the journal does not vouch
// for the backup. The file gets the identity of the store in the backup.
func Restore(ctx context.Context, cfg Config, from *backup.Backup) (out *backup.Restored, err error) {
	defer wrap(&err, "restore "+cfg.Path)
	if cfg, err = cfg.complete(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(cfg.Path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(backup.ErrExists, err)
	}
	out, first, err := backup.Plan(cfg.Journal, from, cfg.now())
	if err != nil {
		return nil, err
	}
	final := cfg.Path
	cfg.Path += ".restoring"
	if err := os.Remove(cfg.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	defer os.Remove(cfg.Path)
	b := &Store{cfg: cfg, id: from.Store}
	if b.db, err = boltfile.Open(cfg.Path, boltfile.Options{LockTimeout: cfg.LockTimeout}); err != nil {
		return nil, err
	}
	err = b.fill(ctx, from, out, first)
	if err := errors.Join(err, b.db.Close(), ctx.Err()); err != nil {
		return nil, err
	}
	if err := os.Link(cfg.Path, final); err != nil { // which replaces nothing
		return nil, err
	}
	if err := atomicfile.SyncDir(final); err != nil {
		return nil, err
	}
	if err := marker.Remember(cfg.Marker, b.id); err != nil {
		return nil, err
	}
	if cfg.Journal != nil {
		defer cfg.Journal.Detach()
		return out, cfg.Journal.Attach(ctx, b.id, b.commits.Load, !out.Vouched)
	}
	return out, nil
}

// MoveAside renames the file of a store that no process has open, and returns the
// new name.
func MoveAside(path string, now time.Time) (aside string, err error) {
	defer wrap(&err, "move store aside")
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", fmt.Errorf("%s: %w", path, boltfile.ErrInUse)
	}
	aside = fmt.Sprintf("%s.replaced-%d", path, now.UnixMilli())
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, atomicfile.SyncDir(path)
}

// fillAtOnce is how many records one transaction writes.
const fillAtOnce = 5000

// fill writes the backup into a new file, replays the journal, and syncs the file.
func (b *Store) fill(ctx context.Context, from *backup.Backup, out *backup.Restored, first uint64) error {
	b.db.NoSync = true
	err := b.db.Update(func(tx *bbolt.Tx) error {
		if err := makeBuckets(tx, from.Store, out.Losses); err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta)
		return errors.Join(putNumber(meta, keyCommit, from.Commit), b.branch(meta))
	})
	if err != nil {
		return err
	}
	var batch []*backup.Record
	write := func() error {
		defer func() { batch = batch[:0] }()
		return b.db.Update(func(tx *bbolt.Tx) error {
			for _, r := range batch {
				if err := b.put(tx, r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = from.Records(func(r *backup.Record) error {
		if batch = append(batch, r); len(batch) < fillAtOnce {
			return nil
		}
		return write()
	})
	if err := errors.Join(err, write()); err != nil {
		return err
	}
	b.losses.Store(&out.Losses)
	if b.cfg.Journal != nil {
		entries, err := b.cfg.Journal.Since(first)
		if err != nil {
			return err
		}
		done, err := b.replay(ctx, entries)
		if err != nil {
			return err
		}
		out.Again = done.Restored
	}
	return errors.Join(b.readMeta(), b.db.Sync())
}

// put writes one record of a backup.
func (b *Store) put(tx *bbolt.Tx, r *backup.Record) error {
	switch r.Kind {
	case backup.User, backup.Session, backup.Device:
		bucket, key := rowAt(tx, userPrefix(r.User), r.Session, r.Device)
		return bucket.Put(key, r.Row)
	case backup.Homeserver:
		return tx.Bucket(bucketHomeservers).Put(appendName(nil, r.User.Homeserver), r.Row)
	}
	until, data, err := record.SplitEvent(r.Row)
	if err != nil {
		return err
	}
	return b.appendEvents(tx, r.User.Homeserver, []revocation.Line{{Data: data, Until: until}})
}
