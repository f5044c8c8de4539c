// Package journal keeps the revocations of one process in a file of its own, so
// that they can be made again in a store that lost them: a Redis after a failover,
// or a bbolt file in whose place an older copy was put.
//
// An entry is on the disk when [Journal.Add] or [Journal.Begin] returns; entries
// that come at the same time share a sync. Entries are removed after the window,
// a day by default. The journal makes no revocation and reads no record: it
// returns its entries, and a replay above the store applies them.
//
// # The file
//
// The file is a bbolt file:
//
//	bucket         key        value
//	"entries"      number(8)  a row, see row.go
//	"state"        "state"    the numbers in use, and the bbolt store the journal belongs to, see state.go
//	"checkpoints"  number(8)  a commit of the bbolt store, see state.go
//	"primaries"    identity   empty: a primary that has all entries
//	"beats"        key        id of the newest heartbeat that the process has seen
//
// Numbers are keys, big-endian, so the oldest entries come first. They are
// consecutive, and each row has a checksum. A missing number or a wrong checksum
// is a [DamageError]. Nothing is written to a damaged journal; [Journal.Renew]
// puts it aside and starts another one with the entries that can be read.
//
// # The life of an entry
//
//	Begin ──▶ pending ──▶ committed      Commit(true): the revocation took effect
//	              ├─────▶ void           Commit(false): it did not
//	              └─────▶ abandoned      Abandon: unknown, a replay makes it
//
// A pending entry holds back checkpoints. A committed entry is remembered, and a
// repeated revocation adds no second entry.
package journal

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// Config configures a [Journal]. Path is required.
type Config struct {
	Path       string        // a file of this process; created if it does not exist
	LockWait   time.Duration // how long to wait for another process to close it; 0: 5 s
	Window     time.Duration // how long entries are kept; 0: 24 h
	MaxEntries int           // the oldest entries above it are dropped; 0: 1 000 000, of about 200 bytes each

	Log *slog.Logger // nil: nothing is logged

	now func() time.Time
}

// WithClock returns the configuration with another clock than time.Now.
func (cfg Config) WithClock(now func() time.Time) Config {
	cfg.now = now
	return cfg
}

// Journal is an open journal. Its methods may be called concurrently.
type Journal struct {
	cfg    Config
	work   chan *work
	stop   chan struct{}
	closed sync.Once
	done   sync.WaitGroup
	recent recent

	mu      sync.RWMutex // of the fields below
	db      *boltfile.DB
	state   state
	damage  *DamageError
	unsafe  bool          // bbolt must not read the file
	pending []*work       // whose revocations are pending, the oldest first
	commits func() uint64 // the last commit of the bbolt store the journal belongs to; nil: none
	checked time.Time     // when the last checkpoint was made

	entries, size  atomic.Int64
	added, dropped atomic.Uint64
}

var (
	bucketEntries     = []byte("entries")
	bucketPrimaries   = []byte("primaries")
	bucketState       = []byte("state")
	bucketCheckpoints = []byte("checkpoints")
)

// ErrInUse is returned for a journal that another process has open.
var ErrInUse = errors.New("another process has the journal open")

// Open opens a journal, or creates it. A damaged journal is opened if any of it
// can be read: see [Journal.Damage].
func Open(cfg Config) (*Journal, error) {
	if cfg.Path == "" {
		return nil, errors.New("open journal: path is empty")
	}
	if cfg.Window < 0 || cfg.MaxEntries < 0 || cfg.LockWait < 0 {
		return nil, errors.New("open journal: a number is negative")
	}
	cfg.Window = cmp.Or(cfg.Window, 24*time.Hour)
	cfg.LockWait = cmp.Or(cfg.LockWait, 5*time.Second)
	cfg.MaxEntries = cmp.Or(cfg.MaxEntries, 1_000_000)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if cfg.now == nil {
		cfg.now = time.Now
	}
	j := &Journal{cfg: cfg, work: make(chan *work), stop: make(chan struct{})}
	if err := j.open(); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", cfg.Path, err)
	}
	j.done.Go(j.write)
	return j, nil
}

func (j *Journal) open() error {
	damage := boltfile.Check(j.cfg.Path)
	j.unsafe = damage != nil && !errors.Is(damage, boltfile.ErrRoot)
	db, err := boltfile.Open(j.cfg.Path, boltfile.Options{LockTimeout: j.cfg.LockWait})
	if errors.Is(err, boltfile.ErrInUse) {
		return ErrInUse
	}
	if err != nil {
		return err
	}
	j.db = db
	if damage != nil {
		j.damage = &DamageError{Path: j.cfg.Path, Err: damage}
	} else {
		live := int64(0)
		j.state, j.damage = j.scan(func(_ uint64, r *row) {
			if !r.void {
				live++
			}
		})
		j.entries.Store(live)
	}
	if j.damage != nil {
		return nil // the file is left unchanged
	}
	if err := db.Update(j.prepare); err != nil {
		return errors.Join(err, db.Close())
	}
	return nil
}

