package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis/conn"
)

// A process with a journal uses a primary only while the primary is certain to have
// every revocation in the journal. An unknown one fences the store, whether it
// appears on a new connection, before the first command, or in the check of every
// second. Then the journal is replayed on other connections.
//
//	            unknown primary                    replayed, same primaries
//	   open ───────────────────────▶ fenced ──────────────────────────────▶ open
//	                                  │  ▲
//	                                  └──┘ otherwise: retried

// errFenced is returned while the journal is being replayed.
var errFenced = errors.New("primary has changed, revocations are being replayed")

const (
	fenceInterval = time.Second // between checks of the primaries
	replayTimeout = time.Minute // of one replay
	fenceRetry    = 250 * time.Millisecond
	sweepEvery    = 60 // checks
)

// fence blocks a store while a primary may lack revocations.
type fence struct {
	journal *journal.Journal
	main    *Store // the fenced store
	store   *Store // a second store on the same data, which is never fenced
	raised  atomic.Bool
	wake    chan struct{} // of capacity 1

	mu    sync.Mutex
	known []string // primaries that have the journal, sorted; nil: fenced
	drop  []*conn.Conns

	replays, replayed, missing atomic.Uint64
	lastFailover               atomic.Int64 // Unix ms; 0: none
}

// allow returns an error for a connection to an unknown primary.
func (g *fence) allow(primary string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Contains(g.known, primary) {
		return nil
	}
	if g.known != nil {
		g.raiseLocked()
	}
	return errFenced
}

func (g *fence) raise() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known != nil {
		g.raiseLocked()
	}
}

// raiseLocked fences the store, and makes every open connection unusable.
func (g *fence) raiseLocked() {
	g.known = nil
	g.raised.Store(true)
	for _, l := range g.drop {
		l.Drop()
	}
	g.lastFailover.Store(g.store.cfg.now().UnixMilli())
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *fence) lift(primaries []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known = primaries
	g.raised.Store(false)
}

// primaries returns the identities of the current primaries, sorted. Connections to
// a server that is none any more are dropped.
func (g *fence) primaries(ctx context.Context) (found []string, err error) {
	var mu sync.Mutex
	err = g.store.client.Primaries(ctx, func(ctx context.Context, node *redis.Client) error {
		primary, err := conn.Identify(ctx, node)
		if err != nil {
			return fmt.Errorf("%s: %w", node.Options().Addr, err)
		}
		mu.Lock()
		defer mu.Unlock()
		found = append(found, primary)
		return nil
	})
	if err == nil && len(found) == 0 {
		err = errors.New("no primary")
	}
	if errors.Is(err, conn.ErrNotPrimary) {
		g.store.conns.Drop()
	}
	slices.Sort(found)
	return found, err
}

// start replays the journal unless the primaries have all of it, and starts the checks.
func (g *fence) start(ctx context.Context, main *Store) error {
	g.main = main
	if err := g.journal.Damage(); err != nil {
		main.cfg.Log.LogAttrs(ctx, slog.LevelError, "journal is damaged, store stays fenced until the loss is accepted", slog.Any("error", err))
	} else if err := g.catchUp(ctx); err != nil {
		return err
	}
	main.tasks.Go(func() { g.watch(main.background) })
	main.tasks.Go(func() { main.stream.follow(main.background) })
	return nil
}

// catchUp replays the journal unless the primaries have all of it.
func (g *fence) catchUp(ctx context.Context) error {
	known, err := g.journal.Primaries()
	if err != nil {
		return err
	}
	found, err := g.primaries(ctx)
	if redis.HasErrorPrefix(errors.Unwrap(err), "NOPERM") {
		return fmt.Errorf("journal needs the commands info and role: %w", err)
	}
	if err != nil {
		return err
	}
	if known != nil && subset(found, known) {
		g.lift(known)
		return nil
	}
	if known != nil {
		g.lastFailover.Store(g.store.cfg.now().UnixMilli())
	}
	if err := g.replay(ctx); err != nil && !errors.Is(err, store.ErrLost) {
		return err
	}
	return nil
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(name string) bool { return !slices.Contains(all, name) })
}

// watch checks the primaries until ctx ends.
func (g *fence) watch(ctx context.Context) {
	tick := time.NewTicker(fenceInterval)
	defer tick.Stop()
	for looks := 1; ; looks++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.wake:
		}
		g.check(ctx)
		if looks%sweepEvery == 0 {
			if err := g.journal.Sweep(ctx); err != nil && ctx.Err() == nil {
				g.store.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "sweeping the journal failed", slog.Any("error", err))
			}
		}
	}
}

// check fences the store if a primary is unknown, and replays until the fence
// is lifted. A primary that does not answer cannot be used either.
func (g *fence) check(ctx context.Context) {
	if !g.raised.Load() {
		limited, cancel := context.WithTimeout(ctx, max(g.store.cfg.ReadTimeout, fenceInterval))
		defer cancel()
		found, err := g.primaries(limited)
		g.mu.Lock()
		known := subset(found, g.known)
		g.mu.Unlock()
		if known && !errors.Is(err, conn.ErrNotPrimary) {
			return
		}
		g.raise()
	}
	logged := ""
	pauses := newBackOff(fenceRetry)
	for g.raised.Load() && ctx.Err() == nil {
		err := g.replay(ctx)
		if err == nil {
			return
		}
		if text := err.Error(); text != logged && ctx.Err() == nil {
			logged = text
			g.store.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "replay of revocations failed, store stays fenced, retrying", slog.Any("error", err))
		}
		if wait(ctx, pauses.NextBackOff()) != nil {
			return
		}
	}
}

// replay applies the journal to the primaries, and lifts the fence if they are
// still the same.
func (g *fence) replay(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	defer func() {
		if errors.Is(err, store.ErrLost) {
			g.main.setLost(true)
		}
	}()
	before, err := g.primaries(ctx)
	if err != nil {
		return err
	}
	if err := g.checkAge(ctx); err != nil {
		return err
	}
	entries, err := g.journal.All()
	if err != nil {
		return err
	}
	done, err := g.replayAll(ctx, entries)
	if err != nil {
		return err
	}
	after, err := g.primaries(ctx)
	if err != nil {
		return err
	}
	if !slices.Equal(before, after) {
		return errors.New("primary has changed again")
	}
	if err := errors.Join(g.forgetBeats(), g.journal.SetPrimaries(after)); err != nil {
		return err
	}
	g.replays.Add(1)
	g.replayed.Add(uint64(done.Records))
	g.store.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "revocations replayed",
		slog.Int("entries", len(entries)), slog.Int("records", done.Records), slog.Int("primaries", len(after)))
	g.lift(after)
	g.main.client.ReloadSlots(ctx)
	return nil
}

// acceptDamage starts a damaged journal again, and reports whether the primaries may lack
// revocations. They do not if they had the whole journal when it was written last.
func (g *fence) acceptDamage(ctx context.Context) (missing bool, err error) {
	if g.journal.Damage() == nil {
		return false, nil
	}
	found, err := g.primaries(ctx)
	if err != nil {
		return false, err
	}
	known := g.journal.LastPrimaries()
	if _, _, err := g.journal.Renew(ctx); err != nil {
		return false, err
	}
	return known == nil || !subset(found, known), nil
}
