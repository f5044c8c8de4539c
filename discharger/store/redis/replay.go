package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
)

// replayAll makes the store show what entries say, and returns how many records
// had to be changed for that, which it publishes too.
func (g *guardian) replayAll(ctx context.Context, entries []revocation.Revocation) (int, error) {
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

// replayRaces bounds how often a replay of one user is begun again because
// other processes write there.
const replayRaces = 32

// replayUser publishes first and swaps then, other than a revocation does that
// is made for the first time. What is published is true in any case. Whoever
// dies in between, or is followed by a primary that has only one of the two,
// finds the records unchanged and does both again; the other way round, nothing
// would be left to show that an event is missing.
func (g *guardian) replayUser(ctx context.Context, u store.UserKey, entries []revocation.Revocation) (int, error) {
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

// announceAtOnce bounds what one script appends to a feed.
const announceAtOnce = 500

// announce publishes what has not been said yet of the entries. It does not
// wait for replicas either.
func (g *guardian) announce(ctx context.Context, homeserver string, entries []revocation.Revocation, said map[revocation.Revocation]bool) error {
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

// events are what has to be said of entries. One of which nothing can be said
// was never announced by anybody, and does not keep the store shut.
func (g *guardian) events(ctx context.Context, entries []revocation.Revocation) (out []store.FeedEvent) {
	for i := range entries {
		e, err := g.store.cfg.Announce(&entries[i], g.store.cfg.Now())
		if err != nil {
			g.store.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "a revocation was restored that cannot be announced", slog.Any("error", err))
			continue
		}
		if e.Data != nil { // not every revocation needs one
			out = append(out, e)
		}
	}
	return out
}

// replayHomeserver does both in one script.
func (g *guardian) replayHomeserver(ctx context.Context, name string, entries []revocation.Revocation) (int, error) {
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

// revoke makes a revocation: with a journal, it is written there first, then
// to the store, and if that says it did not happen, taken out of the journal
// again; if it did, other processes are told. What is no revocation has no
// entries.
func (r *Store) revoke(ctx context.Context, of func() ([]revocation.Revocation, error), make func() (bool, error)) (bool, error) {
	if r.guard == nil {
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
		if err := r.peers.tell(ctx, n.Entries); err != nil {
			return false, err
		}
	}
	if err := r.cfg.Journal.Commit(ctx, n, done); err != nil {
		return false, err
	}
	return done, nil
}

// JournalStats returns them; without a journal, all is zero.
func (r *Store) JournalStats() journal.Stats {
	g := r.guard
	if g == nil {
		return journal.Stats{}
	}
	s := g.journal.Stats()
	s.Replays, s.Replayed, s.Missing, s.Shut = g.replays.Load(), g.replayed.Load(), g.missing.Load(), g.shut.Load()
	if ms := g.lastFailover.Load(); ms != 0 {
		s.LastFailover = time.UnixMilli(ms)
	}
	return s
}
