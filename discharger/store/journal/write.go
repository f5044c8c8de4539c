package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"
)

// write commits work until the journal is closed. Work that arrives during a
// commit shares the next one.
func (j *Journal) write() {
	for {
		var batch []*work
		select {
		case w := <-j.work:
			batch = append(batch, w)
		case <-j.stop:
			return
		}
		for more := true; more && len(batch) < 1000; {
			select {
			case w := <-j.work:
				batch = append(batch, w)
			default:
				more = false
			}
		}
		err := j.commit(batch)
		for _, w := range batch {
			w.done <- err
		}
	}
}

// txn is one commit of a journal.
type txn struct {
	now            time.Time
	state          state
	live           int // change of the number of entries, void ones not counted
	added, dropped int
	pending        []*work
	check, checked bool // a checkpoint is requested, was made
}

func (j *Journal) commit(batch []*work) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.damage != nil {
		return j.damage
	}
	var c txn
	var size int64
	err := j.db.Update(func(tx *bbolt.Tx) error {
		c = txn{now: j.cfg.now(), state: j.state}
		for _, w := range batch {
			if err := j.apply(tx, &c, w); err != nil {
				return err
			}
		}
		if err := j.tidy(tx, &c); err != nil {
			return err
		}
		size = tx.Size()
		return tx.Bucket(bucketState).Put(keyState, c.state.encode())
	})
	if err != nil {
		return err
	}
	if j.state = c.state; c.checked {
		j.checked = c.now
	}
	j.pending = append(j.pending, c.pending...)
	if c.dropped > 0 {
		j.recent.clear()
	}
	j.entries.Add(int64(c.live))
	j.size.Store(size)
	j.added.Add(uint64(c.added))
	if c.dropped > 0 && j.dropped.Add(uint64(c.dropped)) == uint64(c.dropped) {
		j.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn,
			"journal is full, dropping entries within the window", slog.Int("max_entries", j.cfg.MaxEntries))
	}
	return nil
}

// apply writes the work of one caller.
func (j *Journal) apply(tx *bbolt.Tx, c *txn, w *work) error {
	w.numbers = nil
	c.check = c.check || w.check
	entries := tx.Bucket(bucketEntries)
	entries.FillPercent = 0.9 // keys only grow
	if w.clear {
		if err := j.clear(tx, c); err != nil {
			return err
		}
		entries = tx.Bucket(bucketEntries)
	}
	for i := range w.add {
		n, err := entries.NextSequence()
		if err != nil {
			return err
		}
		if n != c.state.next {
			return fmt.Errorf("next number is %d, want %d", n, c.state.next)
		}
		if err := entries.Put(numberKey(n), encodeRow(n, c.now.UnixMilli(), &w.add[i])); err != nil {
			return err
		}
		w.numbers = append(w.numbers, n)
		c.state.next++
		c.added++
		c.live++
	}
	if w.pending {
		c.pending = append(c.pending, w)
	}
	for _, n := range w.void {
		key := numberKey(n)
		if entries.Get(key) == nil {
			continue
		}
		if err := entries.Put(key, encodeRow(n, c.now.UnixMilli(), nil)); err != nil {
			return err
		}
		c.live--
	}
	return nil
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// clear removes all entries. Later entries continue their numbers.
func (j *Journal) clear(tx *bbolt.Tx, c *txn) error {
	entries, err := renewBucket(tx, bucketEntries)
	if err != nil {
		return err
	}
	c.state.first, c.live = c.state.next, -int(j.entries.Load())
	if err := dropCheckpoints(tx, c.state.first); err != nil {
		return err
	}
	return entries.SetSequence(c.state.next - 1)
}

// pruneAtOnce bounds the entries that one commit removes beyond the number it adds.
const pruneAtOnce = 256

// tidy makes a checkpoint if one is due, and removes the oldest entries if they are past
// the window or too many. In the journal of a bbolt store, entries after the last
// checkpoint stay: without them the start of the complete part would be unknown.
func (j *Journal) tidy(tx *bbolt.Tx, c *txn) error {
	s := &c.state
	full := s.next-s.first > uint64(j.cfg.MaxEntries)
	limit := s.next
	if j.commits != nil {
		if c.check || full || c.now.Sub(j.checked).Abs() >= CheckpointEvery {
			if err := j.putCheckpoint(tx, s, c.pending); err != nil {
				return err
			}
			c.checked = true
		}
		limit = lastCheckpoint(tx)
	}
	most := pruneAtOnce + c.added
	oldest := c.now.Add(-j.cfg.Window).UnixMilli()
	entries := tx.Bucket(bucketEntries)
	first := s.first
	for n := 0; n < most; n++ {
		key, value := entries.Cursor().First()
		if key == nil {
			break
		}
		number := binary.BigEndian.Uint64(key)
		if number >= limit {
			break
		}
		if number != s.first && number >= s.numbered {
			return errors.New("oldest entry is missing")
		}
		r, err := decodeRow(number, value)
		if err != nil {
			return fmt.Errorf("entry %d: %w", number, err)
		}
		over := r.added <= oldest
		if !over && s.next-number <= uint64(j.cfg.MaxEntries) {
			break
		}
		if err := entries.Delete(key); err != nil {
			return err
		}
		if s.first = number + 1; r.void {
			continue
		}
		c.live--
		if !over {
			c.dropped++
		}
	}
	if s.first == first {
		return nil
	}
	return dropCheckpoints(tx, s.first)
}
