package redis

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/record"
	"github.com/discharger/discharger/discharger/store/redis/keys"
)

// Heartbeats show how old data is, see package store. Every primary has a stream of
// them beside one of its identities. A process with a journal keeps the id of the
// newest heartbeat of each primary in it. If that one is missing, the data is as
// old as the last one before it.
//
// After a pause of all processes for days no heartbeat is missing. A process cannot
// detect a return to a time without heartbeats if it has not seen two in a row.

const (
	beatEvery = time.Minute
	beatsMost = 1500 // a day and an hour of them
)

// beats are the newest heartbeats that a process has seen.
type beats struct {
	mu     sync.Mutex
	newest map[string]string // by key: id of the newest heartbeat
	saved  map[string]string // the part that is in the journal
}

// seen records the newest heartbeat of a stream.
func (b *beats) seen(key, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.newest == nil {
		b.newest = make(map[string]string)
	}
	b.newest[key] = id
}

// writeBeats writes to each primary, and adds a heartbeat where the newest is a
// minute old.
func (r *Store) writeBeats(ctx context.Context) error {
	representatives, err := r.representatives(ctx)
	if err != nil {
		return err
	}
	for _, bucket := range representatives {
		key := r.layout.Beats[bucket]
		answer, err := r.ask(ctx, call{
			script: beatScript, key: key, identity: r.layout.Identity[bucket],
			args: []any{*r.id.Load(), beatEvery.Milliseconds(), beatsMost},
		})
		if err != nil {
			return err
		}
		got, err := answer.Slice()
		switch {
		case err != nil:
			return err
		case len(got) == 0:
			return r.markLost()
		case len(got) != 2:
			return record.ErrDamaged
		}
		// The first heartbeat after a pause has none shortly before it, so its
		// absence would prove nothing.
		if id, ok := got[0].(string); ok && got[1] != int64(1) {
			r.beats.seen(key, id)
		}
	}
	return nil
}

// representatives returns the number of one hash tag of each primary.
func (r *Store) representatives(ctx context.Context) (out []int, err error) {
	if !r.cfg.Cluster {
		return []int{0}, nil
	}
	addrs, err := r.nodes(ctx)
	for i, addr := range addrs {
		if slices.Index(addrs, addr) == i {
			out = append(out, i)
		}
	}
	return out, err
}

// nodes returns the address of the primary of each hash tag.
func (r *Store) nodes(ctx context.Context) ([]string, error) {
	addrs := make([]string, keys.Buckets)
	for i, key := range r.layout.Identity {
		node, err := r.client.PrimaryOf(ctx, key)
		if err != nil {
			return nil, err
		}
		addrs[i] = node.Options().Addr
	}
	return addrs, nil
}

// checkAge returns an error that matches ErrLost if data is older than the data
// this process saw and the window of the journal does not cover it. It is
// called while the store is fenced.
func (g *fence) checkAge(ctx context.Context) error {
	known, err := g.journal.Beats()
	if err != nil {
		return err
	}
	g.main.beats.mu.Lock()
	maps.Copy(known, g.main.beats.newest)
	g.main.beats.mu.Unlock()
	covered := g.journal.Oldest()
	var older [keys.Buckets]bool
	var oldest int64
	for i, key := range g.main.layout.Beats {
		id, ok := known[key]
		if !ok {
			continue
		}
		last, err := g.lastBeat(ctx, i, id)
		if err != nil {
			return err
		}
		if last >= 0 && last < covered {
			addrs, err := g.store.nodes(ctx)
			if err != nil {
				return err
			}
			for other, addr := range addrs {
				older[other] = older[other] || addr == addrs[i]
			}
			oldest = last
		} else if last >= 0 {
			g.store.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "data is older than the data it replaces, replaying the journal",
				slog.Time("from", time.UnixMilli(last).UTC()))
		}
	}
	if older == [keys.Buckets]bool{} {
		g.main.older.Store(nil)
		return nil
	}
	g.main.older.Store(&older)
	return fmt.Errorf("data is from %s, older than the data it replaces, and than the journal covers: %w",
		time.UnixMilli(oldest).UTC().Format(time.RFC3339), store.ErrLost)
}

// lastBeat returns the time of the last heartbeat before a missing one, 0 for
// none. It returns -1 if the heartbeat is there or need not be: it was trimmed,
// or an operator has accepted a loss since.
func (g *fence) lastBeat(ctx context.Context, bucket int, id string) (int64, error) {
	key := g.main.layout.Beats[bucket]
	at, err := beatTime(id)
	if err != nil {
		return 0, err
	}
	all := redis.NewXMessageSliceCmd(ctx, "xrange", key, "-", id)
	since := redis.NewStringCmd(ctx, "get", g.main.layout.Losses[bucket])
	owner := redis.NewStringCmd(ctx, "get", g.main.layout.Identity[bucket])
	if err := g.store.client.Do(ctx, all, since, owner); err != nil {
		return 0, err
	}
	if owner.Val() != *g.main.id.Load() {
		return -1, nil // the identity shows the loss
	}
	mark, err := readLoss(since)
	if err != nil {
		return 0, err
	}
	found, err := all.Result()
	if err != nil {
		return 0, err
	}
	switch n := len(found); {
	case n > 0 && found[n-1].ID == id, mark.missing >= at:
		return -1, nil
	case n > 0:
		return beatTime(found[n-1].ID)
	}
	length := redis.NewIntCmd(ctx, "xlen", key)
	if err := g.store.client.Do(ctx, length); err != nil {
		return 0, err
	}
	if n, err := length.Result(); err != nil || n >= beatsMost {
		return -1, err
	}
	return 0, nil
}

func beatTime(id string) (int64, error) {
	text, _, _ := strings.Cut(id, "-")
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 {
		return 0, record.ErrDamaged
	}
	return ms, nil
}

// keepBeats writes the newest heartbeats to the journal if they have changed.
func (g *fence) keepBeats() error {
	b := &g.main.beats
	b.mu.Lock()
	defer b.mu.Unlock()
	if maps.Equal(b.newest, b.saved) {
		return nil
	}
	err := g.journal.SetBeats(b.newest)
	if err == nil {
		b.saved = maps.Clone(b.newest)
	}
	return err
}

// forgetBeats removes the heartbeats after a replay. The next ones are those of
// the current primaries.
func (g *fence) forgetBeats() error {
	b := &g.main.beats
	b.mu.Lock()
	b.newest, b.saved = nil, nil
	b.mu.Unlock()
	return g.journal.SetBeats(nil)
}
