package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
)

// How loss is noticed. The identity is kept once for each of the 256 hash
// tags, so that wherever a key could be missing there is something on the same
// node which must not be. A script compares it before it changes anything; a
// Load or List that finds no session reads it before it says so; Ready reads
// all 256. A process that has once seen it missing or different says
// ErrStoreLost until it has seen all of them right again.

// identify finds out which store this is. Without a memory of one, an empty
// store is given an identity and any other is taken as it is, unless parts of
// it are missing.
func (r *Store) identify(ctx context.Context, expected string) error {
	found, err := r.readIDs(ctx)
	if err != nil {
		return err
	}
	if expected == "" {
		if expected, err = r.adopt(ctx, found); err != nil {
			return err
		}
		if found, err = r.readIDs(ctx); err != nil {
			return err
		}
		if found.complete() == expected {
			if err := marker.Remember(r.cfg.Marker, expected); err != nil {
				return err
			}
		}
	}
	r.id.Store(&expected)
	r.setLost(found.complete() != expected)
	return nil
}

// ids are the identities found at each hash tag, "" for none.
type ids [buckets]string

// complete returns the identity if it is everywhere, and otherwise "".
func (f *ids) complete() string {
	for _, id := range f {
		if id != f[0] {
			return ""
		}
	}
	return f[0]
}

// only returns the identity that was found if there is one and no other.
func (f *ids) only() (one string) {
	for _, id := range f {
		switch {
		case id == "" || id == one:
		case one == "":
			one = id
		default:
			return ""
		}
	}
	return one
}

// any returns an identity that was found, "" if there is none.
func (f *ids) any() string {
	for _, id := range f {
		if id != "" {
			return id
		}
	}
	return ""
}

// adopt returns the identity to use. The first process to come to an empty
// store writes one, and others may come while it does.
func (r *Store) adopt(ctx context.Context, found *ids) (string, error) {
	progress, err := r.unguarded().HMGet(ctx, r.layout.newID, "id", "done", "born").Result()
	if err != nil {
		return "", err
	}
	if len(progress) != 3 {
		return "", record.ErrDamaged
	}
	id, started := progress[0].(string)
	_, done := progress[1].(string)
	born, _ := progress[2].(string) // not of an earlier version
	switch {
	case !started && found.any() == "":
		if id, born, err = r.begin(ctx); err != nil {
			return "", err
		}
	case !started:
		return found.any(), nil // parts are missing
	case done:
		return id, nil
	}
	if err := marker.CheckID(id); err != nil {
		return "", err
	}
	if err := r.writeBirth(ctx, born); err != nil {
		return "", err
	}
	return id, r.writeIDs(ctx, id, false)
}

// begin agrees with other processes on the identity of a new store and on its
// birth.
func (r *Store) begin(ctx context.Context) (id, born string, err error) {
	id = marker.NewID()
	now, err := r.serverTime(ctx)
	if err != nil {
		return "", "", err
	}
	born = strconv.FormatInt(now.UnixMilli(), 10)
	if err := r.unguarded().HSetNX(ctx, r.layout.newID, "born", born).Err(); err != nil {
		return "", "", err
	}
	if err := r.unguarded().HSetNX(ctx, r.layout.newID, "id", id).Err(); err != nil {
		return "", "", err
	}
	if id, err = r.unguarded().HGet(ctx, r.layout.newID, "id").Result(); err != nil {
		return "", "", err
	}
	born, err = r.unguarded().HGet(ctx, r.layout.newID, "born").Result()
	return id, born, err
}

// writeBirth notes when a new store was made, before anything shows that it has
// been.
func (r *Store) writeBirth(ctx context.Context, born string) error {
	ms, err := strconv.ParseInt(born, 10, 64)
	if err != nil {
		return nil // an earlier version began with it
	}
	_, err = r.unguarded().Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range r.layout.sinceKey {
			pipe.SetNX(ctx, key, lossMark{born: ms}.encode(), 0)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write birth of store: %w", err)
	}
	return nil
}

