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

// A new file records when it was made, and every loss that an operator accepts
// is recorded in it. A file of an earlier version has no record: it has lost
// nothing.

type losses = store.Losses

// lostErr is the reason why the data must not be used.
type lostErr struct{ err error }

func (b *Store) lose(why error) {
	b.lost.Store(&lostErr{fmt.Errorf("%w: %w", store.ErrLost, why)})
}

// Losses returns the recorded losses.
func (b *Store) Losses() store.Losses { return *b.losses.Load() }

// Created reports whether the file was made when it was opened.
func (b *Store) Created() bool { return b.made }

// Lost reports whether the store waits for AcceptLoss.
func (b *Store) Lost() bool { return b.lost.Load() != nil }

func (b *Store) readMeta(meta *bbolt.Bucket) {
	b.commits.Store(readNumber(meta, keyCommit))
	l := readLosses(meta)
	b.losses.Store(&l)
}

func readLosses(meta *bbolt.Bucket) losses {
	return losses{Missing: int64(readNumber(meta, keyMissing)), All: int64(readNumber(meta, keyAll))}
}

func putLosses(meta *bbolt.Bucket, l losses) error {
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
	if l := b.lost.Load(); l != nil {
		return l.err
	}
	return ctx.Err()
}

// AcceptLoss makes the file that is there the one to work with. It is an
// operator's decision: sessions that have no record in it are over, and if it may
// lack revocations, so are those that have one. Revocations that the journal has
// are made again first. All of this is recorded in the file.
func (b *Store) AcceptLoss(ctx context.Context) error {
	if b.lost.Load() == nil {
		return nil
	}
	if err := b.acceptLoss(ctx); err != nil {
		return fmt.Errorf("accept loss: %w", err)
	}
	return nil
}

func (b *Store) acceptLoss(ctx context.Context) error {
	now := b.cfg.now()
	l := losses{Missing: now.UnixMilli(), All: b.Losses().All}
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

// recordLosses writes losses, and moves the numbers of commits so far that no
// other history of this file has the same.
func (b *Store) recordLosses(l losses) error {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		return errors.Join(putLosses(meta, l), b.branch(meta))
	})
	if err != nil {
		return err
	}
	return b.db.View(func(tx *bbolt.Tx) error {
		b.readMeta(tx.Bucket(bucketMeta))
		return nil
	})
}

// probe is the result of the last write, for Ready.
type probe struct {
	mu     sync.Mutex
	at     time.Time // of the last one that Ready made
	err    error     // of that
	failed time.Time // when another write failed last, after which none succeeded
	why    error
}

const (
	probeEvery  = time.Second
	probeFailed = 10 * time.Second // for how long the failure of a write is reported
)

// wrote notes the outcome of a write.
func (p *probe) wrote(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why = err; err != nil {
		p.failed = time.Now()
	}
}

// Ready returns nil if the file is there, is the one that the marker and the
// journal name, and takes a write, which is tried at most once a second.
func (b *Store) Ready(ctx context.Context) error {
	if err := b.usable(ctx); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	now, err := os.Stat(b.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, b.file) {
		return fmt.Errorf("%w: %s was removed or replaced while in use", store.ErrLost, b.cfg.Path)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if b.cfg.Journal != nil {
		if err := b.cfg.Journal.Damage(); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if err := b.tryWrite(ctx); err != nil {
		return fmt.Errorf("store takes no writes: %w", err)
	}
	return nil
}

// tryWrite writes to the file and to the journal.
func (b *Store) tryWrite(ctx context.Context) error {
	b.probe.mu.Lock()
	defer b.probe.mu.Unlock()
	now := time.Now()
	if p := &b.probe; p.why != nil && now.Sub(p.failed) < probeFailed {
		return p.why
	}
	if now.Sub(b.probe.at) < probeEvery && !b.probe.at.IsZero() {
		return b.probe.err
	}
	b.probe.at = now
	b.probe.err = b.db.Update(func(tx *bbolt.Tx) error {
		return putNumber(tx.Bucket(bucketMeta), keyProbe, uint64(now.UnixMilli()))
	})
	if b.probe.err == nil && b.cfg.Journal != nil {
		if b.probe.err = b.cfg.Journal.Sweep(ctx); ctx.Err() != nil {
			b.probe.at = time.Time{} // it shows nothing
		}
	}
	return b.probe.err
}
