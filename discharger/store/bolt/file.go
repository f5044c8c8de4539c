package bolt

import (
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/marker"
)

// batchDelay is how long a write waits for others to share its commit. If it is
// shorter, commits queue behind syncs; if longer, the wait costs more than the
// syncs: BenchmarkSwap.
const batchDelay = time.Millisecond

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
	err := b.db.Update(func(tx *bbolt.Tx) (err error) {
		if b.id, err = readID(tx); err != nil {
			return err
		}
		if b.id == "" {
			b.id, b.made = marker.NewID(), true
			return makeBuckets(tx, b.id, store.Losses{Missing: b.cfg.now().UnixMilli()})
		}
		_, err = tx.CreateBucketIfNotExists(bucketDevices) // earlier versions had none
		return err
	})
	return errors.Join(err, b.readMeta())
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
