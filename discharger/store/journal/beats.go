package journal

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
)

var bucketBeats = []byte("beats")

// Beats returns what setBeats was given last.
func (j *Journal) Beats() (map[string]string, error) {
	out := make(map[string]string)
	err := boltfile.Guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketBeats)
			if b == nil {
				return nil
			}
			return b.ForEach(func(key, id []byte) error {
				out[string(key)] = string(id)
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return out, nil
}

func (j *Journal) SetBeats(newest map[string]string) error {
	err := boltfile.Guard(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			if tx.Bucket(bucketBeats) != nil {
				if err := tx.DeleteBucket(bucketBeats); err != nil {
					return err
				}
			}
			b, err := tx.CreateBucket(bucketBeats)
			if err != nil {
				return err
			}
			for key, id := range newest {
				if err := b.Put([]byte(key), []byte(id)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}
