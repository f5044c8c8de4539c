package redis

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/record"
)

// Heartbeats show how old data is. While processes run, every primary gets one a
// minute, in a stream of one of its hash tags, and keeps those of the last day. A process with a journal
// remembers, there, the newest one that it has seen of each.
//
// Before it uses a primary that it does not know, it looks for those. If one is
// not there, older data has taken the place of what was there: a replica that
// lagged far behind, a backup, an append-only file that was cut short. What has
// been revoked since the last heartbeat before it must then be in the journals.
// Their window tells: if that heartbeat is older, the store is lost until an
// operator accepts the loss.
//
// Data that goes back less than a minute or two may show nothing, and needs to
// show nothing. That all processes were ended for days is no loss: no heartbeat
// is missing then. A process cannot notice what was lost before its journal was
// made, nor what was taken back to a time from which there are no heartbeats,
// if it has not seen two in a row.

//go:embed beat.lua
var beatText string

var beatScript = newScript(beatText)

const (
	beatEvery = time.Minute
	beatsMost = 1500 // a day and an hour of them
)

// beats holds the newest heartbeats that a process has seen.
type beats struct {
	mu     sync.Mutex
	newest map[string]string // by key: id of the newest that was seen
	saved  map[string]string // what the journal has of that
}

// seen notes the newest heartbeat of a stream.
func (b *beats) seen(key, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.newest == nil {
		b.newest = make(map[string]string)
	}
	b.newest[key] = id
}

// beat writes to each primary, and adds a heartbeat where the newest is a minute
// old.
func (r *Store) beat(ctx context.Context) error {
	representatives, err := r.representatives(ctx)
	if err != nil {
		return err
	}
	for _, bucket := range representatives {
		key := r.layout.beatKey[bucket]
		answer, err := r.ask(ctx, call{
			script: beatScript, key: key, storeID: r.layout.storeID[bucket],
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
			return r.lose()
		case len(got) != 2:
			return record.ErrDamaged
		}
		// The first one after a pause shows nothing if it is lost: there is
		// none shortly before it.
		if id, ok := got[0].(string); ok && got[1] != int64(1) {
			r.beats.seen(key, id)
		}
	}
	return nil
}

// representatives returns the number of one hash tag of each primary.
func (r *Store) representatives(ctx context.Context) ([]int, error) {
	if !r.cfg.Cluster {
		return []int{0}, nil
	}
	var out []int
	found := make(map[string]bool)
	for i, key := range r.layout.storeID {
		node, err := r.client.primaryOf(ctx, key)
		if err != nil {
			return nil, err
		}
		if addr := node.Options().Addr; !found[addr] {
			found[addr] = true
			out = append(out, i)
		}
	}
	return out, nil
}

// checkAge returns an error that matches ErrStoreLost if data is older than
// what this process has seen and the journal covers. It is called while the
// store is shut.
func (g *guardian) checkAge(ctx context.Context) error {
	known, err := g.journal.Beats()
	if err != nil {
		return err
	}
	g.main.beats.mu.Lock()
	maps.Copy(known, g.main.beats.newest)
	g.main.beats.mu.Unlock()
	covered := g.journal.Oldest()
	var older [buckets]bool
	var oldest int64
	for i, key := range g.main.layout.beatKey {
		id, ok := known[key]
		if !ok {
			continue
		}
		last, err := g.lastBeat(ctx, i, id)
		if err != nil {
			return err
		}
		if last >= 0 && last < covered {
			if err := g.sameNode(ctx, i, &older); err != nil {
				return err
			}
			oldest = last
		} else if last >= 0 {
			g.store.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "data is older than what it replaces, replaying the journal of revocations",
				slog.Time("from", time.UnixMilli(last).UTC()))
		}
	}
	if older == [buckets]bool{} {
		g.main.older.Store(nil)
		return nil
	}
	g.main.older.Store(&older)
	return fmt.Errorf("data is from %s, older than what it replaces and the journal covers: %w",
		time.UnixMilli(oldest).UTC().Format(time.RFC3339), store.ErrLost)
}

// sameNode marks the hash tags on the node that has one of them.
func (g *guardian) sameNode(ctx context.Context, bucket int, marked *[buckets]bool) error {
	here, err := g.store.client.primaryOf(ctx, g.main.layout.storeID[bucket])
	if err != nil {
		return err
	}
	for i, key := range g.main.layout.storeID {
		there, err := g.store.client.primaryOf(ctx, key)
		if err != nil {
			return err
		}
		marked[i] = marked[i] || there.Options().Addr == here.Options().Addr
	}
	return nil
}

// lastBeat returns -1 if a heartbeat is there, or need not be: it is older than
// those that are kept, or an operator has accepted the loss since. Otherwise it
// returns the time of the last one before it, 0 for none.
func (g *guardian) lastBeat(ctx context.Context, bucket int, id string) (int64, error) {
	key := g.main.layout.beatKey[bucket]
	at, err := beatTime(id)
	if err != nil {
		return 0, err
	}
	all := redis.NewXMessageSliceCmd(ctx, "xrange", key, "-", id)
	since := redis.NewStringCmd(ctx, "get", g.main.layout.sinceKey[bucket])
	owner := redis.NewStringCmd(ctx, "get", g.main.layout.storeID[bucket])
	if err := g.store.client.do(ctx, all, since, owner); err != nil {
		return 0, err
	}
	if owner.Val() != *g.main.id.Load() {
		return -1, nil // it is known by that to be lost
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
	if err := g.store.client.do(ctx, length); err != nil {
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

// keepBeats writes the newest heartbeats to the journal, if they are others
// than it has.
func (g *guardian) keepBeats() error {
	b := &g.main.beats
	b.mu.Lock()
	newest := maps.Clone(b.newest)
	same := maps.Equal(newest, b.saved)
	b.mu.Unlock()
	if same {
		return nil
	}
	if err := g.journal.SetBeats(newest); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saved = newest
	return nil
}

// forgetBeats removes all of them, after a replay: the next look reads those that
// are there now.
func (g *guardian) forgetBeats() error {
	b := &g.main.beats
	b.mu.Lock()
	b.newest, b.saved = nil, nil
	b.mu.Unlock()
	return g.journal.SetBeats(nil)
}
