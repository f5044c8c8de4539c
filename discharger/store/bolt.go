package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
)

// The file. Every string has its length in front, as two bytes, big-endian;
// names may contain any byte.
//
//	bucket        key                                value
//	"discharger"  "id"                               the store's identity, with the version of this layout
//	"records"     homeserver user session(16 bytes)  expiry(4) record
//	"homeservers" homeserver                         record
//	"feeds"       homeserver                         a bucket of events: bolt_feed.go
//
// The session of all zeros is the user's own record, so it comes first among
// the rows of the user, which all have the same prefix.
var (
	bucketMeta        = []byte("discharger")
	bucketRecords     = []byte("records")
	bucketHomeservers = []byte("homeservers")
	keyID             = []byte("id")
)

// BoltConfig says where a [Bolt] keeps its file. Path is required.
type BoltConfig struct {
	Path string // created with mode 0600 if it does not exist; its directory must

	// Marker remembers the file's identity elsewhere; nil leaves the loss of
	// the file unnoticed.
	Marker Marker

	// SweepEvery is the pause between two searches for expired records; 0 is
	// 15 minutes.
	SweepEvery time.Duration

	// LockTimeout is how long to wait for another process to let go of the
	// file; 0 is one second.
	LockTimeout time.Duration

	// MaxEvents bounds the events of each homeserver's feed; beyond that, the
	// oldest go before their time. 0: 1 000 000.
	MaxEvents int

	Log    *slog.Logger     // of the sweeper's troubles; nil: nothing is logged
	Now    func() time.Time // nil: time.Now
	Random io.Reader        // nil: crypto/rand
}

// Bolt is a [discharger.Store] in one bbolt file. A write that has been
// acknowledged is on the disk, revocation or not.
type Bolt struct {
	cfg  BoltConfig
	db   *bbolt.DB
	file os.FileInfo // what Path was when it was opened
	id   string

	lost    atomic.Bool  // the file is not the one that the marker names
	writers atomic.Int32 // calls that are about to write
	wakes   wakes        // of those who wait for events

	stop context.CancelFunc // of the sweeper
	done sync.WaitGroup
}

var (
	_ discharger.Store = (*Bolt)(nil)
	_ discharger.Feed  = (*Bolt)(nil)
)

// OpenBolt opens the file, or makes one. A file that is damaged, belongs to
// another program or is open in another process is an error and is left as it
// was. A file that is not the one the marker names is opened, but answers
// [discharger.ErrStoreLost] until [Bolt.AcceptLoss] is called.
func OpenBolt(cfg BoltConfig) (*Bolt, error) {
	if cfg.Path == "" {
		return nil, errors.New("open store: no path")
	}
	if cfg.SweepEvery < 0 || cfg.LockTimeout < 0 || cfg.MaxEvents < 0 {
		return nil, errors.New("open store: a duration or a number is negative")
	}
	if cfg.SweepEvery == 0 {
		cfg.SweepEvery = 15 * time.Minute
	}
	if cfg.LockTimeout == 0 {
		cfg.LockTimeout = time.Second
	}
	if cfg.MaxEvents == 0 {
		cfg.MaxEvents = defaultMaxEvents
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	b := &Bolt{cfg: cfg}
	if err := b.open(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Path, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	b.done.Go(func() { b.sweepEvery(ctx) })
	return b, nil
}

func (b *Bolt) open() (err error) {
	expected, err := remembered(b.cfg.Marker)
	if err != nil {
		return err
	}
	if err := b.probe(); err != nil {
		return err
	}
	err = guard(func() error {
		b.db, err = bbolt.Open(b.cfg.Path, 0o600, b.options(false))
		return err
	})
	if err != nil {
		return explain(err)
	}
	defer func() {
		if err != nil {
			b.db.Close()
		}
	}()
	if b.file, err = os.Stat(b.cfg.Path); err != nil {
		return err
	}
	if err := guard(b.identify); err != nil {
		return err
	}
	if expected == "" {
		return remember(b.cfg.Marker, b.id)
	}
	b.lost.Store(b.id != expected)
	return nil
}

// Ready returns nil if the file is there and is the one that the marker names.
func (b *Bolt) Ready(ctx context.Context) error {
	if err := b.usable(ctx); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	now, err := os.Stat(b.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, b.file) {
		return fmt.Errorf("%w: %s was removed or replaced while in use", discharger.ErrStoreLost, b.cfg.Path)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// usable is asked before every operation.
func (b *Bolt) usable(ctx context.Context) error {
	if b.lost.Load() {
		return discharger.ErrStoreLost
	}
	return ctx.Err()
}

// AcceptLoss makes the file that is there the one to work with. It is an
// operator's decision: sessions that were in the lost file are over, and its
// revocations are forgotten.
func (b *Bolt) AcceptLoss(context.Context) error {
	if !b.lost.Load() {
		return nil
	}
	if err := remember(b.cfg.Marker, b.id); err != nil {
		return fmt.Errorf("accept loss: %w", err)
	}
	b.lost.Store(false)
	return nil
}

// Close ends the sweeper and closes the file.
func (b *Bolt) Close() error {
	b.stop()
	b.done.Wait()
	return b.db.Close()
}

// userPrefix is what the keys of all of a user's rows begin with.
func userPrefix(u discharger.UserKey) []byte {
	b := make([]byte, 0, 2+len(u.Homeserver)+2+len(u.User)+len(caveat.SessionID{}))
	return appendName(appendName(b, u.Homeserver), u.User)
}

func appendName(b []byte, name string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
}

// rowSession is the last part of a row's key.
func rowSession(key []byte) caveat.SessionID {
	return caveat.SessionID(key[len(key)-len(caveat.SessionID{}):])
}

// splitRow takes a row apart. The record is valid as long as the transaction.
func splitRow(value []byte) (expiry, []byte, error) {
	if len(value) <= expirySize {
		return 0, nil, errors.New("damaged record")
	}
	return expiry(binary.BigEndian.Uint32(value)), value[expirySize:], nil
}

// liveSession reports whether a user has a session that has not expired.
func liveSession(records *bbolt.Bucket, prefix []byte, now time.Time) (bool, error) {
	c := records.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		e, _, err := splitRow(v)
		if err != nil {
			return false, err
		}
		if rowSession(k) != (caveat.SessionID{}) && !e.passed(now) {
			return true, nil
		}
	}
	return false, nil
}
