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
)

// What OpenRedis has checked can change: a replica with other settings is
// promoted, or an operator changes them. So the settings of a server are looked at
// on every new connection before anything else is asked of it, since it may
// belong to another primary, and those of all primaries every few seconds. A
// store with a primary that evicts keys answers nothing but errors until that
// is over.

const (
	watchInterval = 2 * time.Second
	lossesEvery   = 30 // looks
)

// watcher holds the results of the checks.
type watcher struct {
	refused atomic.Pointer[refusedError] // nil: the servers will do
	evicted atomic.Uint64                // keys, as far as seen
	losses  atomic.Pointer[Losses]       // that were read last

	mu       sync.Mutex
	counts   map[string]uint64 // evicted keys of each server since it started, by run id
	unmet    error             // durability cannot be had
	said     string            // of that, what was logged last
	tested   time.Time         // when a write was tried last
	testedBy error             // what came of it

	stop context.CancelFunc
	done sync.WaitGroup
}

// refusedError says why a server must not be used.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// Stats are what a store has seen of its servers.
type Stats struct {
	Evicted uint64 // keys that servers have evicted while the store was open
	Refused bool   // a primary evicts keys, and is not used
	Losses  Losses // as they were a minute ago at the earliest
}

// Stats returns them.
func (r *Store) Stats() Stats {
	s := Stats{Evicted: r.watch.evicted.Load(), Refused: r.watch.refused.Load() != nil}
	if l := r.watch.losses.Load(); l != nil {
		s.Losses = *l
	}
	return s
}

// refuse makes all methods return an error, and logs it once.
func (r *Store) refuse(refused *refusedError) {
	if r.of != nil {
		r = r.of
	}
	before := r.watch.refused.Swap(refused)
	if before == nil || before.Error() != refused.Error() {
		r.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "redis server must not be used, the store answers nothing", slog.Any("error", refused))
	}
}

// startWatch checks the servers until the store is closed.
func (r *Store) startWatch() {
	ctx, stop := context.WithCancel(context.Background())
	r.watch.stop = stop
	r.watch.done.Go(func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		said := ""
		for looks := 0; ; looks++ {
			err := r.look(ctx)
			if err == nil && looks%lossesEvery == 0 {
				_, err = r.Losses(ctx)
			}
			if err != nil && ctx.Err() == nil && err.Error() != said {
				said = err.Error()
				r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "redis servers could not be checked", slog.Any("error", err))
			} else if err == nil {
				said = ""
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

func (r *Store) stopWatch() {
	if r.watch.stop != nil {
		r.watch.stop()
	}
	r.watch.done.Wait()
}

// look checks all primaries once, and writes the heartbeats.
func (r *Store) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*max(r.cfg.ReadTimeout, time.Second))
	defer cancel()
	var unmet error
	var mu sync.Mutex
	err := r.unguarded().primaries(ctx, func(ctx context.Context, node *redis.Client) error {
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
	var refused *refusedError
	if errors.As(err, &refused) {
		r.refuse(refused)
		return nil
	}
	if err != nil {
		return err
	}
	r.watch.refused.Store(nil)
	r.durable(ctx, unmet)
	if r.usable(ctx) != nil {
		return nil // the journal has not been replayed yet
	}
	if err := r.testWrite(ctx); err != nil {
		return err
	}
	if r.guard != nil {
		return r.guard.keepBeats()
	}
	return nil
}

// durable notes whether the configured durability can be had.
func (r *Store) durable(ctx context.Context, unmet error) {
	w := &r.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unmet = unmet
	text := ""
	if unmet != nil {
		text = unmet.Error()
	}
	if text != "" && text != w.said {
		r.cfg.Log.LogAttrs(ctx, slog.LevelError, "redis server cannot give the configured durability, revocations are not acknowledged", slog.Any("error", unmet))
	}
	w.said = text
}

// lookAt checks the policy and the evicted keys of one primary.
func (r *Store) lookAt(ctx context.Context, node *redis.Client) error {
	pipe := node.Pipeline()
	server, memory, stats := pipe.Info(ctx, "server"), pipe.Info(ctx, "memory"), pipe.Info(ctx, "stats")
	_, err := pipe.Exec(ctx)
	if redis.HasErrorPrefix(err, "NOPERM") {
		return nil // which was logged when the store was opened
	}
	if err != nil {
		return err
	}
	if err := checkPolicy(parseInfo(memory.Val())["maxmemory_policy"]); err != nil {
		return &refusedError{err}
	}
	n, err := strconv.ParseUint(parseInfo(stats.Val())["evicted_keys"], 10, 64)
	if err == nil {
		r.count(ctx, node, parseInfo(server.Val())["run_id"], n)
	}
	return nil
}

// count compares the number of keys that a server has evicted with what it was.
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

// checkPolicy returns an error for a server that throws keys away when its
// memory is full. Without a policy, which INFO of other products may lack, it
// returns nil.
func checkPolicy(policy string) error {
	if policy == "" || policy == "noeviction" {
		return nil
	}
	return fmt.Errorf("the server evicts keys when its memory is full (maxmemory-policy is %.30q), "+
		"and with them revocations: set maxmemory-policy to noeviction", policy)
}

// judgePolicy checks the policy on a new connection, of primaries only.
func judgePolicy(ctx context.Context, server informer) error {
	pipe := server.Pipeline()
	replication, memory := pipe.Info(ctx, "replication"), pipe.Info(ctx, "memory")
	_, err := pipe.Exec(ctx)
	if redis.HasErrorPrefix(err, "NOPERM") {
		return nil
	}
	if err != nil {
		return err
	}
	if parseInfo(replication.Val())["role"] != "master" {
		return nil
	}
	if err := checkPolicy(parseInfo(memory.Val())["maxmemory_policy"]); err != nil {
		return &refusedError{err}
	}
	return nil
}

// testEvery is the least time between two writes that only test whether one can
// be made.
const testEvery = time.Second

// testWrite returns nil if the primaries take a write, or took one a moment ago.
func (r *Store) testWrite(ctx context.Context) error {
	w := &r.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.tested.IsZero() && time.Since(w.tested) < testEvery {
		return w.testedBy
	}
	err := r.beat(ctx)
	if err != nil {
		err = fmt.Errorf("write: %w", err)
	}
	if ctx.Err() == nil {
		w.tested, w.testedBy = time.Now(), err
	}
	return err
}

// writable returns nil if revocations can be acknowledged and the primaries take
// a write.
func (r *Store) writable(ctx context.Context) error {
	r.watch.mu.Lock()
	unmet := r.watch.unmet
	r.watch.mu.Unlock()
	if unmet != nil {
		return unmet
	}
	return r.testWrite(ctx)
}
