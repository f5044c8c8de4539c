package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"maps"
	"strconv"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/redis/go-redis/v9"
)

// replayAll applies entries to the store, publishes the ones that were missing,
// and returns the number of changed records.
func (g *fence) replayAll(ctx context.Context, entries []revocation.Revocation) (int, error) {
	g.store.id.Store(g.main.id.Load())
	g.store.lost.Store(false)
	users, homeservers := journal.ByUser(entries)
	var (
		mu    sync.Mutex
		total int
		errs  []error
		wg    sync.WaitGroup
	)
	note := func(n int, err error) {
		mu.Lock()
		defer mu.Unlock()
		if total += n; err != nil && len(errs) < 3 {
			errs = append(errs, err)
		}
	}
	room := make(chan struct{}, replayers)
	for u, some := range users {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			note(g.replayUser(ctx, u, some))
		})
	}
	wg.Wait()
	for name, some := range homeservers {
		note(g.replayHomeserver(ctx, name, some))
	}
	if err := errors.Join(errs...); err != nil {
		return total, err
	}
	return total, g.publishMissing(ctx, entries)
}

// replayRaces bounds the retries of a replay of one user when other processes
// write.
const replayRaces = 32

// replayUser publishes before it swaps, unlike a first revocation. A process
// that dies in between, or a primary that has only one of both, leaves the
// records unchanged, so both are repeated. In the other order a missing event
// would leave no trace.
func (g *fence) replayUser(ctx context.Context, u store.UserKey, entries []revocation.Revocation) (int, error) {
	said := make(map[revocation.Revocation]bool)
	for range replayRaces {
		l, err := g.store.List(ctx, u)
		if err != nil {
			return 0, fmt.Errorf("replay: %w", err)
		}
		changes, restored, err := session.Replay(entries, l, g.store.cfg.Now())
		if err != nil || len(changes) == 0 {
			return 0, err
		}
		if err := g.announce(ctx, u.Homeserver, restored, said); err != nil {
			return 0, fmt.Errorf("replay: %w", err)
		}
		// Not as a revocation: that would be journaled, and wait for
		// replicas which a primary may lack that was just promoted.
		done, err := g.store.Swap(ctx, store.Write{User: u, Changes: changes})
		if err != nil {
			return 0, fmt.Errorf("replay: %w", err)
		}
		if done {
			return len(changes), nil
		}
	}
	return 0, errors.New("replay: others change a user's sessions all the time")
}

// announceAtOnce bounds the events that one script appends.
const announceAtOnce = 500

// announce publishes entries that were not published yet, without waiting for
// replicas.
func (g *fence) announce(ctx context.Context, homeserver string, entries []revocation.Revocation, said map[revocation.Revocation]bool) error {
	entries = slices.DeleteFunc(entries, func(e revocation.Revocation) bool { return said[e] })
	for some := range slices.Chunk(entries, announceAtOnce) {
		if err := g.store.publish(ctx, homeserver, g.events(ctx, some), false); err != nil {
			return err
		}
		for _, e := range some {
			said[e] = true
		}
	}
	return nil
}

// events returns the events of entries. An entry without an event was never
// published, and does not keep the store fenced.
func (g *fence) events(ctx context.Context, entries []revocation.Revocation) (out []store.FeedEvent) {
	for i := range entries {
		e, err := g.store.cfg.Announce(&entries[i], g.store.cfg.Now())
		if err != nil {
			g.store.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "restored revocation has no event", slog.Any("error", err))
			continue
		}
		if e.Data != nil { // not every revocation needs one
			out = append(out, e)
		}
	}
	return out
}

// replayHomeserver publishes and swaps in one script.
func (g *fence) replayHomeserver(ctx context.Context, name string, entries []revocation.Revocation) (int, error) {
	for range replayRaces {
		home, err := g.store.askHomeserver(ctx, name, time.Time{})
		if err != nil {
			return 0, fmt.Errorf("replay: %w", err)
		}
		record := home.record
		next, err := session.ReplayHomeserver(entries, record, g.store.cfg.Now())
		if err != nil || string(next) == string(record) {
			return 0, err
		}
		e, err := session.RevokedHomeserver(name, next)
		if err != nil {
			return 0, fmt.Errorf("replay: %w", err)
		}
		events := g.events(ctx, []revocation.Revocation{e})
		done, err := g.store.swap(ctx, g.store.homeserverCall(name, record, next, events), false)
		if err == nil && done {
			err = g.store.outliveCaches(ctx)
		}
		if err != nil {
			return 0, fmt.Errorf("replay: %w", err)
		}
		if done {
			return 1, nil
		}
	}
	return 0, errors.New("replay: others change a homeserver's record all the time")
}

