package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/backup"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
)

// Restore makes the file of a [Bolt] from a backup. Nothing is there, or
// changed, before the new file is complete. Sessions that were minted before the
// restore and have no record are refused as lost from then on, softly, and so are
// those with a record unless the journal vouches for them. The file gets the
// identity of the store that the backup was made of.
func Restore(ctx context.Context, cfg Config, from *backup.Backup) (*backup.Restored, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	r, err := restore(ctx, cfg, from)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", cfg.Path, err)
	}
	return r, nil
}

func restore(ctx context.Context, cfg Config, from *backup.Backup) (out *backup.Restored, err error) {
	if _, err := os.Lstat(cfg.Path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(backup.ErrExists, err)
	}
	var first uint64
	out = &backup.Restored{Losses: store.Losses{Missing: cfg.now().UnixMilli(), All: from.All}}
	if cfg.Journal != nil {
		if first, out.Vouched, err = backup.Vouches(cfg.Journal, from); err != nil {
			return nil, err
		}
	}
	if !out.Vouched {
		out.Losses.All = max(from.All, from.At+1) // activations are kept to the second
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
	if err := boltfile.SyncDir(filepath.Dir(final)); err != nil {
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

// MoveAside gives a store's file another name, which it returns, unless a process
// has it open.
func MoveAside(path string, now time.Time) (aside string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("move store aside: %w", err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", fmt.Errorf("move store %s aside: %w", path, boltfile.ErrInUse)
	}
	aside = fmt.Sprintf("%s.replaced-%d", path, now.UnixMilli())
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("move store aside: %w", err)
	}
	return aside, boltfile.SyncDir(filepath.Dir(path))
}

// fillAtOnce is how many records one transaction writes.
const fillAtOnce = 5000

// fill writes everything into a new file, and syncs it.
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
	err = b.db.View(func(tx *bbolt.Tx) error {
		b.readMeta(tx.Bucket(bucketMeta))
		return nil
	})
	return errors.Join(err, b.db.Sync())
}

func (b *Store) put(tx *bbolt.Tx, r *backup.Record) error {
	switch r.Kind {
	case backup.User, backup.Session:
		return tx.Bucket(bucketRecords).Put(append(userPrefix(r.User), r.Session[:]...), r.Row)
	case backup.Device:
		return tx.Bucket(bucketDevices).Put(append(userPrefix(r.User), r.Device[:]...), r.Row)
	case backup.Homeserver:
		return tx.Bucket(bucketHomeservers).Put(appendName(nil, r.User.Homeserver), r.Row)
	}
	until, data, err := record.SplitEvent(r.Row)
	if err != nil {
		return err
	}
	return b.appendEvents(tx, r.User.Homeserver, []revocation.Line{{Data: data, Until: until}})
}