// prepare completes a file that is new or of an earlier version.
func (j *Journal) prepare(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketEntries, bucketPrimaries, bucketState, bucketCheckpoints} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	if j.state.next == 0 {
		entries := tx.Bucket(bucketEntries)
		next := entries.Sequence() + 1
		j.state = state{numbered: next, first: next, next: next}
		if key, _ := entries.Cursor().First(); len(key) == 8 {
			j.state.first = binary.BigEndian.Uint64(key)
		}
		rand.Read(j.state.journal[:])
	}
	j.size.Store(tx.Size())
	return tx.Bucket(bucketState).Put(keyState, j.state.encode())
}

// Close ends the writing and closes the file. No other method may be running or
// be called after it, except Close.
func (j *Journal) Close() error {
	j.closed.Do(func() { close(j.stop) })
	j.done.Wait()
	return j.db.Close()
}

// All returns the entries within the window, the oldest first. The error for a
// damaged journal is a [*DamageError].
func (j *Journal) All() ([]revocation.Revocation, error) {
	oldest := j.Oldest()
	return j.collect(0, func(r *row) bool { return r.added > oldest })
}

// Since returns the entries from a number on.
func (j *Journal) Since(number uint64) ([]revocation.Revocation, error) {
	return j.collect(number, func(*row) bool { return true })
}

// Oldest returns the time, Unix ms, from which on entries are kept.
func (j *Journal) Oldest() int64 { return j.cfg.now().Add(-j.cfg.Window).UnixMilli() }

// Path returns the path of the file.
func (j *Journal) Path() string { return j.cfg.Path }

func (j *Journal) collect(from uint64, keep func(*row) bool) (out []revocation.Revocation, err error) {
	defer wrap(&err, "read journal")
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.damage == nil {
		var found state
		found, j.damage = j.scan(func(number uint64, r *row) {
			if number >= from && !r.void && keep(r) {
				out = append(out, r.entry)
			}
		})
		if j.damage == nil && found != j.state {
			j.damage = &DamageError{Path: j.cfg.Path, Err: errors.New("state differs from the one written last")}
		}
	}
	if j.damage != nil {
		return nil, j.damage
	}
	return out, nil
}

// wrap adds the operation to an error.
func wrap(err *error, op string) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", op, *err)
	}
}

// ByUser groups entries by user and by homeserver, the oldest first. The journal has
// another order: that in which the entries of other processes arrived.
func ByUser(entries []revocation.Revocation) (map[store.UserKey][]revocation.Revocation, map[string][]revocation.Revocation) {
	users := make(map[store.UserKey][]revocation.Revocation)
	homeservers := make(map[string][]revocation.Revocation)
	for _, e := range entries {
		if e.Kind == revocation.KindHomeserver {
			homeservers[e.Homeserver] = append(homeservers[e.Homeserver], e)
			continue
		}
		u := store.UserKey{Homeserver: e.Homeserver, User: e.User}
		users[u] = append(users[u], e)
	}
	for _, some := range users {
		slices.SortStableFunc(some, func(a, b revocation.Revocation) int { return cmp.Compare(a.At, b.At) })
	}
	return users, homeservers
}

// Adopt moves the entries of another journal, whose process has ended, into j. It
// is called before a store is opened with j, so that the store replays them.
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
	if err := j.do(ctx, &work{add: all}); err != nil {
		return 0, err
	}
	return len(all), other.do(ctx, &work{clear: true})
}

// Stats are the figures of a journal and of the store that uses it.
type Stats struct {
	Entries int64  // in the file
	Bytes   int64  // size of the file
	Added   uint64 // entries added since the process started
	Dropped uint64 // entries dropped within the window, because there were too many

	// Of the store, since the process started.
	Replays      uint64    // replays of the journal
	Replayed     uint64    // records changed by replays
	Missing      uint64    // events published again because a feed lacked them
	LastFailover time.Time // when an unknown primary was last met; zero: never
	Shut         bool      // the store is fenced until a replay ends
}

// Stats returns the figures of the journal.
func (j *Journal) Stats() Stats {
	return Stats{Entries: j.entries.Load(), Bytes: j.size.Load(), Added: j.added.Load(), Dropped: j.dropped.Load()}
}
