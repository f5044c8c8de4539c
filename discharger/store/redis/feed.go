package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
	"github.com/discharger/discharger/discharger/store/redis/conn"
)

// A feed is a stream in the hash tag of its homeserver's record. The records of
// a user can be on another node of a cluster, so events are added after the
// swap took effect and before it is acknowledged. A repeated swap adds them again.
//
// A position is "id.entry": of the store and of the entry in the stream. It is valid if
// the entry is there, or was the last one. After a failover that lost it, the reader of a
// store with a journal, which publishes lost events again, goes back by a minute, since
// the clocks of two primaries differ. Without a journal it starts from the beginning.

// feedBlock is how long a read waits for an event. Then the feed is checked again.
const feedBlock = 5 * time.Second

// feedCall returns a call of a script on a feed.
func (r *Store) feedCall(s script, homeserver string, args ...any) call {
	key, lost, bucket := r.layout.Feed(homeserver)
	return call{script: s, key: key, identity: r.layout.Identity[bucket], more: []string{lost}, args: append([]any{*r.id.Load()}, args...)}
}

// appendEvents appends events to the arguments of a script.
func appendEvents(args []any, events []revocation.Line) []any {
	for _, e := range events {
		args = append(args, e.Until, string(e.Data))
	}
	return args
}

// Publish appends the events of revocations to a homeserver's feed.
func (r *Store) Publish(ctx context.Context, homeserver string, revocations ...revocation.Revocation) (err error) {
	defer wrap(&err, "publish")
	events, err := revocation.Lines(revocations)
	if err := errors.Join(err, limits.CheckPublish(homeserver, events), r.opened()); err != nil {
		return err
	}
	return r.publish(ctx, homeserver, events, true)
}

// publish appends events, and waits for their durability if durable is set.
func (r *Store) publish(ctx context.Context, homeserver string, events []revocation.Line, durable bool) error {
	if len(events) == 0 {
		return nil
	}
	c := r.feedCall(feedPublishScript, homeserver, appendEvents([]any{r.cfg.MaxEvents}, events)...)
	_, err := r.swap(ctx, c, durable)
	return err
}

// ReadFeed returns the next events after a position.
func (r *Store) ReadFeed(ctx context.Context, homeserver, after string) (page store.FeedPage, err error) {
	defer wrap(&err, "read feed")
	if err := r.usable(ctx, limits.CheckHomeserver(homeserver)); err != nil {
		return page, err
	}
	overlap := time.Duration(0) // a reader whose position was lost starts at the beginning
	if r.fence != nil {
		overlap = feedOverlap
	}
	prefix := marker.PositionPrefix(*r.id.Load())
	entry, known := entryAt(prefix, after)
	answer, err := r.ask(ctx, r.feedCall(feedReadScript, homeserver, entry, limits.FeedPage, overlap.Milliseconds()))
	if err != nil {
		return page, err
	}
	got, err := answer.Slice()
	if err != nil {
		return page, err
	}
	if len(got) == 1 && got[0] == int64(swapLost) {
		return page, r.markLost()
	}
	if len(got) < 2 || len(got)%2 != 0 {
		return page, fmt.Errorf("script answered with %d values", len(got))
	}
	page.Gap = got[1] == int64(1) || !known
	for i := 2; i < len(got); i += 2 {
		id, ok1 := got[i].(string)
		data, ok2 := got[i+1].(string)
		if !ok1 || !ok2 {
			return page, record.ErrDamaged
		}
		page.Entries = append(page.Entries, store.FeedEntry{Position: prefix + id, Data: []byte(data)})
	}
	return page, nil
}

// feedOverlap is how far the clock of a primary can be behind the clock of its
// predecessor.
const feedOverlap = time.Minute

// entryAt returns the id in a position, "" for the start of the feed, and
// whether the position can be one of this store.
func entryAt(prefix, position string) (entry string, ok bool) {
	if position == "" {
		return "", true
	}
	entry, ok = strings.CutPrefix(position, prefix)
	ms, seq, dash := strings.Cut(entry, "-")
	if !ok || !dash || !plainNumber(ms) || !plainNumber(seq) {
		return "", false
	}
	return entry, true
}

// plainNumber reports whether s is a number as Redis formats it.
func plainNumber(s string) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && strconv.FormatUint(n, 10) == s
}

// AwaitFeed returns when an entry was added after a position, after some
// seconds, or when ctx ends.
func (r *Store) AwaitFeed(ctx context.Context, homeserver, after string) (err error) {
	defer wrap(&err, "wait for events")
	if err := r.usable(ctx, limits.CheckHomeserver(homeserver)); err != nil {
		return err
	}
	entry, known := entryAt(marker.PositionPrefix(*r.id.Load()), after)
	if !known {
		return nil
	}
	key, _, _ := r.layout.Feed(homeserver)
	_, err = r.readStream(ctx, key, cmp.Or(entry, "0-0"), 1, feedBlock)
	return err
}

// readStream returns the next entries of a stream after an id. It waits for the
// first one, at most for block.
func (r *Store) readStream(ctx context.Context, key, after string, count int64, block time.Duration) ([]redis.XMessage, error) {
	var answer *redis.XStreamSliceCmd
	err := conn.Await(ctx, func() {
		answer = r.waiting.XRead(ctx, &redis.XReadArgs{Streams: []string{key, after}, Count: count, Block: block})
	})
	if err != nil {
		return nil, err
	}
	streams, err := answer.Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil:
		return nil, err
	case len(streams) != 1:
		return nil, fmt.Errorf("redis answered with %d streams instead of 1", len(streams))
	}
	return streams[0].Messages, nil
}
