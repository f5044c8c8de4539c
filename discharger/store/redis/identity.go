package redis

import (
	"cmp"
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
	"github.com/discharger/discharger/discharger/store/redis/conn"
	"github.com/discharger/discharger/discharger/store/redis/keys"
)

// The identity is stored once for each of the 256 hash tags, so every key has one
// on its node. A script compares it before it writes; a Load or List without a
// session reads it before it returns; Ready reads all 256. A process that has seen
// it missing or different returns ErrLost until all of them are right again.

// identify determines the identity of the store. Without one in the marker, an
// empty store is given an identity, and another store keeps its own, unless
// parts of it are missing.
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

// ids are the identities at each hash tag, "" for none.
type ids [keys.Buckets]string

// complete returns the identity if it is the same everywhere, and otherwise "".
func (f *ids) complete() string {
	for _, id := range f {
		if id != f[0] {
			return ""
		}
	}
	return f[0]
}

// only returns the identity if there is exactly one, and otherwise "".
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

// adopt returns the identity to use. The first process writes one to an empty
// store; others can arrive meanwhile.
func (r *Store) adopt(ctx context.Context, found *ids) (string, error) {
	id, born, done, err := r.birth(ctx)
	if one := cmp.Or(found[:]...); err == nil && id == "" {
		if one != "" {
			return one, nil // parts are missing
		}
		if err = r.begin(ctx); err == nil {
			id, born, _, err = r.birth(ctx)
		}
	}
	if err != nil || done {
		return id, err
	}
	if err := marker.CheckID(id); err != nil {
		return "", err
	}
	if err := r.writeBirth(ctx, born); err != nil {
		return "", err
	}
	return id, r.writeIDs(ctx, id, false)
}

// birth reads the progress of the creation of the store: its identity, "" before the
// start, the time, Unix ms, which earlier versions did not write, and whether it is done.
func (r *Store) birth(ctx context.Context) (id, born string, done bool, err error) {
	progress, err := r.unfenced().HMGet(ctx, r.layout.Birth, "id", "done", "born").Result()
	if err != nil {
		return "", "", false, err
	}
	if len(progress) != 3 {
		return "", "", false, record.ErrDamaged
	}
	id, _ = progress[0].(string)
	_, done = progress[1].(string)
	born, _ = progress[2].(string)
	return id, born, done, nil
}

// begin starts the creation of the store, unless another process did.
func (r *Store) begin(ctx context.Context) error {
	now, err := r.serverTime(ctx)
	if err != nil {
		return err
	}
	_, err = r.unfenced().Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.HSetNX(ctx, r.layout.Birth, "born", now.UnixMilli())
		pipe.HSetNX(ctx, r.layout.Birth, "id", marker.NewID())
		return nil
	})
	return err
}

// writeBirth writes the birth of a new store, before its identity.
func (r *Store) writeBirth(ctx context.Context, born string) error {
	ms, err := strconv.ParseInt(born, 10, 64)
	if err != nil {
		return nil // started by an earlier version
	}
	_, err = r.unfenced().Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range r.layout.Losses {
			pipe.SetNX(ctx, key, lossMark{born: ms}.encode(), 0)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write birth of store: %w", err)
	}
	return nil
}

