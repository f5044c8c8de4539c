package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store/marker"
)

// batchDelay is how long a swap waits for others to share its commit with,
// when there are others. Shorter, and commits queue up behind each other's
// syncs; longer, and the waiting costs more than the syncs: BenchmarkBoltSwap.
const batchDelay = time.Millisecond

func (b *Store) options(readOnly bool) *bbolt.Options {
	return &bbolt.Options{
		Timeout:      b.cfg.LockTimeout,
		FreelistType: bbolt.FreelistMapType,
		ReadOnly:     readOnly,
		NoStatistics: true,
	}
}

// inspect looks at an existing file without being able to change it, and before
// anything is read that a damaged file would make dangerous to read.
func (b *Store) inspect() error {
	info, err := os.Stat(b.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if info.Size() == 0 {
		return nil // created, but nothing was ever written
	}
	return boltfile.Guard(func() error {
		db, err := bbolt.Open(b.cfg.Path, 0, b.options(true))
		if err != nil {
			return boltfile.Explain(err)
		}
		defer db.Close()
		return db.View(func(tx *bbolt.Tx) error {
			if tx.Size() > info.Size() {
				return fmt.Errorf("damaged file: it is %d bytes long and should have at least %d", info.Size(), tx.Size())
			}
			_, err := readID(tx)
			return err
		})
	})
}

// readID returns the file's identity, "" if it has no buckets at all.
func readID(tx *bbolt.Tx) (string, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		if name, _ := tx.Cursor().First(); name != nil {
			return "", errors.New("the file belongs to another program")
		}
		return "", nil
	}
	id := string(meta.Get(keyID))
	if tx.Bucket(bucketRecords) == nil || tx.Bucket(bucketHomeservers) == nil {
		return "", errors.New("damaged file: a bucket is missing")
	}
	return id, marker.CheckID(id)
}

// identify reads the file's identity or gives it one.
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
	if b.id, err = marker.NewID(b.cfg.Random); err != nil {
		return err
	}
	err = b.db.Update(func(tx *bbolt.Tx) error {
		return makeBuckets(tx, b.id, session.Losses{Missing: b.cfg.Now().UnixMilli()})
	})
	if err != nil {
		return err
	}
	b.made = true
	err = b.db.View(func(tx *bbolt.Tx) error {
		b.readMeta(tx.Bucket(bucketMeta))
		return nil
	})
	return errors.Join(err, boltfile.SyncDir(filepath.Dir(b.cfg.Path)))
}

// makeBuckets makes what every file has.
func makeBuckets(tx *bbolt.Tx, id string, l session.Losses) error {
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