// writeIDs writes the identity wherever there is none, or everywhere, and then
// that this has been done.
func (r *Store) writeIDs(ctx context.Context, id string, everywhere bool) error {
	_, err := r.unguarded().Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range r.layout.storeID {
			if everywhere {
				pipe.Set(ctx, key, id, 0)
			} else {
				pipe.SetNX(ctx, key, id, 0)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write store id: %w", err)
	}
	if err := r.unguarded().HSet(ctx, r.layout.newID, "id", id, "done", 1).Err(); err != nil {
		return fmt.Errorf("write store id: %w", err)
	}
	return nil
}

func (r *Store) readIDs(ctx context.Context) (*ids, error) {
	cmds := make([]redis.Cmder, buckets)
	for i, key := range r.layout.storeID {
		cmds[i] = redis.NewStringCmd(ctx, "get", key)
	}
	if err := r.unguarded().do(ctx, cmds...); err != nil {
		return nil, err
	}
	found := new(ids)
	for i, cmd := range cmds {
		id, err := cmd.(*redis.StringCmd).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("read store id: %w", err)
		}
		if id != "" {
			if err := marker.CheckID(id); err != nil {
				return nil, err
			}
		}
		found[i] = id
	}
	return found, nil
}

// Ready returns nil if the primary, or each of a cluster's, answers, has its
// data and takes a write, which is tried once a second.
func (r *Store) Ready(ctx context.Context) error {
	if err := r.ready(ctx); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

func (r *Store) ready(ctx context.Context) error {
	if err := r.opened(); err != nil {
		return err
	}
	if refused := r.watch.refused.Load(); refused != nil {
		return refused
	}
	if r.guard != nil {
		if err := r.guard.journal.Damage(); err != nil {
			return err
		}
	}
	ask := r.client
	if r.guard != nil && r.guard.shut.Load() {
		if !r.lost.Load() {
			return errShut
		}
		ask = r.unguarded()
	}
	if !r.cfg.Cluster {
		role := redis.NewSliceCmd(ctx, "role")
		if err := ask.do(ctx, role); err != nil {
			return err
		}
		answer, err := role.Result()
		if err == nil {
			err = checkRole(answer)
		}
		if err != nil && !redis.HasErrorPrefix(err, "NOPERM") {
			return err
		}
	}
	if err := r.recheckShut(ctx); err != nil {
		return err
	}
	return r.writable(ctx)
}

// recheckShut does so for someone who found the store shut or lost: what was
// lost and is there again may still have to be replayed.
func (r *Store) recheckShut(ctx context.Context) error {
	if err := r.recheck(ctx); err != nil || r.guard == nil || !r.guard.shut.Load() {
		return err
	}
	return errShut
}

// recheck reads all identities and remembers the outcome.
func (r *Store) recheck(ctx context.Context) error {
	found, err := r.readIDs(ctx)
	if err != nil {
		return err
	}
	if found.complete() != *r.id.Load() || r.older.Load() != nil {
		return r.lose()
	}
	r.setLost(false)
	return nil
}

func (r *Store) lose() error {
	r.setLost(true)
	return store.ErrLost
}

// Lost reports whether the store was found to lack data that no operator has given
// up, so that it answers [store.ErrLost].
func (r *Store) Lost() bool { return r.lost.Load() }

// setLost notes whether the store has lost its data, and logs a change. That of the
// guardian's second store is one of the same data.
func (r *Store) setLost(lost bool) {
	switch was := r.lost.Swap(lost); {
	case r.of != nil:
	case lost && !was:
		r.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "store has lost its data, nothing is decided until the data is back or its loss is accepted")
	case was && !lost:
		r.cfg.Log.LogAttrs(context.Background(), slog.LevelInfo, "store has its data again, or its loss was accepted")
	}
}

// usable is asked before every operation. A store that was lost is looked at
// again every second: someone may have brought the data back, or accepted the
// loss at another process.
func (r *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.opened(); err != nil {
		return err
	}
	if refused := r.watch.refused.Load(); refused != nil {
		return refused
	}
	if !r.lost.Load() {
		if r.guard != nil && r.guard.shut.Load() {
			return errShut
		}
		return nil
	}
	r.recheckMu.Lock()
	now := r.cfg.Now()
	due := !now.Before(r.recheckAt)
	if due {
		r.recheckAt = now.Add(time.Second)
	}
	r.recheckMu.Unlock()
	if !due {
		return store.ErrLost
	}
	return r.recheckShut(ctx)
}

// confirm is asked before something is said not to exist, and returns what was
// lost there.
func (r *Store) confirm(ctx context.Context, bucket int) (lossMark, error) {
	id, since := redis.NewStringCmd(ctx, "get", r.layout.storeID[bucket]), redis.NewStringCmd(ctx, "get", r.layout.sinceKey[bucket])
	if err := r.client.do(ctx, id, since); err != nil {
		return lossMark{}, err
	}
	if err := r.judge(id); err != nil {
		return lossMark{}, err
	}
	return readLoss(since)
}

// judge looks at one identity that was read.
func (r *Store) judge(cmd *redis.StringCmd) error {
	id, err := cmd.Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	if id != *r.id.Load() {
		return r.lose()
	}
	return nil
}
