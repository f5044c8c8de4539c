package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store/redis/conn"
)

const (
	watchInterval = 2 * time.Second
	lossesEvery   = 30 // looks
)

// watcher holds the results of the checks.
type watcher struct {
	refused atomic.Pointer[conn.RefusedError] // nil: the servers are usable
	evicted atomic.Uint64                     // keys, since the store was opened
	losses  atomic.Pointer[Losses]            // as read last

	mu         sync.Mutex
	counts     map[string]uint64 // evicted keys by run id
	unmet      error             // why the durability is not available; nil: it is
	lastLogged string            // the text of unmet logged last
	tested     time.Time         // the time of the last test write
	testedBy   error             // its result
}

// Stats are figures of the servers.
type Stats struct {
	Evicted uint64 // keys that servers evicted while the store was open
	Refused bool   // a primary evicts keys, and the store returns errors
	Losses  Losses // at most a minute old
}

// Stats returns the figures of the servers.
func (r *Store) Stats() Stats {
	s := Stats{Evicted: r.watch.evicted.Load(), Refused: r.watch.refused.Load() != nil}
	if l := r.watch.losses.Load(); l != nil {
		s.Losses = *l
	}
	return s
}

// refuse makes all methods return an error, and logs it once.
func (r *Store) refuse(refused *conn.RefusedError) {
	if r.parent != nil {
		r = r.parent
	}
	before := r.watch.refused.Swap(refused)
	if before == nil || before.Error() != refused.Error() {
		r.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "redis server evicts keys, store returns errors", slog.Any("error", refused))
	}
}

// watchServers checks the servers until ctx ends.
func (r *Store) watchServers(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	logged := ""
	for looks := 0; ; looks++ {
		err := r.look(ctx)
		if err == nil && looks%lossesEvery == 0 {
			_, err = r.Losses(ctx)
		}
		if err != nil && ctx.Err() == nil && err.Error() != logged {
			logged = err.Error()
			r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "checking redis servers failed", slog.Any("error", err))
		} else if err == nil {
			logged = ""
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look checks all primaries once, and writes heartbeats.
func (r *Store) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*max(r.cfg.ReadTimeout, time.Second))
	defer cancel()
	var unmet error
	var mu sync.Mutex
	err := r.unfenced().Primaries(ctx, func(ctx context.Context, node *redis.Client) error {
		if err := r.lookAt(ctx, node); err != nil {
			return fmt.Errorf("%s: %w", node.Options().Addr, err)
		}
		if err := r.checkDurability(ctx, node); err != nil {
			mu.Lock()
			defer mu.Unlock()
			unmet = fmt.Errorf("%s: %w", node.Options().Addr, err)
		}
		return nil
	})
	var refused *conn.RefusedError
	if errors.As(err, &refused) {
		r.refuse(refused)
		return nil
	}
	if err != nil {
		return err
	}
	r.watch.refused.Store(nil)
	r.durable(ctx, unmet)
	if r.usable(ctx, nil) != nil {
		return nil // fenced
	}
	if err := r.testWrite(ctx); err != nil {
		return err
	}
	if r.fence != nil {
		return r.fence.keepBeats()
	}
	return nil
}

// durable records whether the configured durability is available.
func (r *Store) durable(ctx context.Context, unmet error) {
	w := &r.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unmet = unmet
	text := ""
	if unmet != nil {
		text = unmet.Error()
	}
	if text != "" && text != w.lastLogged {
		r.cfg.Log.LogAttrs(ctx, slog.LevelError, "redis server lacks the configured durability, revocations are not acknowledged", slog.Any("error", unmet))
	}
	w.lastLogged = text
}

// lookAt checks the policy and the evicted keys of one primary.
func (r *Store) lookAt(ctx context.Context, node *redis.Client) error {
	pipe := node.Pipeline()
	server, memory, stats := pipe.Info(ctx, "server"), pipe.Info(ctx, "memory"), pipe.Info(ctx, "stats")
	_, err := pipe.Exec(ctx)
	if redis.HasErrorPrefix(err, "NOPERM") {
		return nil // logged when the store was opened
	}
	if err != nil {
		return err
	}
	if err := conn.CheckPolicy(conn.ParseInfo(memory.Val())["maxmemory_policy"]); err != nil {
		return err
	}
	n, err := strconv.ParseUint(conn.ParseInfo(stats.Val())["evicted_keys"], 10, 64)
	if err == nil {
		r.count(ctx, node, conn.ParseInfo(server.Val())["run_id"], n)
	}
	return nil
}

// count logs the keys that a server has evicted since the last check.
func (r *Store) count(ctx context.Context, node *redis.Client, server string, n uint64) {
	w := &r.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counts == nil {
		w.counts = make(map[string]uint64)
	}
	before, known := w.counts[server]
	w.counts[server] = n
	if !known || n <= before {
		return
	}
	total := w.evicted.Add(n - before)
	r.cfg.Log.LogAttrs(ctx, slog.LevelError, "redis server has evicted keys, sessions and revocations may be lost",
		slog.String("address", node.Options().Addr), slog.Uint64("keys", n-before), slog.Uint64("total", total))
}

// testEvery is the least time between two writes that only test the primaries.
const testEvery = time.Second

// testWrite returns nil if the primaries accept a write, or did within the last second.
func (r *Store) testWrite(ctx context.Context) error {
	w := &r.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.tested.IsZero() && time.Since(w.tested) < testEvery {
		return w.testedBy
	}
	err := r.writeBeats(ctx)
	if err != nil {
		err = fmt.Errorf("write: %w", err)
	}
	if ctx.Err() == nil {
		w.tested, w.testedBy = time.Now(), err
	}
	return err
}

// writable returns nil if revocations can be acknowledged and the primaries
// accept a write.
func (r *Store) writable(ctx context.Context) error {
	r.watch.mu.Lock()
	unmet := r.watch.unmet
	r.watch.mu.Unlock()
	if unmet != nil {
		return unmet
	}
	return r.testWrite(ctx)
}
