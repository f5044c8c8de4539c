package journal

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
)

// Primaries returns the primaries that have all entries, as set last and sorted; nil:
// none were set.
func (j *Journal) Primaries() ([]string, error) {
	if err := j.Damage(); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	found, err := j.readMap(bucketPrimaries)
	return slices.Sorted(maps.Keys(found)), err
}

// SetPrimaries sets the primaries that have all entries.
func (j *Journal) SetPrimaries(names []string) error {
	if err := j.Damage(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	m := make(map[string]string, len(names))
	for _, name := range names {
		m[name] = ""
	}
	return j.writeMap(bucketPrimaries, m)
}

// LastPrimaries returns the primaries that a damaged journal names; nil: they
// cannot be read, or may be those of an earlier commit.
func (j *Journal) LastPrimaries() []string {
	j.mu.RLock()
	unsafe := j.unsafe || errors.Is(j.damage, boltfile.ErrRoot)
	j.mu.RUnlock()
	if unsafe {
		return nil
	}
	found, _ := j.readMap(bucketPrimaries)
	return slices.Sorted(maps.Keys(found))
}

var bucketBeats = []byte("beats")

// Beats returns the ids of heartbeats by their keys, as set last.
func (j *Journal) Beats() (map[string]string, error) { return j.readMap(bucketBeats) }

// SetBeats replaces the ids of heartbeats.
func (j *Journal) SetBeats(newest map[string]string) error { return j.writeMap(bucketBeats, newest) }

// readMap returns the content of a bucket, empty if it does not exist.
func (j *Journal) readMap(bucket []byte) (out map[string]string, err error) {
	defer wrap(&err, "read journal")
	j.mu.RLock()
	defer j.mu.RUnlock()
	out = make(map[string]string)
	return out, j.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if b == nil {
			return nil
		}
		return b.ForEach(func(key, value []byte) error {
			out[string(key)] = string(value)
			return nil
		})
	})
}

// writeMap replaces the content of a bucket.
func (j *Journal) writeMap(bucket []byte, m map[string]string) (err error) {
	defer wrap(&err, "write journal")
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.db.Update(func(tx *bbolt.Tx) error {
		b, err := renewBucket(tx, bucket)
		if err != nil {
			return err
		}
		for key, value := range m {
			if err := b.Put([]byte(key), []byte(value)); err != nil {
				return err
			}
		}
		return nil
	})
}

// renewBucket empties a bucket, or creates it.
func renewBucket(tx *bbolt.Tx, name []byte) (*bbolt.Bucket, error) {
	if tx.Bucket(name) != nil {
		if err := tx.DeleteBucket(name); err != nil {
			return nil, err
		}
	}
	return tx.CreateBucket(name)
}
