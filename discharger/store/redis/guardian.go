package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
)

// Replicas confirm nothing before a primary answers, so a failover can take
// back what was acknowledged: a client's next refresh sorts that out, but a
// session that was logged out lives again. Therefore a process with a journal
// uses a primary only while it knows that all it has revoked is there, and all
// that others have told it of. A primary that it does not know shuts the store
// for this process, whether it is met on a new connection, before that is used
// for anything else, or by the check that is made every second. The journal is
// then replayed, on connections of its own, and when the primaries are still
// the same afterwards, the store opens again.
//
//	            unknown primary                  replayed, same primaries
//	   open ───────────────────────▶ shut ──────────────────────────────▶ open
//	                                  │  ▲
//	                                  └──┘ anything else: in a moment, again

// errShut is returned while the journal is being replayed.
var errShut = errors.New("the primary has changed, and revocations of this process are being replayed")

const (
	guardInterval = time.Second // between looks at the primaries
	guardTimeout  = time.Minute // of one replay
	guardRetry    = 250 * time.Millisecond
	sweepEvery    = 60 // looks
	replayers     = 16 // users that are replayed at the same time
)

// guardian keeps a store shut while a primary may lack revocations.
type guardian struct {
	journal *journal.Journal
	main    *Store // the store that it keeps
	store   *Store // a second one, on the same data, that is never shut
	shut    atomic.Bool
	alarm   chan struct{} // with room for one

	mu    sync.Mutex
	known map[string]bool // nil: shut
	drop  []*links

	stop context.CancelFunc
	done sync.WaitGroup

	replays, replayed, missing atomic.Uint64
	lastFailover               atomic.Int64 // Unix ms; 0: none
}

// admit lets a connection be used if its primary is known.
func (g *guardian) admit(primary string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known[primary] {
		return nil
	}
	if g.known != nil {
		g.shutLocked()
	}
	return errShut
}

func (g *guardian) shutNow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known != nil {
		g.shutLocked()
	}
}

// shutLocked makes every connection useless first: what is sent after it
// returns is sent to a primary that has been looked at.
func (g *guardian) shutLocked() {
	g.known = nil
	g.shut.Store(true)
	for _, l := range g.drop {
		l.drop()
	}
	g.lastFailover.Store(g.store.cfg.Now().UnixMilli())
	select {
	case g.alarm <- struct{}{}:
	default:
	}
}

func (g *guardian) open(primaries map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known = maps.Clone(primaries)
	g.shut.Store(false)
}

// primaries returns who the primaries are now.
func (g *guardian) primaries(ctx context.Context) (map[string]bool, error) {
	var mu sync.Mutex
	found := make(map[string]bool)
	err := g.store.client.primaries(ctx, func(ctx context.Context, node *redis.Client) error {
		who, err := identifyPrimary(ctx, node)
		if err != nil {
			return fmt.Errorf("%s: %w", node.Options().Addr, err)
		}
		mu.Lock()
		defer mu.Unlock()
		found[who] = true
		return nil
	})
	if err == nil && len(found) == 0 {
		err = errors.New("there is no primary")
	}
	return found, err
}

// start makes sure that the primaries have everything, and watches them from
// then on.
func (g *guardian) start(ctx context.Context, main *Store) error {
	g.main = main
	if g.damaged(ctx) {
		g.watchAll()
		return nil
	}
	known, err := g.journal.Primaries()
	if err != nil {
		return err
	}
	found, err := g.primaries(ctx)
	if redis.HasErrorPrefix(errors.Unwrap(err), "NOPERM") {
		return fmt.Errorf("the journal of revocations needs the commands info and role: %w", err)
	}
	if err != nil {
		return err
	}
	if known != nil && !subset(found, known) {
		g.lastFailover.Store(g.store.cfg.Now().UnixMilli())
	}
	if known != nil && subset(found, known) {
		g.open(known)
	} else if err := g.replay(ctx); err != nil && !errors.Is(err, store.ErrLost) {
		return err
	}
	g.watchAll()
	return nil
}

// watchAll watches the primaries and follows the other processes.
func (g *guardian) watchAll() {
	watch, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.done.Go(func() { g.watch(watch) })
	g.done.Go(func() { g.main.peers.follow(watch) })
}

func subset(some, all map[string]bool) bool {
	for name := range some {
		if !all[name] {
			return false
		}
	}
	return true
}

// watch looks at the primaries until it is told to stop.
func (g *guardian) watch(ctx context.Context) {
	tick := time.NewTicker(guardInterval)
	defer tick.Stop()
	for looks := 1; ; looks++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.alarm:
		}
		g.look(ctx)
		if looks%sweepEvery == 0 {
			if err := g.journal.Sweep(ctx); err != nil && ctx.Err() == nil {
				g.store.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the journal of revocations cannot be tidied", slog.Any("error", err))
			}
		}
	}
}

// look shuts the store if a primary is not known, and opens it again when it
// can. A primary that cannot be asked is none that could be used.
func (g *guardian) look(ctx context.Context) {
	if !g.shut.Load() {
		ask, cancel := context.WithTimeout(ctx, max(g.store.cfg.ReadTimeout, guardInterval))
		defer cancel()
		found, err := g.primaries(ask)
		g.mu.Lock()
		known := subset(found, g.known)
		g.mu.Unlock()
		demoted := errors.Is(err, errNotPrimary)
		if demoted {
			g.store.links.drop() // it was one, when the connection was made
		}
		if known && !demoted {
			return
		}
		g.shutNow()
	}
	said := ""
	for g.shut.Load() && ctx.Err() == nil {
		err := g.replay(ctx)
		if err == nil {
			return
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			g.store.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocations cannot be replayed yet", slog.Any("error", err))
		}
		if wait(ctx, guardRetry) != nil {
			return
		}
	}
}

// replay makes the primaries have all that the journal has, and opens the
// store if they are still the same then.
func (g *guardian) replay(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	before, err := g.primaries(ctx)
	if err != nil {
		if errors.Is(err, errNotPrimary) {
			g.store.links.drop()
		}
		return err
	}
	if err := g.checkAge(ctx); err != nil {
		if errors.Is(err, store.ErrLost) {
			g.main.setLost(true)
		}
		return err
	}
	entries, err := g.journal.All()
	if err != nil {
		return err
	}
	changed, err := g.replayAll(ctx, entries)
	if errors.Is(err, store.ErrLost) {
		g.main.setLost(true)
	}
	if err != nil {
		return err
	}
	after, err := g.primaries(ctx)
	if err != nil {
		return err
	}
	if !maps.Equal(before, after) {
		return errors.New("the primary has changed again")
	}
	if err := errors.Join(g.forgetBeats(), g.journal.SetPrimaries(after)); err != nil {
		return err
	}
	g.replays.Add(1)
	g.replayed.Add(uint64(changed))
	g.store.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "revocations have been replayed",
		slog.Int("entries", len(entries)), slog.Int("records", changed), slog.Int("primaries", len(after)))
	g.open(after)
	g.main.client.moved(ctx)
	return nil
}

// close stops watching.
func (g *guardian) close() {
	if g.stop != nil {
		g.stop()
	}
	g.done.Wait()
}
