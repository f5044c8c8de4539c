package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/store/record"
)

// state is written with every commit of the journal:
//
//	format(1)    1
//	numbered(8)  rows from this number on have checksums and consecutive numbers
//	first(8)     the oldest number that has not been removed
//	next(8)      the number of the next entry
//	commit(8)    the last known commit of the bbolt store
//	journal(16)  random
//	store        identity of the bbolt store, with its length in front; none: ""
//	checksum(4)
//
// A checkpoint is a pair of a number and a commit of the bbolt store. Revocations
// with lower numbers were made by that commit or an earlier one, or never will be.
// So a file that has the commit lacks at most the entries from the number on. A
// pending revocation holds the number back.
//
// Checkpoints are made with writes, at most once a minute, once a minute while
// the store changes, and when it is opened and closed. Checkpoints before the
// oldest entry are removed: older files cannot be completed.
type state struct {
	numbered, first, next, commit uint64
	journal                       [16]byte
	store                         string
}

var (
	keyState      = []byte("state")
	errState      = errors.New("state is damaged")
	errCheckpoint = errors.New("a checkpoint is damaged")
)

// CheckpointEvery is the pause between two checkpoints.
const CheckpointEvery = time.Minute

func (s *state) encode() []byte {
	b := []byte{1}
	for _, n := range []uint64{s.numbered, s.first, s.next, s.commit} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = record.AppendText(append(b, s.journal[:]...), s.store)
	return appendSum(b, 0)
}

func (s *state) decode(b []byte) error {
	n := len(b) - rowSum
	if n < 1 || b[0] != 1 || binary.BigEndian.Uint32(b[n:]) != sumOf(0, b[:n]) {
		return errState
	}
	d := record.Decoder{B: b[1:n]}
	for _, p := range []*uint64{&s.numbered, &s.first, &s.next, &s.commit} {
		*p = binary.BigEndian.Uint64(d.Bytes(8))
	}
	copy(s.journal[:], d.Bytes(len(s.journal)))
	s.store = d.String()
	if d.Bad || len(d.B) > 0 || s.next == 0 || s.first > s.next {
		return errState
	}
	return nil
}

// Attach makes the journal belong to a bbolt store. The function returns the last
// commit of the store. With a reset, the journal is complete from now on only.
func (j *Journal) Attach(ctx context.Context, store string, commits func() uint64, reset bool) error {
	if err := j.attach(store, commits, reset); err != nil {
		return err
	}
	return j.Checkpoint(ctx)
}

func (j *Journal) attach(store string, commits func() uint64, reset bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state.store != store || reset {
		j.checked, j.state.store = time.Time{}, store
		if err := j.forgetCheckpoints(); err != nil {
			return err
		}
	}
	j.commits = commits
	return nil
}

// Detach ends the use of the function that was passed to Attach.
func (j *Journal) Detach() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commits = nil
}

// forgetCheckpoints removes all checkpoints.
func (j *Journal) forgetCheckpoints() error {
	if j.damage != nil {
		return j.damage
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		if _, err := renewBucket(tx, bucketCheckpoints); err != nil {
			return err
		}
		return tx.Bucket(bucketState).Put(keyState, j.state.encode())
	})
}

// Checkpoint makes a checkpoint now.
func (j *Journal) Checkpoint(ctx context.Context) error {
	return j.do(ctx, &work{check: true})
}

// Belongs returns the identity of the bbolt store that the journal belongs to, ""
// for none, and the last known commit of it.
func (j *Journal) Belongs() (store string, commit uint64) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.state.store, j.state.commit
}

// Identity returns the identity of the journal and the next number.
func (j *Journal) Identity() (id [16]byte, next uint64) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.state.journal, j.state.next
}

// From returns the number of the first entry that a file with this commit may
// lack. It returns false if entries before that number may be missing.
func (j *Journal) From(commit uint64) (number uint64, ok bool, err error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	err = j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketCheckpoints).ForEach(func(k, v []byte) error {
			n, c, err := decodeCheckpoint(k, v)
			if err == nil && c <= commit && n >= number {
				number, ok = n, true
			}
			return err
		})
	})
	return number, ok, err
}

func decodeCheckpoint(k, v []byte) (number, commit uint64, err error) {
	if len(k) != 8 || len(v) != 8+rowSum {
		return 0, 0, errCheckpoint
	}
	number = binary.BigEndian.Uint64(k)
	if binary.BigEndian.Uint32(v[8:]) != sumOf(number, v[:8]) {
		return 0, 0, errCheckpoint
	}
	return number, binary.BigEndian.Uint64(v), nil
}

// putCheckpoint makes a checkpoint. The journal is locked. more is work of the same
// commit, which has its numbers.
func (j *Journal) putCheckpoint(tx *bbolt.Tx, s *state, more []*work) error {
	j.pending = slices.DeleteFunc(j.pending, func(w *work) bool { return w.settled.Load() })
	number := s.next
	for _, w := range slices.Concat(j.pending, more) {
		number = min(number, w.numbers[0])
	}
	// Read after the pending work: settled work was committed before.
	s.commit = max(s.commit, j.commits())
	b, key := tx.Bucket(bucketCheckpoints), numberKey(number)
	if b.Get(key) != nil {
		return nil // the earlier commit covers more files
	}
	return b.Put(key, appendSum(binary.BigEndian.AppendUint64(nil, s.commit), number))
}

// lastCheckpoint returns the number of the latest checkpoint, 0 for none.
func lastCheckpoint(tx *bbolt.Tx) uint64 {
	if k, _ := tx.Bucket(bucketCheckpoints).Cursor().Last(); len(k) == 8 {
		return binary.BigEndian.Uint64(k)
	}
	return 0
}

// dropCheckpoints removes the checkpoints before a number.
func dropCheckpoints(tx *bbolt.Tx, first uint64) error {
	b := tx.Bucket(bucketCheckpoints)
	for {
		k, _ := b.Cursor().First()
		if len(k) != 8 || binary.BigEndian.Uint64(k) >= first {
			return nil
		}
		if err := b.Delete(k); err != nil {
			return err
		}
	}
}
