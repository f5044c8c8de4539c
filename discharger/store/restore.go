package store

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

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
)

// Restored is the result of a restore.
type Restored struct {
	// Vouched is set if the journal has all revocations since the backup was
	// made. Otherwise every session that was activated before needs a new login.
	Vouched bool

	// Again are the revocations that the backup lacked, and the journal had.
	Again []revocation.Revocation

	Losses session.Losses // as they were recorded
}

// ErrStoreExists is returned by [RestoreBolt] if there is a file already.
var ErrStoreExists = errors.New("there is a store already")

// RestoreBolt makes the file of a [Bolt] from a backup. Nothing is there, or
// changed, before the new file is complete. Sessions that were minted before the
// restore and have no record are refused as lost from then on, softly, and so are
// those with a record unless the journal vouches for them. The file gets the
// identity of the store that the backup was made of.
func RestoreBolt(ctx context.Context, cfg BoltConfig, from *Backup) (*Restored, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	r, err := restoreBolt(ctx, cfg, from)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", cfg.Path, err)
	}
	return r, nil
}

func restoreBolt(ctx context.Context, cfg BoltConfig, from *Backup) (out *Restored, err error) {
	if _, err := os.Lstat(cfg.Path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(ErrStoreExists, err)
	}
	var first uint64
	out = &Restored{Losses: session.Losses{Missing: cfg.Now().UnixMilli(), All: from.All}}
	if cfg.Journal != nil {
		if first, out.Vouched, err = cfg.Journal.vouches(from); err != nil {
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
	b := &Bolt{cfg: cfg, id: from.Store}
	err = guard(func() error {
		b.db, err = bbolt.Open(cfg.Path, 0o600, b.options(false))
		return err
	})
	if err != nil {
		return nil, err
	}
	err = b.fill(from, out, first)
	if err := errors.Join(err, b.db.Close(), ctx.Err()); err != nil {
		return nil, err
	}
	if err := os.Link(cfg.Path, final); err != nil { // which replaces nothing
		return nil, err
	}
	if err := syncDir(filepath.Dir(final)); err != nil {
		return nil, err
	}
	if err := remember(cfg.Marker, b.id); err != nil {
		return nil, err
	}
	if cfg.Journal != nil {
		defer cfg.Journal.detach()
		return out, cfg.Journal.attach(ctx, b.id, b.commits.Load, !out.Vouched)
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
		return "", fmt.Errorf("move store %s aside: %w", path, ErrStoreInUse)
	}
	aside = fmt.Sprintf("%s.replaced-%d", path, now.UnixMilli())
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("move store aside: %w", err)
	}
	return aside, syncDir(filepath.Dir(path))
}

// vouches reports whether the journal has everything since a backup, and from
// which number on. Without that, all that it has is replayed.
func (j *Journal) vouches(from *Backup) (first uint64, ok bool, err error) {
	if err := j.Damage(); err != nil {
		return 0, false, err
	}
	if id, _ := j.belongs(); id != from.Store {
		return 0, false, nil
	}
	return j.from(from.Commit)
}

// fillAtOnce is how many records one transaction writes.
const fillAtOnce = 5000

// fill writes everything into a new file, and syncs it.
func (b *Bolt) fill(from *Backup, out *Restored, first uint64) error {
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
	var batch []*backupRecord
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
	err = from.records(func(r *backupRecord) error {
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
		entries, err := b.cfg.Journal.since(first)
		if err != nil {
			return err
		}
		b.restored = &out.Again
		if _, err := b.replay(entries); err != nil {
			return err
		}
	}
	err = b.db.View(func(tx *bbolt.Tx) error {
		b.readMeta(tx.Bucket(bucketMeta))
		return nil
	})
	return errors.Join(err, b.db.Sync())
}

func (b *Bolt) put(tx *bbolt.Tx, r *backupRecord) error {
	switch r.kind {
	case backupUser, backupSession:
		return tx.Bucket(bucketRecords).Put(append(userPrefix(r.user), r.session[:]...), r.row)
	case backupDevice:
		return tx.Bucket(bucketDevices).Put(append(userPrefix(r.user), r.device[:]...), r.row)
	case backupHomeserver:
		return tx.Bucket(bucketHomeservers).Put(appendName(nil, r.user.Homeserver), r.row)
	}
	until, data, err := splitEvent(r.row)
	if err != nil {
		return err
	}
	return b.appendEvents(tx, r.user.Homeserver, []discharger.FeedEvent{{Data: data, Until: time.UnixMilli(until)}})
}
