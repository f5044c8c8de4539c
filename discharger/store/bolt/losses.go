package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/marker"
)

// lose makes every operation return an error that matches [store.ErrLost].
func (b *Store) lose(why error) {
	err := fmt.Errorf("%w: %w", store.ErrLost, why)
	b.lost.Store(&err)
}

// Losses returns the recorded losses.
func (b *Store) Losses() store.Losses { return *b.losses.Load() }

// Created reports whether the file was made when it was opened.
func (b *Store) Created() bool { return b.made }

// Lost reports whether the store waits for AcceptLoss.
func (b *Store) Lost() bool { return b.lost.Load() != nil }

// readMeta reads the number of the last commit and the losses.
func (b *Store) readMeta() error {
	return b.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		b.commits.Store(readNumber(meta, keyCommit))
		l := readLosses(meta)
		b.losses.Store(&l)
		return nil
	})
}

// readLosses returns the recorded losses. Earlier versions recorded none.
func readLosses(meta *bbolt.Bucket) store.Losses {
	return store.Losses{Missing: int64(readNumber(meta, keyMissing)), All: int64(readNumber(meta, keyAll))}
}

func putLosses(meta *bbolt.Bucket, l store.Losses) error {
	var err error
	if l.Missing != 0 {
		err = putNumber(meta, keyMissing, uint64(l.Missing))
	}
	if l.All != 0 {
		err = errors.Join(err, putNumber(meta, keyAll, uint64(l.All)))
	}
	return err
}

// usable returns an error if no operation may be made.
func (b *Store) usable(ctx context.Context) error {
	if lost := b.lost.Load(); lost != nil {
		return *lost
	}
	return ctx.Err()
}

// AcceptLoss accepts the data of the file as that of the store. It is an
// operator's decision: sessions without a record are refused from then on, and, if
// the file may lack revocations, sessions with a record too. The journal is
// replayed first. The losses are recorded in the file.
func (b *Store) AcceptLoss(ctx context.Context) (err error) {
	if b.lost.Load() == nil {
		return nil
	}
	defer wrap(&err, "accept loss")
	now := b.cfg.now()
	l := store.Losses{Missing: now.UnixMilli(), All: b.Losses().All}
	if !b.made && !b.current() {
		l.All = now.Truncate(time.Second).UnixMilli() // to which activations are kept
	}
	j := b.cfg.Journal
	if j != nil {
		if err := j.Damage(); err != nil {
			if _, _, err := j.Renew(ctx); err != nil {
				return err
			}
		}
		entries, err := j.Since(0)
		if err != nil {
			return err
		}
		if _, err := b.replay(ctx, entries); err != nil {
			return err
		}
	}
	if err := b.recordLosses(l); err != nil {
		return err
	}
	if err := marker.Remember(b.cfg.Marker, b.id); err != nil {
		return err
	}
	if j != nil {
		if err := j.Attach(ctx, b.id, b.commits.Load, true); err != nil {
			return err
		}
	}
	b.lost.Store(nil)
	b.cfg.Log.LogAttrs(ctx, slog.LevelWarn,
		"loss of the store's data was accepted: older sessions are answered session_lost, and log in again",
		slog.String("path", b.cfg.Path), slog.Time("sessions_without_record_before", now), slog.Bool("also_with_record", l.All != 0))
	return nil
}

// recordLosses writes losses, and continues with commit numbers that no other
// history of this file has.
func (b *Store) recordLosses(l store.Losses) error {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		return errors.Join(putLosses(meta, l), b.branch(meta))
	})
	if err != nil {
		return err
	}
	return b.readMeta()
}

// probe holds the results of the last writes, for Ready.
type probe struct {
	mu     sync.Mutex
	at     time.Time // of the last test write
	err    error     // its result
	failed time.Time // when the last other write failed
	why    error     // its error; nil: it succeeded
}

const (
	probeEvery  = time.Second
	probeFailed = 10 * time.Second // how long the failure of a write is reported
)

// wrote records the result of a write.
func (p *probe) wrote(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why = err; err != nil {
		p.failed = time.Now()
	}
}

// Ready returns nil if the file exists, is the one that the marker and the
// journal name, and accepts a write, which is tried at most once a second.
func (b *Store) Ready(ctx context.Context) (err error) {
	defer wrap(&err, "store")
	if err := b.usable(ctx); err != nil {
		return err
	}
	now, err := os.Stat(b.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, b.file) {
		return fmt.Errorf("%w: %s was removed or replaced while in use", store.ErrLost, b.cfg.Path)
	}
	if err != nil {
		return err
	}
	if b.cfg.Journal != nil {
		if err := b.cfg.Journal.Damage(); err != nil {
			return err
		}
	}
	if err := b.tryWrite(ctx); err != nil {
		return fmt.Errorf("no write is accepted: %w", err)
	}
	return nil
}

// tryWrite tests a write to the file and to the journal.
func (b *Store) tryWrite(ctx context.Context) error {
	b.probe.mu.Lock()
	defer b.probe.mu.Unlock()
	now := time.Now()
	if b.probe.why != nil && now.Sub(b.probe.failed) < probeFailed {
		return b.probe.why
	}
	if now.Sub(b.probe.at) < probeEvery {
		return b.probe.err
	}
	b.probe.at = now
	b.probe.err = b.db.Update(func(tx *bbolt.Tx) error {
		return putNumber(tx.Bucket(bucketMeta), keyProbe, uint64(now.UnixMilli()))
	})
	if b.probe.err == nil && b.cfg.Journal != nil {
		if b.probe.err = b.cfg.Journal.Sweep(ctx); ctx.Err() != nil {
			b.probe.at = time.Time{} // the result is unknown
		}
	}
	return b.probe.err
}
