package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// scan reads the whole file and calls see for every readable row. The state of a
// file without one is zero.
func (j *Journal) scan(see func(uint64, *row)) (found state, damage *DamageError) {
	s := scanner{see: see, damage: &DamageError{Path: j.cfg.Path}}
	err := j.db.View(s.all)
	if err != nil {
		s.damage.Err = err
		if s.numbered {
			s.missing(s.state.next)
		}
	}
	if err == nil && len(s.damage.Numbers) == 0 {
		return s.state, nil
	}
	return s.state, s.damage
}

// scanner reads a journal.
type scanner struct {
	see      func(uint64, *row)
	state    state
	numbered bool   // the state has the numbers in use
	next     uint64 // the next number
	before   int64  // Unix ms at which the last readable row was added
	damage   *DamageError
}

func (s *scanner) all(tx *bbolt.Tx) error {
	entries, state := tx.Bucket(bucketEntries), tx.Bucket(bucketState)
	if entries == nil || state == nil {
		if state != nil || tx.Bucket(bucketCheckpoints) != nil {
			return errors.New("a bucket is missing")
		}
		if entries == nil { // a new file
			return nil
		}
	} else {
		if err := s.state.decode(state.Get(keyState)); err != nil {
			return err
		}
		if tx.Bucket(bucketCheckpoints) == nil || tx.Bucket(bucketPrimaries) == nil {
			return errors.New("a bucket is missing")
		}
		if entries.Sequence() != s.state.next-1 {
			return errors.New("sequence differs from the state")
		}
		s.numbered, s.next = true, max(s.state.first, s.state.numbered)
	}
	if err := entries.ForEach(s.row); err != nil {
		return err
	}
	if s.numbered {
		s.missing(s.state.next)
		return tx.Bucket(bucketCheckpoints).ForEach(func(k, v []byte) error {
			_, _, err := decodeCheckpoint(k, v)
			return err
		})
	}
	return nil
}

func (s *scanner) row(key, value []byte) error {
	if len(key) != 8 {
		return errors.New("a key is damaged")
	}
	number := binary.BigEndian.Uint64(key)
	r, err := decodeRow(number, value)
	summed := s.numbered && number >= s.state.numbered
	switch {
	case !s.numbered && (err != nil || !r.old), s.numbered && (number < s.state.first || number >= s.state.next):
		if err == nil {
			err = errors.New("number is out of range")
		}
		return fmt.Errorf("entry %d: %w", number, err)
	case summed && number < s.next:
		return fmt.Errorf("entry %d follows %d", number, s.next-1)
	case summed:
		s.missing(number)
		if s.next = number + 1; err != nil || r.old {
			s.damage.add(number, number)
			return nil
		}
	case err != nil:
		s.damage.add(number, number)
		return nil
	}
	if len(s.damage.Numbers) > 0 && s.damage.To.IsZero() {
		s.damage.To = time.UnixMilli(r.added)
	}
	s.before = r.added
	s.see(number, &r)
	return nil
}

// missing records that no rows exist from the next number up to number, exclusive.
func (s *scanner) missing(number uint64) {
	if number <= s.next {
		return
	}
	if len(s.damage.Numbers) == 0 && s.before != 0 {
		s.damage.From = time.UnixMilli(s.before)
	}
	s.damage.add(s.next, number-1)
	s.damage.To = time.Time{}
	s.next = number
}
