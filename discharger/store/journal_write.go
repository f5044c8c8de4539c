package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"
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
		err := guard(func() error { return j.commit(batch) })
		if err != nil {
			err = fmt.Errorf("write journal: %w", err)
		}
		for _, w := range batch {
			w.done <- err
		}
	}
}

func (j *Journal) commit(batch []*journalWork) error {
	var delta, dropped int
	var size int64
	now := j.cfg.Now()
	err := j.db.Update(func(tx *bbolt.Tx) (err error) {
		delta, dropped = 0, 0
		entries := tx.Bucket(bucketEntries)
		for _, w := range batch {
			w.keys = nil
			if w.clear {
				if err := tx.DeleteBucket(bucketEntries); err != nil {
					return err
				}
				if entries, err = tx.CreateBucket(bucketEntries); err != nil {
					return err
				}
				delta = -int(j.entries.Load())
			}
			entries.FillPercent = 0.9 // what comes is always the last
			for i := range w.add {
				n, err := entries.NextSequence()
				if err != nil {
					return err
				}
				key := binary.BigEndian.AppendUint64(nil, n)
				row := binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))
				if err := entries.Put(key, appendEntry(row, &w.add[i])); err != nil {
					return err
				}
				w.keys = append(w.keys, key)
				delta++
			}
			for _, key := range w.forget {
				if entries.Get(key) == nil {
					continue
				}
				if err := entries.Delete(key); err != nil {
					return err
				}
				delta--
			}
		}
		size = tx.Size()
		return j.prune(entries, now, &delta, &dropped)
	})
	if err != nil {
		return err
	}
	if dropped > 0 {
		j.settled.forget()
	}
	j.entries.Add(int64(delta))
	j.size.Store(size)
	for _, w := range batch {
		j.added.Add(uint64(len(w.add)))
	}
	if dropped > 0 && j.dropped.Add(uint64(dropped)) == uint64(dropped) {
		j.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn,
			"the journal of revocations is full: entries go before their time", slog.Int("max_entries", j.cfg.MaxEntries))
	}
	return nil
}

// pruneAtOnce bounds what one commit does beyond making room for what it adds.
const pruneAtOnce = 256

// prune removes the oldest entries when their time is over, or there are too
// many.
func (j *Journal) prune(entries *bbolt.Bucket, now time.Time, delta, dropped *int) error {
	most := pruneAtOnce + max(*delta, 0)
	count, oldest := int(j.entries.Load())+*delta, now.Add(-j.cfg.Window).UnixMilli()
	var gone [][]byte
	c := entries.Cursor()
	for key, value := c.First(); key != nil && len(gone) < most; key, value = c.Next() {
		at, _, err := decodeEntry(value)
		if err != nil {
			return err
		}
		over := at <= oldest
		if !over && count-len(gone) <= j.cfg.MaxEntries {
			break
		}
		if !over {
			*dropped++
		}
		gone = append(gone, bytes.Clone(key))
	}
	for _, key := range gone {
		if err := entries.Delete(key); err != nil {
			return err
		}
	}
	*delta -= len(gone)
	return nil
}

// sweep removes what is over when nobody writes. The store calls it now and
// then.
func (j *Journal) sweep(ctx context.Context) error { return j.do(ctx, &journalWork{}) }
