package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
)

// The feeds in the file:
//
//	bucket               key         value
//	"feeds" homeserver   number(8)   until(8, Unix ms) data
//	                     "lost"      until(8, Unix ms)
//
// Numbers begin at 1 and are consecutive; the last one is the sequence of the
// homeserver's bucket. "lost" is the time until which dropped events matter.
//
// A position is "id.number.digest": of the store, of the event, and of its
// content, since a file restored from a copy uses numbers again.
var (
	bucketFeeds = []byte("feeds")
	keyLost     = []byte("lost")
)

// appendEvents appends events to a homeserver's feed, and drops the oldest if
// there are too many.
func (b *Store) appendEvents(tx *bbolt.Tx, homeserver string, events []revocation.Line) error {
	if len(events) == 0 {
		return nil
	}
	feeds, err := tx.CreateBucketIfNotExists(bucketFeeds)
	if err != nil {
		return err
	}
	feed, err := feeds.CreateBucketIfNotExists(appendName(nil, homeserver))
	if err != nil {
		return err
	}
	for _, e := range events {
		n, err := feed.NextSequence()
		if err != nil {
			return err
		}
		value := binary.BigEndian.AppendUint64(make([]byte, 0, record.UntilSize+len(e.Data)), uint64(e.Until))
		if err := feed.Put(binary.BigEndian.AppendUint64(nil, n), append(value, e.Data...)); err != nil {
			return err
		}
	}
	return b.boundFeed(feed)
}

// boundFeed drops the oldest events of a feed that has too many.
func (b *Store) boundFeed(feed *bbolt.Bucket) error {
	last, now := feed.Sequence(), b.cfg.now().UnixMilli()
	for {
		k, v := feed.Cursor().First()
		first, ok := eventNumber(k)
		if !ok || last-first < uint64(b.cfg.MaxEvents) {
			return nil
		}
		until, _, err := record.SplitEvent(v)
		if err == nil && until > now {
			if err := noteLost(feed, until); err != nil {
				return err
			}
		}
		if err := feed.Delete(k); err != nil {
			return err
		}
	}
}

// noteLost records that an event was dropped early.
func noteLost(feed *bbolt.Bucket, until int64) error {
	if lostUntil(feed) >= until {
		return nil
	}
	return feed.Put(keyLost, binary.BigEndian.AppendUint64(nil, uint64(until)))
}

