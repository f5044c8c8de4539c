package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// UserHash is the key of a user's hash.
func UserHash(key caveat.Secret, u discharger.UserKey) string {
	k, _ := newLayout(key).user(u.Homeserver, u.User)
	return k
}

// Sweep removes what has expired, now.
func (b *Bolt) Sweep(ctx context.Context) (int, error) {
	n, err := b.sweep(ctx)
	return n, errors.Join(err, b.sweepFeeds(ctx))
}

// TakeBack removes the last event of a feed as if it had never been.
func (b *Bolt) TakeBack(t testing.TB, homeserver string) {
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

// FeedKey is the key of a homeserver's feed.
func FeedKey(key caveat.Secret, homeserver string) string {
	k, _, _ := newLayout(key).feed(homeserver)
	return k
}

// Rows counts the rows of a user, devices included, expired or not.
func (b *Bolt) Rows(t testing.TB, u discharger.UserKey) (n int) {
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

// HomeserverKey is the key of a homeserver's record.
func HomeserverKey(key caveat.Secret, name string) string {
	k, _ := newLayout(key).homeserver(name)
	return k
}

// PutRow writes whatever is given as the row of a session.
func (b *Bolt) PutRow(t testing.TB, u discharger.UserKey, id caveat.SessionID, row []byte) {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRecords).Put(append(userPrefix(u), id[:]...), row)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// IdentityKeys are the keys of the store's identity.
func IdentityKeys(key caveat.Secret) []string { return newLayout(key).storeID[:] }

// Wait waits as a store does by default.
func Wait(ctx context.Context, d time.Duration) error { return wait(ctx, d) }

// BatchDelay is how long a swap waits for others to share a commit.
const BatchDelay = batchDelay

// FillBolt makes a file with some rows, without syncing each.
func FillBolt(t testing.TB, path string, rows int) {
	b, err := OpenBolt(BoltConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	b.db.NoSync = true
	value := append(expiry(1<<31).append(nil), make([]byte, 75)...)
	for from := 0; from < rows; from += 10_000 {
		err := b.db.Update(func(tx *bbolt.Tx) error {
			for i := from; i < min(from+10_000, rows); i++ {
				key := userPrefix(discharger.UserKey{Homeserver: "example.org", User: fmt.Sprintf("@user%08d:example.org", i/3)})
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

// BreakJournal makes every write to a journal fail, as a full disk would.
func BreakJournal(j *Journal) {
	if err := j.db.Close(); err != nil {
		panic(err)
	}
}

// PeersKey is the key of what processes tell each other.
func PeersKey(key caveat.Secret) string { return newLayout(key).peers }

// Tell tells other processes of what was never revoked in the store.
func (r *Redis) Tell(ctx context.Context, entries ...revocation.Revocation) error {
	return r.peers.tell(ctx, entries)
}

// oldRow is a row as it was written before rows had checksums.
func oldRow(e *revocation.Revocation) []byte {
	b := append(make([]byte, 8), byte(e.Kind))
	b = appendText(appendText(b, e.Homeserver), e.User)
	b = append(append(b, e.Session[:]...), e.Except[:]...)
	b = binary.AppendUvarint(b, e.Generation)
	for _, n := range []int64{e.At, e.Keep, e.ExceptKeep} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// OldRow is a row as it was written before rows had checksums.
func OldRow(e revocation.Revocation) []byte { return oldRow(&e) }

// OldRowAt is one that was added at a time.
func OldRowAt(at time.Time, e revocation.Revocation) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli())), oldRow(&e)[8:]...)
}

// BeatKey is the key of the heartbeats of a store that is not in a cluster.
func BeatKey(key caveat.Secret) string { return newLayout(key).beatKey[0] }

// StopWatch ends the looks at the servers, which would be counted with what a
// test does.
func (r *Redis) StopWatch() { r.stopWatch() }
