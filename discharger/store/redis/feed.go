package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
)

// Feeds in Redis: a stream for each homeserver, in the bucket of its record.
// A user's records are on another node of a cluster perhaps, so events are
// added after the swap has taken effect and before it is acknowledged. Who
// does not get the acknowledgement repeats the request, and then they are added
// again.
//
// A position is "id.entry": of the store and of the entry in the stream. A
// position is good if its entry is there, or was the last one ever made. After
// a failover to a replica that lags behind, neither is true of what was lost.
// The entries before it are still there then, and were read. A store with a
// journal publishes again what was lost, so the reader goes on there, and gets
// what was published in the last minute before once more, since the clocks of
// two primaries differ. Without a journal the reader begins anew.

//go:embed feed_append.lua
var feedAppendText string

//go:embed feed_publish.lua
var feedPublishText string

//go:embed feed_read.lua
var feedReadText string

var (
	feedPublishScript = newScript(feedAppendText + feedPublishText)
	feedReadScript    = newScript(feedReadText)
)

// feedBlock is how long a server is asked to wait for an event. Afterwards the
// feed is read again, to see that it is still the one it was.
const feedBlock = 5 * time.Second

// feedClient makes the client that waits for events. Each homeserver that is
// followed takes one of its connections, and none of those that requests wait
// for.
func feedClient(cfg Config, l *links) (*client, error) {
	cfg.Unpipelined, cfg.PoolSize = true, 1024
	return newClient(cfg, l)
}

// feedCall is a call of a script that is about a feed.
func (r *Store) feedCall(s script, homeserver string, args ...any) call {
	key, lost, storeID := r.layout.feed(homeserver)
	return call{script: s, key: key, storeID: storeID, more: []string{lost}, args: append([]any{*r.id.Load()}, args...)}
}

// appendEvents adds events to a script's arguments.
func appendEvents(args []any, events []store.FeedEvent) []any {
	for _, e := range events {
		args = append(args, e.Until.UnixMilli(), string(e.Data))
	}
	return args
}

// Publish appends events to a homeserver's feed.
func (r *Store) Publish(ctx context.Context, homeserver string, events ...store.FeedEvent) error {
	if err := errors.Join(limits.CheckPublish(homeserver, events), r.opened()); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return r.publish(ctx, homeserver, events, true)
}

// publish appends events, if there are any, and waits until they are durable if
// they are to be.
func (r *Store) publish(ctx context.Context, homeserver string, events []store.FeedEvent, durable bool) error {
	if len(events) == 0 {
		return nil
	}
	c := r.feedCall(feedPublishScript, homeserver, appendEvents([]any{r.cfg.MaxEvents}, events)...)
	if _, err := r.swap(ctx, c, durable); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// ReadFeed returns the next events after a position.
func (r *Store) ReadFeed(ctx context.Context, homeserver, after string) (store.FeedPage, error) {
	page, err := r.readFeed(ctx, homeserver, after)
	if err != nil {
		return store.FeedPage{}, fmt.Errorf("read feed: %w", err)
	}
	return page, nil
}

func (r *Store) readFeed(ctx context.Context, homeserver, after string) (page store.FeedPage, err error) {
	if err := limits.CheckHomeserver(homeserver); err != nil {
		return page, err
	}
	if err := r.usable(ctx); err != nil {
		return page, err
	}
	prefix := marker.PositionPrefix(*r.id.Load())
	entry, known := entryAt(prefix, after)
	answer, err := r.ask(ctx, r.feedCall(feedReadScript, homeserver, entry, limits.FeedPage, r.overlap().Milliseconds()))
	if err != nil {
		return page, err
	}
	got, err := answer.Slice()
	if err != nil {
		return page, err
	}
	if len(got) == 1 && got[0] == int64(swapLost) {
		return page, r.lose()
	}
	if len(got) < 2 || len(got)%2 != 0 {
		return page, fmt.Errorf("script answered with %d values", len(got))
	}
	page.Gap = got[1] == int64(1) || !known
	for i := 2; i < len(got); i += 2 {
		id, ok1 := got[i].(string)
		data, ok2 := got[i+1].(string)
		if !ok1 || !ok2 {
			return store.FeedPage{}, record.ErrDamaged
		}
		page.Entries = append(page.Entries, store.FeedEntry{Position: prefix + id, Data: []byte(data)})
	}
	return page, nil
}

// feedOverlap is by how much the clock of a primary may be behind that of the
// one before it.
const feedOverlap = time.Minute

// overlap returns by how much a reader goes back whose position was lost; 0: to
// the beginning.
func (r *Store) overlap() time.Duration {
	if r.guard == nil {
		return 0
	}
	return feedOverlap
}

// entryAt returns the entry of a position, "" for the beginning, and whether
// the position can be this store's.
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

// plainNumber reports whether s is a number as Redis writes it.
func plainNumber(s string) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && strconv.FormatUint(n, 10) == s
}

// AwaitFeed returns when something has been added after a position, after some
// seconds in any case, or when ctx ends.
func (r *Store) AwaitFeed(ctx context.Context, homeserver, after string) error {
	if err := r.awaitFeed(ctx, homeserver, after); err != nil {
		return fmt.Errorf("wait for events: %w", err)
	}
	return nil
}

func (r *Store) awaitFeed(ctx context.Context, homeserver, after string) error {
	if err := limits.CheckHomeserver(homeserver); err != nil {
		return err
	}
	if err := r.usable(ctx); err != nil {
		return err
	}
	entry, known := entryAt(marker.PositionPrefix(*r.id.Load()), after)
	if !known {
		return nil
	}
	if entry == "" {
		entry = "0-0"
	}
	key, _, _ := r.layout.feed(homeserver)
	var answer *redis.XStreamSliceCmd
	err := await(ctx, func() {
		answer = r.waiting.XRead(ctx, &redis.XReadArgs{Streams: []string{key, entry}, Count: 1, Block: feedBlock})
	})
	if err != nil {
		return err
	}
	if err := answer.Err(); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	return nil
}
