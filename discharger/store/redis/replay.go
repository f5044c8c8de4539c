package redis

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/limits"
)

// replayAll applies revocations to the records.
func (g *fence) replayAll(ctx context.Context, entries []revocation.Revocation) (store.Replayed, error) {
	g.store.id.Store(g.main.id.Load())
	g.store.lost.Store(false)
	done, err := g.store.cfg.Replayer.Replay(ctx, (*target)(g), entries, g.store.cfg.now())
	g.missing.Add(uint64(done.Events))
	return done, err
}

// target is the store during a replay, when it is fenced: it writes through the
// second store.
type target fence

var _ store.ReplayTarget = (*target)(nil)

func (t *target) List(ctx context.Context, user store.UserKey) (store.Listing, error) {
	return t.store.List(ctx, user)
}

func (t *target) Swap(ctx context.Context, w store.Write) (bool, error) { return t.store.Swap(ctx, w) }

func (t *target) LoadHomeserver(ctx context.Context, homeserver string) ([]byte, error) {
	home, err := t.store.askHomeserver(ctx, homeserver, time.Time{})
	return home.record, err
}

// SwapHomeserver replaces a homeserver's record and publishes in one script.
func (t *target) SwapHomeserver(ctx context.Context, homeserver string, old, new []byte, revocations ...revocation.Revocation) (bool, error) {
	events, err := revocation.Lines(revocations)
	if err != nil {
		return false, err
	}
	done, err := t.store.swap(ctx, t.store.homeserverCall(homeserver, old, new, events), false)
	if err == nil && done {
		err = t.store.outliveCaches(ctx)
	}
	return done, err
}

// publishAtOnce bounds the events that one script appends.
const publishAtOnce = 500

func (t *target) Publish(ctx context.Context, homeserver string, revocations ...revocation.Revocation) error {
	events, err := revocation.Lines(revocations)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(events, publishAtOnce) {
		if err := t.store.publish(ctx, homeserver, some, false); err != nil {
			return err
		}
	}
	return nil
}

// revoke makes a write. With a journal, the entries of its revocations are journaled
// before. If the write has no effect, they become void; otherwise they are published
// to the other processes.
func (r *Store) revoke(ctx context.Context, entries []revocation.Revocation, write func() (bool, error)) (bool, error) {
	if r.fence == nil || len(entries) == 0 {
		return write()
	}
	if err := r.usable(ctx, nil); err != nil {
		return false, err
	}
	n, err := r.cfg.Journal.Begin(ctx, entries)
	if err != nil {
		return false, err
	}
	done, err := write()
	if err != nil {
		return done, err
	}
	if done {
		if err := r.stream.publish(ctx, n.Entries); err != nil {
			return false, err
		}
	}
	if err := r.cfg.Journal.Commit(ctx, n, done); err != nil {
		return false, err
	}
	return done, nil
}

// JournalStats returns the figures of journal and replays; without a journal, zero.
func (r *Store) JournalStats() journal.Stats {
	g := r.fence
	if g == nil {
		return journal.Stats{}
	}
	s := g.journal.Stats()
	s.Replays, s.Replayed, s.Missing, s.Shut = g.replays.Load(), g.replayed.Load(), g.missing.Load(), g.raised.Load()
	if ms := g.lastFailover.Load(); ms != 0 {
		s.LastFailover = time.UnixMilli(ms)
	}
	return s
}

// PublishMissing reads the feeds and publishes the events that they lack. A revocation
// can survive without its event: in a cluster they are on different nodes, and a replica
// can have one and not the other. A homeserver's revocation and its event are one step.
func (t *target) PublishMissing(ctx context.Context, revocations []revocation.Revocation) (published int, err error) {
	missing := make(map[string]events)
	for _, e := range revocations {
		if missing[e.Homeserver] == nil {
			missing[e.Homeserver] = make(events)
		}
		missing[e.Homeserver][eventKey(&e)] = e
	}
	for homeserver, of := range missing {
		if err := t.removePublished(ctx, homeserver, of); err != nil {
			return published, fmt.Errorf("look for missing events: %w", err)
		}
		if err := t.Publish(ctx, homeserver, slices.Collect(maps.Values(of))...); err != nil {
			return published, fmt.Errorf("publish missing events: %w", err)
		}
		published += len(of)
	}
	return published, nil
}

// events are revocations by their event keys.
type events map[revocation.Revocation]revocation.Revocation

// eventKey returns the members that an entry has in common with its event.
func eventKey(e *revocation.Revocation) revocation.Revocation {
	if e.Kind == revocation.KindSession {
		return revocation.Revocation{Kind: e.Kind, Session: e.Session}
	}
	return revocation.Revocation{Kind: e.Kind, User: e.User, Except: e.Except, At: e.At}
}

// eventKeyOf returns the event key of an event, zero if the event is malformed or
// not about a session or a user.
func eventKeyOf(data string) revocation.Revocation {
	e, err := revocation.ParseEvent([]byte(data))
	switch {
	case err != nil || e.All || e.Session == (caveat.SessionID{}) && e.Device != "":
		return revocation.Revocation{}
	case e.Session != (caveat.SessionID{}):
		return revocation.Revocation{Kind: revocation.KindSession, Session: e.Session}
	}
	return revocation.Revocation{Kind: revocation.KindUser, User: e.User, Except: e.Except, At: e.At.UnixMilli()}
}

// removePublished deletes from missing every entry whose event is in the feed.
// If the feed was truncated, it clears missing: its earlier content is unknown.
func (t *target) removePublished(ctx context.Context, homeserver string, missing events) error {
	feed, lost, _ := t.store.layout.Feed(homeserver)
	full := redis.NewIntCmd(ctx, "exists", lost)
	if err := t.store.client.Do(ctx, full); err != nil {
		return err
	}
	if n, err := full.Result(); err != nil || n > 0 {
		clear(missing)
		return err
	}
	since := int64(math.MaxInt64)
	for _, e := range missing {
		since = min(since, e.At)
	}
	// The ids are times of the server.
	from := strconv.FormatInt(max(since-store.ClockSlack.Milliseconds(), 0), 10)
	for len(missing) > 0 {
		page := redis.NewXMessageSliceCmd(ctx, "xrange", feed, from, "+", "count", limits.FeedPage)
		if err := t.store.client.Do(ctx, page); err != nil {
			return err
		}
		messages, err := page.Result()
		if err != nil {
			return err
		}
		for _, m := range messages {
			data, _ := m.Values["e"].(string)
			delete(missing, eventKeyOf(data))
			from = "(" + m.ID
		}
		if len(messages) < limits.FeedPage {
			return nil
		}
	}
	return nil
}
