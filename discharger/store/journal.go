package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/discharger/discharger/discharger"
)

// JournalConfig says where a [Journal] is. Path is required.
type JournalConfig struct {
	Path       string        // of a file of this process's own; it is made if it is not there
	LockWait   time.Duration // how long to wait for another process to leave it; 0: 5 s
	Window     time.Duration // how long entries are kept; 0: 24 h
	MaxEntries int           // beyond that, the oldest go before their time; 0: 1 000 000, of about 200 bytes each

	Log *slog.Logger     // nil: nothing is logged
	Now func() time.Time // nil: time.Now
}

// Journal keeps the revocations that a process has ordered, in a file of its
// own, for a [Redis] that may lose them: see RedisConfig.Journal. An entry is
// on the disk when Add returns; entries that come at the same time share a
// sync. Its methods may be called concurrently.
//
// In the file, sequence numbers are keys, so that the oldest entries come
// first. What the process knows to be there of revocations that took effect is
// not written again: repeating a logout a thousand times takes one entry.
//
//	entries    sequence(8)    added at(8, Unix ms) entry
//	primaries  those that are known to have all of the entries
type Journal struct {
	cfg  JournalConfig
	db   *bbolt.DB
	work chan *journalWork
	stop chan struct{}
	done sync.WaitGroup

	settled settled

	entries, size atomic.Int64
	added         atomic.Uint64
	dropped       atomic.Uint64
}

var (
	bucketEntries   = []byte("entries")
	bucketPrimaries = []byte("primaries")
)

const (
	journalWindow  = 24 * time.Hour
	journalEntries = 1_000_000
)

// ErrJournalInUse is returned for a file that another process has open.
var ErrJournalInUse = errors.New("another process has the journal open")

// OpenJournal opens the file, or makes it.
func OpenJournal(cfg JournalConfig) (*Journal, error) {
	if cfg.Path == "" {
		return nil, errors.New("open journal: no path")
	}
	if cfg.Window < 0 || cfg.MaxEntries < 0 || cfg.LockWait < 0 {
		return nil, errors.New("open journal: a number is negative")
	}
	if cfg.Window == 0 {
		cfg.Window = journalWindow
	}
	if cfg.LockWait == 0 {
		cfg.LockWait = 5 * time.Second
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = journalEntries
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	j := &Journal{cfg: cfg, work: make(chan *journalWork), stop: make(chan struct{})}
	if err := guard(j.open); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", cfg.Path, err)
	}
	j.done.Go(j.write)
	return j, nil
}

func (j *Journal) open() error {
	db, err := bbolt.Open(j.cfg.Path, 0o600, &bbolt.Options{
		Timeout: j.cfg.LockWait, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return ErrJournalInUse
	}
	if err != nil {
		return explain(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketEntries, bucketPrimaries} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		j.entries.Store(int64(tx.Bucket(bucketEntries).Stats().KeyN))
		j.size.Store(tx.Size())
		return nil
	})
	if err == nil {
		err = syncDir(filepath.Dir(j.cfg.Path))
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	j.db = db
	return nil
}

// Close ends the writing and closes the file. No other method may be running
// or be called after it.
func (j *Journal) Close() error {
	close(j.stop)
	j.done.Wait()
	return j.db.Close()
}

// journalWork is what one caller wants written.
type journalWork struct {
	add    []discharger.JournalEntry
	forget [][]byte   // keys
	keys   [][]byte   // of what was added
	clear  bool       // forget everything
	done   chan error // with room for one
}

// Add writes entries and returns when they are on the disk. When an error is
// returned, they may be there or not.
func (j *Journal) Add(ctx context.Context, entries ...discharger.JournalEntry) error {
	n, err := j.note(ctx, entries)
	if err == nil {
		j.settled.add(n.entries, j.cfg.Now(), j.cfg.Window/4)
	}
	return err
}

// note is what was written of a revocation whose outcome is not known yet.
type note struct {
	entries []discharger.JournalEntry
	keys    [][]byte
}

// note writes the entries of a revocation that is about to be made.
func (j *Journal) note(ctx context.Context, entries []discharger.JournalEntry) (note, error) {
	n := note{entries: j.settled.without(entries, j.cfg.Now(), j.cfg.Window/4)}
	if len(n.entries) == 0 {
		return n, nil
	}
	w := &journalWork{add: n.entries}
	if err := j.do(ctx, w); err != nil {
		return n, err // it may be writing yet: its keys are not ours to read
	}
	n.keys = w.keys
	return n, nil
}

// settle says what became of a revocation. One that is known not to have taken
// effect is taken out again; of one of which nothing is known, nothing is to
// be said.
func (j *Journal) settle(ctx context.Context, n note, done bool) error {
	switch {
	case len(n.entries) == 0:
		return nil
	case done:
		j.settled.add(n.entries, j.cfg.Now(), j.cfg.Window/4)
		return nil
	}
	return j.do(ctx, &journalWork{forget: n.keys})
}

func (j *Journal) do(ctx context.Context, w *journalWork) error {
	w.done = make(chan error, 1)
	select {
	case j.work <- w:
	case <-ctx.Done():
		return fmt.Errorf("write journal: %w", ctx.Err())
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("write journal: %w", ctx.Err())
	}
}

// All returns the entries whose time is not over, the oldest first.
func (j *Journal) All() ([]discharger.JournalEntry, error) {
	var out []discharger.JournalEntry
	oldest := j.cfg.Now().Add(-j.cfg.Window).UnixMilli()
	err := guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketEntries).ForEach(func(_, value []byte) error {
				at, e, err := decodeEntry(value)
				if err == nil && at > oldest {
					out = append(out, e)
				}
				return err
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return out, nil
}

// Adopt takes over the entries of a journal that a process left behind which
// is no more, and empties that. It is to be called before a store is opened
// with j, which then makes up for what is missing.
func (j *Journal) Adopt(ctx context.Context, path string) (entries int, err error) {
	cfg := j.cfg
	cfg.Path = path
	other, err := OpenJournal(cfg)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	all, err := other.All()
	if err != nil || len(all) == 0 {
		return 0, err
	}
	if err := j.setPrimaries(nil); err != nil {
		return 0, err
	}
	if err := j.do(ctx, &journalWork{add: all}); err != nil {
		return 0, err
	}
	return len(all), other.do(ctx, &journalWork{clear: true})
}

// primaries returns what setPrimaries was told last, nil if it never was.
func (j *Journal) primaries() (map[string]bool, error) {
	var out map[string]bool
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketPrimaries).ForEach(func(name, _ []byte) error {
			if out == nil {
				out = make(map[string]bool)
			}
			out[string(name)] = true
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return out, nil
}

// setPrimaries notes which primaries have all that is in the journal.
func (j *Journal) setPrimaries(names map[string]bool) error {
	err := guard(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			if err := tx.DeleteBucket(bucketPrimaries); err != nil {
				return err
			}
			b, err := tx.CreateBucket(bucketPrimaries)
			if err != nil {
				return err
			}
			for name := range names {
				if err := b.Put([]byte(name), []byte{}); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}
