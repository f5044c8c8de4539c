package bolt

import (
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/marker"
)

// batchDelay is how long a write waits for others to share its commit. If it is
// shorter, commits queue behind syncs; if longer, the wait costs more than the
// syncs: BenchmarkSwap.
const batchDelay = time.Millisecond

// inspect checks an existing file before it is opened for writing.
func inspect(cfg Config) error {
	return boltfile.Inspect(cfg.Path, cfg.LockTimeout, func(tx *bbolt.Tx) error {
		_, err := readID(tx)
		return err
	})
}

// readID returns the identity of the file, "" if it has no buckets.
func readID(tx *bbolt.Tx) (string, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		if name, _ := tx.Cursor().First(); name != nil {
			return "", errors.New("file belongs to another program")
		}
		return "", nil
	}
	id := string(meta.Get(keyID))
	if tx.Bucket(bucketRecords) == nil || tx.Bucket(bucketHomeservers) == nil {
		return "", errors.New("damaged file: a bucket is missing")
	}
	return id, marker.CheckID(id)
}

// identify reads the identity of the file, or gives it one.
func (b *Store) identify() error {
	b.db.MaxBatchDelay = batchDelay
	err := b.db.View(func(tx *bbolt.Tx) (err error) {
		if b.id, err = readID(tx); err == nil && b.id != "" {
			b.readMeta(tx.Bucket(bucketMeta))
		}
		return err
	})
	if err == nil && b.id != "" { // earlier versions had no devices
		err = b.db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(bucketDevices)
			return err
		})
	}
	if err != nil || b.id != "" {
		return err
	}
	b.id = marker.NewID()
	err = b.db.Update(func(tx *bbolt.Tx) error {
		return makeBuckets(tx, b.id, store.Losses{Missing: b.cfg.now().UnixMilli()})
	})
	if err != nil {
		return err
	}
	b.made = true
	err = b.db.View(func(tx *bbolt.Tx) error {
		b.readMeta(tx.Bucket(bucketMeta))
		return nil
	})
	return err
}

// makeBuckets creates the buckets of a new file.
func makeBuckets(tx *bbolt.Tx, id string, l store.Losses) error {
	for _, name := range [][]byte{bucketRecords, bucketHomeservers, bucketDevices} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	meta, err := tx.CreateBucket(bucketMeta)
	if err != nil {
		return err
	}
	return errors.Join(meta.Put(keyID, []byte(id)), putLosses(meta, l), putNumber(meta, keyCommit, 1))
}