// revoke makes a revocation. With a journal, its entries are journaled first,
// then it is made; if it did not take effect, the entries become void,
// otherwise they are published to the other processes. Other writes have no
// entries.
func (r *Store) revoke(ctx context.Context, of func() ([]revocation.Revocation, error), make func() (bool, error)) (bool, error) {
	if r.fence == nil {
		return make()
	}
	entries, err := of()
	if err != nil {
		return false, err
	}
	if len(entries) == 0 {
		return make()
	}
	if err := r.usable(ctx); err != nil {
		return false, err
	}
	n, err := r.cfg.Journal.Begin(ctx, entries)
	if err != nil {
		return false, err
	}
	done, err := make()
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

// JournalStats returns the figures of journal and replays; without a journal,
// zero.
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

// A revocation can survive without its event: in a cluster they are on
// different nodes, and a replica can have one and not the other. The records do
// not show that. So a replay reads the feeds too, from the oldest entry that a
// discharge can outlive, and publishes missing events. A homeserver's
// revocation and its event are one step.

// publishMissing publishes the events of entries that the feeds lack.
func (g *fence) publishMissing(ctx context.Context, entries []revocation.Revocation) error {
	missing := make(map[string]events)
	since := make(map[string]int64)
	now := g.store.cfg.Now()
	for i := range entries {
		e := &entries[i]
		if e.Kind == revocation.KindHomeserver || e.Kind == revocation.KindDevice {
			continue // the one has its event in the same script, the other needs none
		}
		if event, err := g.firstEvent(e); err != nil || event.Data == nil || !event.Until.After(now) {
			continue
		}
		of := missing[e.Homeserver]
		if of == nil {
			of = make(events)
			missing[e.Homeserver], since[e.Homeserver] = of, e.At
		}
		of[eventKey(e)] = e
		since[e.Homeserver] = min(since[e.Homeserver], e.At)
	}
	for homeserver, of := range missing {
		if err := g.removePublished(ctx, homeserver, since[homeserver], of); err != nil {
			return fmt.Errorf("look for missing events: %w", err)
		}
		for some := range slices.Chunk(slices.Collect(maps.Values(of)), announceAtOnce) {
			events := make([]store.FeedEvent, len(some))
			for i, e := range some {
				var err error
				if events[i], err = g.firstEvent(e); err != nil {
					return err
				}
			}
			if err := g.store.publish(ctx, homeserver, events, false); err != nil {
				return fmt.Errorf("publish missing events: %w", err)
			}
			g.missing.Add(uint64(len(events)))
		}
	}
	return nil
}

// firstEvent returns the event of an entry, kept as long as the event of the
// revocation itself.
func (g *fence) firstEvent(e *revocation.Revocation) (store.FeedEvent, error) {
	return g.store.cfg.Announce(e, time.UnixMilli(e.At))
}

// events are entries by their event keys.
type events map[revocation.Revocation]*revocation.Revocation

// eventKey returns the part that an entry has in common with its event.
func eventKey(e *revocation.Revocation) revocation.Revocation {
	if e.Kind == revocation.KindSession {
		return revocation.Revocation{Kind: e.Kind, Session: e.Session}
	}
	return revocation.Revocation{Kind: e.Kind, User: e.User, Except: e.Except, At: e.At}
}

// eventKeyOf returns the event key of an event, and zero for an event that is
// not about a session or a user, or malformed.
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
func (g *fence) removePublished(ctx context.Context, homeserver string, since int64, missing events) error {
	feed, lost, _ := g.store.layout.Feed(homeserver)
	full := redis.NewIntCmd(ctx, "exists", lost)
	if err := g.store.client.Do(ctx, full); err != nil {
		return err
	}
	if n, err := full.Result(); err != nil || n > 0 {
		clear(missing)
		return err
	}
	// The ids are times of the server.
	from := strconv.FormatInt(max(since-session.ClockSlack.Milliseconds(), 0), 10)
	for len(missing) > 0 {
		page := redis.NewXMessageSliceCmd(ctx, "xrange", feed, from, "+", "count", limits.FeedPage)
		if err := g.store.client.Do(ctx, page); err != nil {
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