func lostUntil(feed *bbolt.Bucket) int64 {
	if v := feed.Get(keyLost); len(v) == record.UntilSize {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// eventNumber decodes the key of an event. "lost" sorts after them.
func eventNumber(key []byte) (uint64, bool) {
	if len(key) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key), true
}

// Publish appends the events of revocations to a homeserver's feed.
func (b *Store) Publish(ctx context.Context, homeserver string, revocations ...revocation.Revocation) (err error) {
	defer wrap(&err, "publish")
	events, err := revocation.Lines(revocations)
	err = b.update(ctx, func(tx *bbolt.Tx) error {
		return b.appendEvents(tx, homeserver, events)
	}, errors.Join(err, limits.CheckPublish(homeserver, events)))
	if err == nil {
		b.wakes.wake(homeserver, events)
	}
	return err
}

// ReadFeed returns the next events after a position.
func (b *Store) ReadFeed(ctx context.Context, homeserver, after string) (page store.FeedPage, err error) {
	defer wrap(&err, "read feed")
	err = b.view(ctx, func(tx *bbolt.Tx) error {
		page.Gap = after != ""
		feeds := tx.Bucket(bucketFeeds)
		if feeds == nil {
			return nil
		}
		feed := feeds.Bucket(appendName(nil, homeserver))
		if feed == nil {
			return nil
		}
		next := uint64(0)
		if n, ok := b.continues(feed, after); ok {
			page.Gap, next = false, n+1
		} else if after == "" {
			page.Gap = lostUntil(feed) > b.cfg.now().UnixMilli()
		}
		return b.readEvents(feed, next, &page)
	}, limits.CheckHomeserver(homeserver))
	return page, err
}

func (b *Store) readEvents(feed *bbolt.Bucket, from uint64, page *store.FeedPage) error {
	c := feed.Cursor()
	for k, v := c.Seek(binary.BigEndian.AppendUint64(nil, from)); k != nil && len(page.Entries) < limits.FeedPage; k, v = c.Next() {
		n, ok := eventNumber(k)
		if !ok {
			continue
		}
		_, data, err := record.SplitEvent(v)
		if err != nil {
			return err
		}
		page.Entries = append(page.Entries, store.FeedEntry{
			Position: b.position(n, v), Data: bytes.Clone(data),
		})
	}
	return nil
}

// position returns the position of an event.
func (b *Store) position(n uint64, value []byte) string {
	h := fnv.New32a()
	h.Write(value)
	return marker.PositionPrefix(b.id) + strconv.FormatUint(n, 10) + "." + strconv.FormatUint(uint64(h.Sum32()), 36)
}

// continues returns the number of the event at a position, if it is there or
// was the last one.
func (b *Store) continues(feed *bbolt.Bucket, position string) (uint64, bool) {
	rest, ok := strings.CutPrefix(position, marker.PositionPrefix(b.id))
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n == 0 || n > feed.Sequence() {
		return 0, false
	}
	if v := feed.Get(binary.BigEndian.AppendUint64(nil, n)); v != nil {
		return n, b.position(n, v) == position
	}
	return n, n == feed.Sequence()
}

// AwaitFeed returns when an entry was added after a position, or ctx ends.
func (b *Store) AwaitFeed(ctx context.Context, homeserver, after string) error {
	wake := b.wakes.next(homeserver)
	page, err := b.ReadFeed(ctx, homeserver, after)
	if err != nil || page.Gap && after != "" || len(page.Entries) > 0 {
		return err
	}
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wakes wakes readers of feeds. It has a channel for each homeserver with readers.
type wakes struct{ waiting sync.Map }

// next returns a channel that is closed when an entry is added.
func (w *wakes) next(homeserver string) <-chan struct{} {
	c, _ := w.waiting.LoadOrStore(homeserver, make(chan struct{}))
	return c.(chan struct{})
}

func (w *wakes) wake(homeserver string, events []revocation.Line) {
	if len(events) == 0 {
		return
	}
	if c, ok := w.waiting.LoadAndDelete(homeserver); ok {
		close(c.(chan struct{}))
	}
}

// sweepFeeds removes events whose time is over. Like rows, in short steps.
func (b *Store) sweepFeeds(ctx context.Context) error {
	var names [][]byte
	err := b.db.View(func(tx *bbolt.Tx) error {
		feeds := tx.Bucket(bucketFeeds)
		if feeds == nil {
			return nil
		}
		return feeds.ForEachBucket(func(name []byte) error {
			names = append(names, bytes.Clone(name))
			return nil
		})
	})
	for _, name := range names {
		for more := true; more && err == nil; {
			if err = ctx.Err(); err == nil {
				more, err = b.trimFeed(name)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("remove old events: %w", err)
	}
	return nil
}

// trimFeed removes some events from the beginning of a feed, up to the first
// that must stay. It looks first, so that nothing is written for nothing.
func (b *Store) trimFeed(name []byte) (more bool, err error) {
	now := b.cfg.now()
	var due [][]byte
	err = b.db.View(func(tx *bbolt.Tx) error {
		due = overdue(tx.Bucket(bucketFeeds).Bucket(name), now)
		return nil
	})
	if err != nil || len(due) == 0 {
		return false, err
	}
	return len(due) == sweepRemove, b.db.Update(func(tx *bbolt.Tx) error {
		feed := tx.Bucket(bucketFeeds).Bucket(name)
		for _, k := range due {
			if err := feed.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

func overdue(feed *bbolt.Bucket, now time.Time) (due [][]byte) {
	c := feed.Cursor()
	for k, v := c.First(); k != nil && len(due) < sweepRemove; k, v = c.Next() {
		_, ok := eventNumber(k)
		until, _, err := record.SplitEvent(v)
		if !ok || err == nil && until > now.UnixMilli() {
			break
		}
		due = append(due, bytes.Clone(k))
	}
	return due
}
