package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
)

// write commits what has come while the last commit was under way.
func (j *Journal) write() {
	for {
		var batch []*journalWork
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
		err := boltfile.Guard(func() error { return j.commit(batch) })
		if err != nil {
			err = fmt.Errorf("write journal: %w", err)
		}
		for _, w := range batch {
			w.done <- err
		}
	}
}

// journalCommit is one commit of a journal.
type journalCommit struct {
	now            time.Time
	state          journalState
	live           int // entries more than before, void ones not counted
	added, dropped int
	pending        []*journalWork
	check, checked bool
}

func (j *Journal) commit(batch []*journalWork) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.damage != nil {
		return j.damage
	}
	var c journalCommit
	var size int64
	err := j.db.Update(func(tx *bbolt.Tx) error {
		c = journalCommit{now: j.cfg.Now(), state: j.state}
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
		j.settled.forget()
	}
	j.entries.Add(int64(c.live))
	j.size.Store(size)
	j.added.Add(uint64(c.added))
	if c.dropped > 0 && j.dropped.Add(uint64(c.dropped)) == uint64(c.dropped) {
		j.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn,
			"the journal of revocations is full: entries go before their time", slog.Int("max_entries", j.cfg.MaxEntries))
	}
	return nil
}

// apply writes what one caller wants.
func (j *Journal) apply(tx *bbolt.Tx, c *journalCommit, w *journalWork) error {
	w.numbers = nil
	c.check = c.check || w.check
	entries := tx.Bucket(bucketEntries)
	entries.FillPercent = 0.9 // what comes is always the last
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
			return fmt.Errorf("the next number is %d and should be %d", n, c.state.next)
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

// clear removes all entries. Numbers go on.
func (j *Journal) clear(tx *bbolt.Tx, c *journalCommit) error {
	if err := tx.DeleteBucket(bucketEntries); err != nil {
		return err
	}
	entries, err := tx.CreateBucket(bucketEntries)
	if err != nil {
		return err
	}
	c.state.first, c.live = c.state.next, -int(j.entries.Load())
	if err := dropCheckpoints(tx, c.state.first); err != nil {
		return err
	}
	return entries.SetSequence(c.state.next - 1)
}

// pruneAtOnce bounds what one commit does beyond making room for what it adds.
const pruneAtOnce = 256

// tidy makes a checkpoint if one is due, and removes the oldest entries when
// their time is over, or there are too many. Of a journal that belongs to a Bolt
// none is removed after the last checkpoint: nothing would show then from where
// on the journal is complete.
func (j *Journal) tidy(tx *bbolt.Tx, c *journalCommit) error {
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
			return errors.New("the oldest entry is missing")
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

// Sweep removes what is over when nobody writes. The store calls it now and
// then.
func (j *Journal) Sweep(ctx context.Context) error { return j.do(ctx, &journalWork{}) }