// writeIDs writes the identity where there is none, or everywhere, and then
// marks the birth as done.
func (r *Store) writeIDs(ctx context.Context, id string, everywhere bool) (err error) {
	defer wrap(&err, "write store id")
	_, err = r.unfenced().Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range r.layout.Identity {
			if everywhere {
				pipe.Set(ctx, key, id, 0)
			} else {
				pipe.SetNX(ctx, key, id, 0)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.unfenced().HSet(ctx, r.layout.Birth, "id", id, "done", 1).Err()
}

// readIDs reads the identity at each hash tag.
func (r *Store) readIDs(ctx context.Context) (*ids, error) {
	found, err := r.readAll(ctx, &r.layout.Identity)
	if err != nil {
		return nil, fmt.Errorf("read store id: %w", err)
	}
	for _, id := range found {
		if id != "" {
			if err := marker.CheckID(id); err != nil {
				return nil, err
			}
		}
	}
	return (*ids)(&found), nil
}

// readAll reads one key of each hash tag, "" for a missing one.
func (r *Store) readAll(ctx context.Context, all *[keys.Buckets]string) (found [keys.Buckets]string, err error) {
	cmds := make([]redis.Cmder, keys.Buckets)
	for i, key := range all {
		cmds[i] = redis.NewStringCmd(ctx, "get", key)
	}
	if err := r.unfenced().Do(ctx, cmds...); err != nil {
		return found, err
	}
	for i, cmd := range cmds {
		if found[i], err = text(cmd.(*redis.StringCmd)); err != nil {
			return found, err
		}
	}
	return found, nil
}

// text returns the reply to GET, "" for a missing key.
func text(cmd *redis.StringCmd) (string, error) {
	s, err := cmd.Result()
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	return s, err
}

// Ready returns nil if every primary answers, has its data and accepts a write,
// which is tried once a second.
func (r *Store) Ready(ctx context.Context) (err error) {
	defer wrap(&err, "redis")
	if err := r.opened(); err != nil {
		return err
	}
	if refused := r.watch.refused.Load(); refused != nil {
		return refused
	}
	if r.fence != nil {
		if err := r.fence.journal.Damage(); err != nil {
			return err
		}
	}
	ask := r.client
	if r.fence != nil && r.fence.raised.Load() {
		if !r.lost.Load() {
			return errFenced
		}
		ask = r.unfenced()
	}
	if !r.cfg.Cluster {
		role := redis.NewSliceCmd(ctx, "role")
		if err := ask.Do(ctx, role); err != nil {
			return err
		}
		answer, err := role.Result()
		if err == nil {
			err = conn.CheckRole(answer)
		}
		if err != nil && !redis.HasErrorPrefix(err, "NOPERM") {
			return err
		}
	}
	if err := r.recheckFenced(ctx); err != nil {
		return err
	}
	return r.writable(ctx)
}

// recheckFenced is recheck, but a recovered store stays fenced until the
// journal is replayed.
func (r *Store) recheckFenced(ctx context.Context) error {
	if err := r.recheck(ctx); err != nil || r.fence == nil || !r.fence.raised.Load() {
		return err
	}
	return errFenced
}

// recheck reads all identities and records whether data is lost.
func (r *Store) recheck(ctx context.Context) error {
	found, err := r.readIDs(ctx)
	if err != nil {
		return err
	}
	if found.complete() != *r.id.Load() || r.older.Load() != nil {
		return r.markLost()
	}
	r.setLost(false)
	return nil
}

func (r *Store) markLost() error {
	r.setLost(true)
	return store.ErrLost
}

// Lost reports whether the store lacks data whose loss no operator has accepted.
func (r *Store) Lost() bool { return r.lost.Load() }

// setLost records whether the store has lost its data, and logs a change. The
// second store of a fence logs nothing.
func (r *Store) setLost(lost bool) {
	switch was := r.lost.Swap(lost); {
	case r.parent != nil:
	case lost && !was:
		r.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "store has lost its data, requests are undecided until the data is back or the loss is accepted")
	case was && !lost:
		r.cfg.Log.LogAttrs(context.Background(), slog.LevelInfo, "store has its data again, or the loss was accepted")
	}
}

// usable returns invalid, the error of the arguments of an operation, or the reason
// why no operation may be made. A lost store is checked every second: its data can
// be back, or another process can have accepted the loss.
func (r *Store) usable(ctx context.Context, invalid error) error {
	if err := cmp.Or(invalid, ctx.Err(), r.opened()); err != nil {
		return err
	}
	if refused := r.watch.refused.Load(); refused != nil {
		return refused
	}
	if !r.lost.Load() {
		if r.fence != nil && r.fence.raised.Load() {
			return errFenced
		}
		return nil
	}
	r.recheckMu.Lock()
	now := r.cfg.now()
	due := !now.Before(r.recheckAt)
	if due {
		r.recheckAt = now.Add(time.Second)
	}
	r.recheckMu.Unlock()
	if !due {
		return store.ErrLost
	}
	return r.recheckFenced(ctx)
}

// confirm checks the identity of a hash tag, together with other commands, and
// returns its losses. A record is reported as absent only after that.
func (r *Store) confirm(ctx context.Context, bucket int, with ...redis.Cmder) (lossMark, error) {
	id, since := redis.NewStringCmd(ctx, "get", r.layout.Identity[bucket]), redis.NewStringCmd(ctx, "get", r.layout.Losses[bucket])
	if err := r.client.Do(ctx, append(with, id, since)...); err != nil {
		return lossMark{}, err
	}
	found, err := text(id)
	if err != nil {
		return lossMark{}, err
	}
	if found != *r.id.Load() {
		return lossMark{}, r.markLost()
	}
	return readLoss(since)
}
