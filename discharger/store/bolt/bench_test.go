package bolt_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func BenchmarkLoad(b *testing.B) {
	for _, callers := range storetest.BenchCallers {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			storetest.BenchLoad(b, openBolt(b, bolt.Config{Path: filepath.Join(b.TempDir(), "store.db")}), callers)
		})
	}
}

// BenchmarkSwap compares batches of different delays, the default of bbolt
// among them.
func BenchmarkSwap(b *testing.B) {
	for _, callers := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d/store", callers), func(b *testing.B) {
			storetest.BenchSwap(b, openBolt(b, bolt.Config{Path: filepath.Join(b.TempDir(), "store.db")}), callers)
		})
		for _, delay := range []time.Duration{bolt.BatchDelay, 10 * time.Millisecond} {
			b.Run(fmt.Sprintf("callers=%d/bbolt/delay=%v", callers, delay), func(b *testing.B) {
				benchBbolt(b, delay, callers)
			})
		}
	}
}

func benchBbolt(b *testing.B, delay time.Duration, callers int) {
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.MaxBatchDelay = delay
	bucket := []byte("records")
	put := func(i int) {
		key := fmt.Appendf(nil, "example.org@user%d:example.org0123456789abcdef", i*7919%storetest.BenchUsers)
		if err := db.Batch(func(tx *bbolt.Tx) error {
			bk, err := tx.CreateBucketIfNotExists(bucket)
			if err != nil {
				return err
			}
			return bk.Put(key, fmt.Appendf(nil, "%-79d", i))
		}); err != nil {
			b.Error(err)
		}
	}
	storetest.Spread(b, 64, storetest.BenchUsers, put)
	b.ReportAllocs()
	b.ResetTimer()
	storetest.Spread(b, callers, b.N, put)
}

// BenchmarkOpen opens a file with a million rows.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store.db")
	bolt.Fill(b, path, 1_000_000)
	b.ResetTimer()
	for b.Loop() {
		if err := openBolt(b, bolt.Config{Path: path}).Close(); err != nil {
			b.Fatal(err)
		}
	}
}
