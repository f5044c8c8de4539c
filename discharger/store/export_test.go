package store

import (
	"bytes"
	"context"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
)

// UserHash is the key of a user's hash.
func UserHash(key caveat.Secret, u discharger.UserKey) string {
	k, _ := newLayout(key).user(u.Homeserver, u.User)
	return k
}

// Sweep removes what has expired, now.
func (b *Bolt) Sweep(ctx context.Context) (int, error) { return b.sweep(ctx) }

// Rows counts the rows of a user, expired or not.
func (b *Bolt) Rows(t testing.TB, u discharger.UserKey) (n int) {
	err := b.db.View(func(tx *bbolt.Tx) error {
		prefix, c := userPrefix(u), tx.Bucket(bucketRecords).Cursor()
		for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
