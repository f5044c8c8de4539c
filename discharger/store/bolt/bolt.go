// Package bolt keeps the records of the service in one bbolt file.
//
// Every string in the file has its length in front, as two bytes, big-endian;
// names may contain any byte.
//
//	bucket        key                                value
//	"discharger"  "id"                               the store's identity, with the version of this layout
//	              "commit"                           number of the last commit(8)
//	              "missing" "all"                    losses(8, Unix ms), as in [store.Losses]
//	              "journal"                          the journal(16) and its last number(8) that was used
//	              "probe"                            written to see whether that is possible
//	"records"     homeserver user session(16 bytes)  expiry(4) record
//	"devices"     homeserver user device(8 bytes)    expiry(4) record
//	"homeservers" homeserver                         record
//	"feeds"       homeserver                         a bucket of events, see feed.go
//
// The session of all zeros is the user's own record, so it comes first among
// the rows of the user, which all have the same prefix.
package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
)

var (
	bucketMeta        = []byte("discharger")
	bucketRecords     = []byte("records")
	bucketHomeservers = []byte("homeservers")
	bucketDevices     = []byte("devices")
	keyID             = []byte("id")
	keyCommit         = []byte("commit")
	keyMissing        = []byte("missing")
	keyAll            = []byte("all")
	keyJournal        = []byte("journal")
	keyProbe          = []byte("probe")
)

// Config configures a [Store]. Path is required.
type Config struct {
	Path string // created with mode 0600 if it does not exist; its directory must

	// Marker keeps the identity of the file elsewhere; nil: a loss of the file
	// is not detected.
	Marker marker.Marker

	// Journal keeps revocations, so that an older copy of the file that is put
	// in its place can be given them again; nil: an older copy is not detected,
	// and revives sessions. The caller closes it after the store.
	Journal *journal.Journal

	Replayer store.Replayer // of the journal; required with one

	SweepEvery  time.Duration // the pause between searches for expired records; 0: 15 minutes
	LockTimeout time.Duration // how long to wait for another process to close the file; 0: one second
	MaxEvents   int           // in a homeserver's feed, above which the oldest are dropped; 0: 1 000 000
	Log         *slog.Logger  // nil: nothing is logged

	now func() time.Time
}

// Store is a store in one bbolt file. An acknowledged write is on the disk.
type Store struct {
	cfg  Config
	db   *boltfile.DB
	file os.FileInfo // the file at Path when it was opened
	id   string

	made    bool                         // the file was made when it was opened
	commits atomic.Uint64                // number of the last commit
	losses  atomic.Pointer[store.Losses] // never nil
	lost    atomic.Pointer[error]        // why the data must not be used; nil: it can be
	writers atomic.Int32                 // calls that are about to write
	wakes   wakes                        // of readers that wait for events
	probe   probe                        // of Ready

	replays, replayed atomic.Uint64

	stop context.CancelFunc // of the sweeper
	done sync.WaitGroup
}

var (
	_ store.Store = (*Store)(nil)
	_ store.Feed  = (*Store)(nil)
)

// Open opens the file, or creates it. A file that is damaged, belongs to another program
// or is open in another process is an error and stays unchanged. A file that lacks
// revocations in the journal is given them. A file that is not the one the marker or the
// journal names, or is older than the journal can complete, or whose journal is damaged,
// is opened and lost until [Store.AcceptLoss] is called.
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	b := &Store{cfg: cfg}
	if err := b.open(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Path, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	b.done.Go(func() { b.sweepEvery(ctx) })
	if cfg.Journal != nil {
		b.done.Go(func() { b.noteCommits(ctx) })
	}
	return b, nil
}

// WithClock returns the configuration with another clock than time.Now.
func (cfg Config) WithClock(now func() time.Time) Config {
	cfg.now = now
	return cfg
}

// complete checks the configuration and sets defaults.
func (cfg Config) complete() (Config, error) {
	if cfg.Path == "" {
		return cfg, errors.New("path is empty")
	}
	if cfg.Journal != nil && cfg.Replayer == nil {
		return cfg, errors.New("a journal needs a replayer")
	}
	if cfg.SweepEvery < 0 || cfg.LockTimeout < 0 || cfg.MaxEvents < 0 {
		return cfg, errors.New("a duration or a number is negative")
	}
	cfg.SweepEvery = cmp.Or(cfg.SweepEvery, 15*time.Minute)
	cfg.LockTimeout = cmp.Or(cfg.LockTimeout, time.Second)
	cfg.MaxEvents = cmp.Or(cfg.MaxEvents, limits.DefaultMaxEvents)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if cfg.now == nil {
		cfg.now = time.Now
	}
	return cfg, nil
}

func (b *Store) open() (err error) {
	expected, err := marker.Remembered(b.cfg.Marker)
	if err != nil {
		return err
	}
	err = boltfile.Inspect(b.cfg.Path, b.cfg.LockTimeout, func(tx *bbolt.Tx) error {
		_, err := readID(tx)
		return err
	})
	if err != nil {
		return err
	}
	if b.db, err = boltfile.Open(b.cfg.Path, boltfile.Options{LockTimeout: b.cfg.LockTimeout}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			b.db.Close()
		}
	}()
	if b.file, err = os.Stat(b.cfg.Path); err != nil {
		return err
	}
	if err := b.identify(); err != nil {
		return err
	}
	if expected != "" && expected != b.id {
		b.lose(fmt.Errorf("%s is not the store that the marker names: put that one back, restore a backup, or accept the loss", b.cfg.Path))
		return nil
	}
	if err := b.catchUp(); err != nil || b.lost.Load() != nil || expected != "" {
		return err
	}
	return marker.Remember(b.cfg.Marker, b.id)
}

// Now returns the time of this machine.
func (b *Store) Now(ctx context.Context) (time.Time, error) {
	return b.cfg.now(), b.usable(ctx)
}

// Close ends the sweeper and closes the file.
func (b *Store) Close() error {
	b.stop()
	b.done.Wait()
	var err error
	if b.cfg.Journal != nil && b.lost.Load() == nil {
		err = b.cfg.Journal.Checkpoint(context.Background())
		b.cfg.Journal.Detach()
	}
	return errors.Join(err, b.db.Close())
}

// wrap adds the operation to an error.
func wrap(err *error, op string) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", op, *err)
	}
}

// userPrefix returns the prefix of the keys of all rows of a user, with capacity for
// the rest of a key.
func userPrefix(u store.UserKey) []byte {
	b := make([]byte, 0, 2+len(u.Homeserver)+2+len(u.User)+len(caveat.SessionID{}))
	return appendName(appendName(b, u.Homeserver), u.User)
}

func appendName(b []byte, name string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
}

// rowSession returns the session in the key of a row.
func rowSession(key []byte) caveat.SessionID {
	return caveat.SessionID(key[len(key)-len(caveat.SessionID{}):])
}

// rowDevice returns the device in the key of a row.
func rowDevice(key []byte) revocation.DeviceTag {
	return revocation.DeviceTag(key[len(key)-len(revocation.DeviceTag{}):])
}

// liveSession reports whether a user has a session that has not expired.
func liveSession(records *bbolt.Bucket, prefix []byte, now time.Time) (bool, error) {
	c := records.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		e, _, err := record.SplitRow(v)
		if err != nil {
			return false, err
		}
		if rowSession(k) != (caveat.SessionID{}) && !e.Passed(now) {
			return true, nil
		}
	}
	return false, nil
}
