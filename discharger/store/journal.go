package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/discharger/discharger/discharger/revocation"
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
// own, for a [Redis] that may lose them, or for a [Bolt] in whose place an older
// copy may be put: see RedisConfig.Journal and BoltConfig.Journal. An entry is on
// the disk when Add returns; entries that come at the same time share a sync. Its
// methods may be called concurrently.
//
// In the file, numbers are keys, so that the oldest entries come first. They have
// no holes, and each row has a checksum. What the process knows to be there of
// revocations that took effect is not written again: repeating a logout a
// thousand times takes one entry.
//
//	entries      number(8)  a row: journal_entry.go
//	state        "state"    which numbers there are, and what of a Bolt is known: journal_state.go
//	checkpoints  number(8)  a commit of a Bolt: journal_state.go
//	primaries    those that are known to have all of the entries
type Journal struct {
	cfg  JournalConfig
	work chan *journalWork
	stop chan struct{}
	done sync.WaitGroup

	settled settled

	mu      sync.RWMutex // of all below
	db      *bbolt.DB
	state   journalState
	damage  *JournalDamage
	unsafe  bool           // bbolt must not read it
	pending []*journalWork // whose revocations may still come to be, the oldest first
	commits func() uint64  // the last commit of the Bolt that the journal belongs to; nil: there is none
	checked time.Time      // when the last checkpoint was made

	entries, size atomic.Int64
	added         atomic.Uint64
	dropped       atomic.Uint64
}

var (
	bucketEntries     = []byte("entries")
	bucketPrimaries   = []byte("primaries")
	bucketState       = []byte("state")
	bucketCheckpoints = []byte("checkpoints")
)

const (
	journalWindow  = 24 * time.Hour
	journalEntries = 1_000_000
)

// ErrJournalInUse is returned for a file that another process has open.
var ErrJournalInUse = errors.New("another process has the journal open")

// OpenJournal opens the file, or makes it. A file in which anything is damaged
// is opened as long as it can be read at all: see [Journal.Damage].
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
	damage := checkPages(j.cfg.Path)
	j.unsafe = damage != nil && !errors.Is(damage, errRoot)
	db, err := bbolt.Open(j.cfg.Path, 0o600, &bbolt.Options{
		Timeout: j.cfg.LockWait, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return ErrJournalInUse
	}
	if err != nil {
		return explain(err)
	}
	j.db = db
	if damage != nil {
		j.damage = &JournalDamage{Path: j.cfg.Path, Err: damage}
	} else if err := j.read(); err != nil {
		return errors.Join(err, db.Close())
	}
	if j.damage != nil {
		return nil // it is left as it is
	}
	err = db.Update(j.prepare)
	if err == nil {
		err = syncDir(filepath.Dir(j.cfg.Path))
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	return nil
}

// prepare makes what is missing of a file that is new or of an earlier version.
func (j *Journal) prepare(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketEntries, bucketPrimaries, bucketState, bucketCheckpoints} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	if j.state.next == 0 {
		entries := tx.Bucket(bucketEntries)
		next := entries.Sequence() + 1
		j.state = journalState{numbered: next, first: next, next: next}
		if key, _ := entries.Cursor().First(); len(key) == 8 {
			j.state.first = binary.BigEndian.Uint64(key)
		}
		if _, err := io.ReadFull(rand.Reader, j.state.journal[:]); err != nil {
			return err
		}
	}
	j.size.Store(tx.Size())
	return tx.Bucket(bucketState).Put(keyState, j.state.encode())
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
	add     []revocation.Revocation
	pending bool     // the revocations have not been made yet
	void    []uint64 // numbers whose revocations did not take place
	check   bool     // make a checkpoint
	clear   bool     // remove all entries

	numbers []uint64 // of what was added
	settled atomic.Bool
	done    chan error // with room for one
}

// Add writes entries and returns when they are on the disk. When an error is
// returned, they may be there or not.
func (j *Journal) Add(ctx context.Context, entries ...revocation.Revocation) error {
	n, err := j.note(ctx, entries)
	if err == nil {
		j.settled.add(n.entries, j.cfg.Now(), j.cfg.Window/4)
	}
	return err
}

// note is what was written of a revocation whose outcome is not known yet.
type note struct {
	entries []revocation.Revocation
	work    *journalWork // nil: nothing was written
}

// last returns the greatest number of a note, 0 for none.
func (n *note) last() uint64 {
	if n.work == nil || len(n.work.numbers) == 0 {
		return 0
	}
	return n.work.numbers[len(n.work.numbers)-1]
}

// note writes the entries of a revocation that is about to be made.
func (j *Journal) note(ctx context.Context, entries []revocation.Revocation) (note, error) {
	n := note{entries: j.settled.without(entries, j.cfg.Now(), j.cfg.Window/4)}
	if len(n.entries) == 0 {
		return n, nil
	}
	w := &journalWork{add: n.entries, pending: true}
	if err := j.do(ctx, w); err != nil {
		w.settled.Store(true) // it may be writing yet, but the revocation is not made
		return note{entries: n.entries}, err
	}
	n.work = w
	return n, nil
}

// settle says what became of a revocation. One that is known not to have taken
// effect is made void; of one of which nothing is known, nothing is to be said.
func (j *Journal) settle(ctx context.Context, n note, done bool) error {
	if n.work == nil {
		return nil
	}
	if done {
		n.work.settled.Store(true)
		j.settled.add(n.entries, j.cfg.Now(), j.cfg.Window/4)
		return nil
	}
	err := j.do(ctx, &journalWork{void: n.work.numbers})
	n.work.settled.Store(true)
	return err
}

// leave says that a revocation has been made or never will be, and nothing else.
func (n *note) leave() {
	if n.work != nil {
		n.work.settled.Store(true)
	}
}

func (j *Journal) do(ctx context.Context, w *journalWork) error {
	if err := j.Damage(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
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

// All returns the entries whose time is not over, the oldest first. If anything
// is damaged, the error is a [*JournalDamage].
func (j *Journal) All() ([]revocation.Revocation, error) {
	oldest := j.cfg.Now().Add(-j.cfg.Window).UnixMilli()
	out, err := j.collect(0, func(r *row) bool { return r.added > oldest })
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return out, nil
}

// since returns the entries from a number on.
func (j *Journal) since(number uint64) ([]revocation.Revocation, error) {
	out, err := j.collect(number, func(*row) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return out, nil
}

func (j *Journal) collect(from uint64, keep func(*row) bool) (out []revocation.Revocation, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.damage == nil {
		var state journalState
		state, j.damage = j.scan(func(number uint64, r *row) {
			if number >= from && !r.void && keep(r) {
				out = append(out, r.entry)
			}
		})
		if j.damage == nil && state != j.state {
			j.damage = &JournalDamage{Path: j.cfg.Path, Err: errors.New("its state is another one than was written last")}
		}
	}
	if j.damage != nil {
		return nil, j.damage
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
	if err := j.Damage(); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.readPrimaries()
}

// readPrimaries reads them. The journal is locked.
func (j *Journal) readPrimaries() (out map[string]bool, err error) {
	err = guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketPrimaries).ForEach(func(name, _ []byte) error {
				if out == nil {
					out = make(map[string]bool)
				}
				out[string(name)] = true
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return out, nil
}

// setPrimaries notes which primaries have all that is in the journal.
func (j *Journal) setPrimaries(names map[string]bool) error {
	if err := j.Damage(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
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
