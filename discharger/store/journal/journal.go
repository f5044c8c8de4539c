package journal

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

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/revocation"
)

// Config says where a [Journal] is. Path is required.
type Config struct {
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
	cfg  Config
	work chan *journalWork
	stop chan struct{}
	done sync.WaitGroup

	closed  sync.Once
	settled settled

	mu      sync.RWMutex // of all below
	db      *bbolt.DB
	state   journalState
	damage  *DamageError
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

// ErrInUse is returned for a file that another process has open.
var ErrInUse = errors.New("another process has the journal open")

// Open opens the file, or makes it. A file in which anything is damaged
// is opened as long as it can be read at all: see [Journal.Damage].
func Open(cfg Config) (*Journal, error) {
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
	if err := boltfile.Guard(j.open); err != nil {
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
		return ErrInUse
	}
	if err != nil {
		return boltfile.Explain(err)
	}
	j.db = db
	if damage != nil {
		j.damage = &DamageError{Path: j.cfg.Path, Err: damage}
	} else if err := j.read(); err != nil {
		return errors.Join(err, db.Close())
	}
	if j.damage != nil {
		return nil // it is left as it is
	}
	err = db.Update(j.prepare)
	if err == nil {
		err = boltfile.SyncDir(filepath.Dir(j.cfg.Path))
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
// or be called after it, except Close.
func (j *Journal) Close() error {
	j.closed.Do(func() { close(j.stop) })
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
	n, err := j.Note(ctx, entries)
	if err == nil {
		j.settled.add(n.Entries, j.cfg.Now(), j.cfg.Window/4)
	}
	return err
}

// Note is what was written of a revocation whose outcome is not known yet.
type Note struct {
	Entries []revocation.Revocation
	work    *journalWork // nil: nothing was written
}

// Last returns the greatest number of a note, 0 for none.
func (n *Note) Last() uint64 {
	if n.work == nil || len(n.work.numbers) == 0 {
		return 0
	}
	return n.work.numbers[len(n.work.numbers)-1]
}

// Note writes the entries of a revocation that is about to be made.
func (j *Journal) Note(ctx context.Context, entries []revocation.Revocation) (Note, error) {
	n := Note{Entries: j.settled.without(entries, j.cfg.Now(), j.cfg.Window/4)}
	if len(n.Entries) == 0 {
		return n, nil
	}
	w := &journalWork{add: n.Entries, pending: true}
	if err := j.do(ctx, w); err != nil {
		w.settled.Store(true) // it may be writing yet, but the revocation is not made
		return Note{Entries: n.Entries}, err
	}
	n.work = w
	return n, nil
}

// Settle says what became of a revocation. One that is known not to have taken
// effect is made void; of one of which nothing is known, nothing is to be said.
func (j *Journal) Settle(ctx context.Context, n Note, done bool) error {
	if n.work == nil {
		return nil
	}
	if done {
		n.work.settled.Store(true)
		j.settled.add(n.Entries, j.cfg.Now(), j.cfg.Window/4)
		return nil
	}
	err := j.do(ctx, &journalWork{void: n.work.numbers})
	n.work.settled.Store(true)
	return err
}

// Leave says that a revocation has been made or never will be, and nothing else.
func (n *Note) Leave() {
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
	oldest := j.Oldest()
	out, err := j.collect(0, func(r *row) bool { return r.added > oldest })
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return out, nil
}

// Since returns the entries from a number on.
func (j *Journal) Since(number uint64) ([]revocation.Revocation, error) {
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
			j.damage = &DamageError{Path: j.cfg.Path, Err: errors.New("its state is another one than was written last")}
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
	other, err := Open(cfg)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	all, err := other.All()
	if err != nil || len(all) == 0 {
		return 0, err
	}
	if err := j.SetPrimaries(nil); err != nil {
		return 0, err
	}
	if err := j.do(ctx, &journalWork{add: all}); err != nil {
		return 0, err
	}
	return len(all), other.do(ctx, &journalWork{clear: true})
}
