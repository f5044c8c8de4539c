package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/record"
)

// Expired rows are absent for every reader, so their removal is not urgent and
// must not delay writes: rows are read in short read transactions, and expired
// ones are removed in short write transactions. An index by expiry would double
// the pages that a write touches.
const (
	sweepRows   = 2000 // read in one transaction, about a millisecond
	sweepRemove = 200  // removed in one transaction
)

func (b *Store) sweepEvery(ctx context.Context) {
	ticker := time.NewTicker(b.cfg.SweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if b.lost.Load() != nil {
			continue // kept for inspection
		}
		_, err := b.sweep(ctx)
		if err := errors.Join(err, b.sweepFeeds(ctx)); err != nil && ctx.Err() == nil {
			b.cfg.Log.LogAttrs(ctx, slog.LevelError, "expired records could not be removed", slog.Any("error", err))
		}
	}
}

// sweep goes through all rows once and returns how many it removed. It passes
// over damaged rows, and reports them when it is through.
func (b *Store) sweep(ctx context.Context) (removed int, err error) {
	damaged := 0
	for _, name := range [][]byte{bucketRecords, bucketDevices} {
		for from := []byte{}; from != nil; {
			if err := ctx.Err(); err != nil {
				return removed, err
			}
			var found [][]byte
			err := b.db.View(func(tx *bbolt.Tx) error {
				var bad int
				found, from, bad = b.expired(tx, name, from)
				damaged += bad
				return nil
			})
			if err != nil {
				return removed, fmt.Errorf("find expired records: %w", err)
			}
			for some := range slices.Chunk(found, sweepRemove) {
				n, err := b.remove(name, some)
				if err != nil {
					return removed, fmt.Errorf("remove expired records: %w", err)
				}
				removed += n
			}
		}
	}
	if damaged > 0 {
		return removed, fmt.Errorf("%d damaged records were passed over", damaged)
	}
	return removed, nil
}

// expired looks at some rows of a bucket beginning at a key. It returns the keys
// of those that can go, the key to begin at next, nil after the last row, and how
// many could not be judged.
func (b *Store) expired(tx *bbolt.Tx, name, from []byte) (found [][]byte, next []byte, damaged int) {
	now, c, n := b.cfg.now(), tx.Bucket(name).Cursor(), 0
	for k, v := c.Seek(from); k != nil; k, v = c.Next() {
		if n++; n > sweepRows {
			return found, bytes.Clone(k), damaged
		}
		gone, err := removable(tx, name, k, v, now)
		if err != nil {
			damaged++
		}
		if gone {
			found = append(found, bytes.Clone(k))
		}
	}
	return found, nil, damaged
}

// remove removes the rows of a bucket that can still go.
func (b *Store) remove(name []byte, keys [][]byte) (n int, err error) {
	err = b.db.Update(func(tx *bbolt.Tx) error {
		now, bucket := b.cfg.now(), tx.Bucket(name)
		for _, k := range keys {
			v := bucket.Get(k)
			if v == nil {
				continue
			}
			if gone, err := removable(tx, name, k, v, now); err != nil || !gone {
				continue // changed since it was found; a damaged row is for the next pass
			}
			if err := bucket.Delete(k); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// removable reports whether a row has expired. A user's own record and those of
// the user's devices stay as long as one of the user's sessions does.
func removable(tx *bbolt.Tx, name, key, value []byte, now time.Time) (bool, error) {
	e, _, err := record.SplitRow(value)
	if err != nil || !e.Passed(now) {
		return false, err
	}
	prefix := key[:len(key)-len(revocation.DeviceTag{})]
	if bytes.Equal(name, bucketRecords) {
		if rowSession(key) != (caveat.SessionID{}) {
			return true, nil
		}
		prefix = key[:len(key)-len(caveat.SessionID{})]
	}
	live, err := liveSession(tx.Bucket(bucketRecords), prefix, now)
	return !live, err
}
