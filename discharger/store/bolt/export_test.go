package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/record"
)

// Sweep removes expired records now.
func (b *Store) Sweep(ctx context.Context) (int, error) {
	n, err := b.sweep(ctx)
	return n, errors.Join(err, b.sweepFeeds(ctx))
}

// TakeBack removes the last event of a feed as if it had never been.
func (b *Store) TakeBack(t testing.TB, homeserver string) {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		feed := tx.Bucket(bucketFeeds).Bucket(appendName(nil, homeserver))
		last := feed.Sequence()
		if err := feed.Delete(binary.BigEndian.AppendUint64(nil, last)); err != nil {
			return err
		}
		return feed.SetSequence(last - 1)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Rows counts the rows of a user, devices included, expired or not.
func (b *Store) Rows(t testing.TB, u store.UserKey) (n int) {
	err := b.db.View(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketRecords, bucketDevices} {
			prefix, c := userPrefix(u), tx.Bucket(name).Cursor()
			for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
				n++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// PutRow writes bytes as the row of a session.
func (b *Store) PutRow(t testing.TB, u store.UserKey, id caveat.SessionID, row []byte) {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRecords).Put(append(userPrefix(u), id[:]...), row)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// SetLosses sets the losses as AcceptLoss does.
func (b *Store) SetLosses(l store.Losses) { b.losses.Store(&l) }

// BatchDelay is how long a swap waits for others to share a commit.
const BatchDelay = batchDelay

// Fill makes a file with some rows, without syncing each.
func Fill(t testing.TB, path string, rows int) {
	b, err := Open(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	b.db.NoSync = true
	value := append(record.Expiry(1<<31).Append(nil), make([]byte, 75)...)
	for from := 0; from < rows; from += 10_000 {
		err := b.db.Update(func(tx *bbolt.Tx) error {
			for i := from; i < min(from+10_000, rows); i++ {
				key := userPrefix(store.UserKey{Homeserver: "example.org", User: fmt.Sprintf("@user%08d:example.org", i/3)})
				key = append(key, fmt.Sprintf("%016d", i)...)
				if err := tx.Bucket(bucketRecords).Put(key, value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.db.Sync(), b.Close()); err != nil {
		t.Fatal(err)
	}
}
