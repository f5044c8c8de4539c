package journal

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
)

// Primaries returns what setPrimaries was told last, nil if it never was.
func (j *Journal) Primaries() (map[string]bool, error) {
	if err := j.Damage(); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.readPrimaries()
}

// readPrimaries reads them. The journal is locked.
func (j *Journal) readPrimaries() (out map[string]bool, err error) {
	err = boltfile.Guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketPrimaries).ForEach(func(name, _ []byte) error {
				if out == nil {
					out = make(map[string]bool)
				}
				out[string(name)] = true
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return out, nil
}

// SetPrimaries notes which primaries have all that is in the journal.
func (j *Journal) SetPrimaries(names map[string]bool) error {
	if err := j.Damage(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	err := boltfile.Guard(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			if err := tx.DeleteBucket(bucketPrimaries); err != nil {
				return err
			}
			b, err := tx.CreateBucket(bucketPrimaries)
			if err != nil {
				return err
			}
			for name := range names {
				if err := b.Put([]byte(name), []byte{}); err != nil {
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

// LastPrimaries returns the primaries that a damaged journal names, nil if it
// cannot be read.
func (j *Journal) LastPrimaries() map[string]bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.unsafe || errors.Is(j.damage, errRoot) {
		return nil // they may be those of one commit ago
	}
	known, err := j.readPrimaries()
	if err != nil {
		return nil
	}
	return known
}
