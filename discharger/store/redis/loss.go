package redis

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
	"github.com/discharger/discharger/discharger/store/redis/keys"
)

// Each identity has beside it the time when the data of its hash tag began, and
// the times when its loss was accepted, by the clock of the servers:
//
//	born missing all     decimal, Unix ms; 0: never
//
// A store of an earlier version has no such key, and has lost nothing. Missing
// concerns users of this hash tag, All the homeservers whose record has it. So the
// loss of one node of a cluster costs users on another node nothing, unless the
// record of their homeserver was lost.
//
// Load reads both without a round trip of their own: Missing with the identity, All
// with the record of the homeserver, with which it is cached.

// lossMark is when data began and when its loss was accepted, Unix ms.
type lossMark struct{ born, missing, all int64 }

func (m lossMark) encode() string {
	return fmt.Sprintf("%d %d %d", m.born, m.missing, m.all)
}

// decodeLoss decodes a mark; "" is the mark of a store without one.
func decodeLoss(text string) (m lossMark, err error) {
	if text == "" {
		return m, nil
	}
	fields := strings.Split(text, " ")
	if len(fields) != 3 {
		return m, record.ErrDamaged
	}
	for i, p := range []*int64{&m.born, &m.missing, &m.all} {
		if *p, err = strconv.ParseInt(fields[i], 10, 64); err != nil || *p < 0 {
			return lossMark{}, record.ErrDamaged
		}
	}
	return m, nil
}

// readLoss decodes the reply to a GET of a mark.
func readLoss(cmd *redis.StringCmd) (lossMark, error) {
	s, err := text(cmd)
	if err != nil {
		return lossMark{}, err
	}
	return decodeLoss(s)
}

// Losses are the times at which a [Store] was created and its loss was last
// accepted; zero: not recorded.
type Losses struct {
	Born    time.Time // the store was created
	Missing time.Time // a loss was accepted: sessions without a record may have been revoked
	All     time.Time // a loss was accepted: sessions with a record may have been revoked too
}

// Losses reads the losses of the whole store.
func (r *Store) Losses(ctx context.Context) (Losses, error) {
	marks, err := r.readLosses(ctx)
	if err != nil {
		return Losses{}, fmt.Errorf("read losses: %w", err)
	}
	var last lossMark
	for _, m := range marks {
		last = lossMark{max(last.born, m.born), max(last.missing, m.missing), max(last.all, m.all)}
	}
	at := func(ms int64) time.Time {
		if ms == 0 {
			return time.Time{}
		}
		return time.UnixMilli(ms)
	}
	l := Losses{Born: at(last.born), Missing: at(last.missing), All: at(last.all)}
	r.watch.losses.Store(&l)
	return l, nil
}

func (r *Store) readLosses(ctx context.Context) (marks [keys.Buckets]lossMark, err error) {
	found, err := r.readAll(ctx, &r.layout.Losses)
	for i, s := range found {
		if err == nil {
			marks[i], err = decodeLoss(s)
		}
	}
	return marks, err
}

// changeLosses changes the marks of some hash tags.
func (r *Store) changeLosses(ctx context.Context, change func(bucket int, m *lossMark)) (err error) {
	defer wrap(&err, "record losses")
	marks, err := r.readLosses(ctx)
	if err != nil {
		return err
	}
	_, err = r.unfenced().Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, m := range marks {
			if change(i, &m); m != marks[i] {
				pipe.Set(ctx, r.layout.Losses[i], m.encode(), 0)
			}
		}
		return nil
	})
	return err
}

// warnOfLosses logs which sessions are refused because their revocation may be
// lost, while such sessions can be live.
func (r *Store) warnOfLosses(ctx context.Context, l Losses, now time.Time) {
	for _, w := range []struct {
		at   time.Time
		text string
	}{
		{l.Born, "store is new, sessions minted before without a record are refused and must log in again"},
		{l.Missing, "loss of data was accepted, sessions minted before without a record are refused and must log in again"},
		{l.All, "loss of revocations was accepted, sessions activated before are refused and must log in again"},
	} {
		if age := now.Sub(w.at); !w.at.IsZero() && (r.cfg.SessionLife == 0 || age < r.cfg.SessionLife) {
			r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, w.text, slog.Time("before", w.at.UTC()))
		}
	}
}

// serverTime returns the time of the servers, the latest in a cluster.
func (r *Store) serverTime(ctx context.Context) (now time.Time, err error) {
	var mu sync.Mutex
	err = r.unfenced().Primaries(ctx, func(ctx context.Context, node *redis.Client) error {
		theirs, err := node.Time(ctx).Result()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if theirs.After(now) {
			now = theirs
		}
		return nil
	})
	return now, err
}

// AcceptLoss accepts the current data as the data of the store. It is an operator's
// decision: sessions from before are refused as lost, softly, unless the store shows
// that they were not revoked. If the data has one other identity, the store takes
// it; otherwise missing parts get the identity of the other processes, which then
// recover by themselves.
//
// A store that waits for its servers does this when it opens, before any other
// method; AcceptLoss then returns nil at once.
func (r *Store) AcceptLoss(ctx context.Context) error {
	if r.pending.acceptLater() {
		return nil
	}
	return r.acceptLoss(ctx)
}

func (r *Store) acceptLoss(ctx context.Context) (err error) {
	defer wrap(&err, "accept loss")
	found, err := r.readIDs(ctx)
	if err != nil {
		return err
	}
	missing, accepted := false, false
	if r.fence != nil {
		if missing, err = r.fence.acceptDamage(ctx); err != nil {
			return err
		}
	}
	before := *r.id.Load()
	id, older := before, r.older.Load()
	if older == nil {
		older = new([keys.Buckets]bool)
	}
	if missing || found.complete() != before || *older != [keys.Buckets]bool{} {
		if one := found.only(); one != "" {
			id = one
		}
		if err := r.recordLoss(ctx, func(bucket int) bool { return missing || older[bucket] || found[bucket] != before }); err != nil {
			return err
		}
		if err := r.writeIDs(ctx, id, true); err != nil {
			return err
		}
		accepted = true
	}
	if err := marker.Remember(r.cfg.Marker, id); err != nil {
		return err
	}
	r.id.Store(&id)
	r.older.Store(nil)
	if err := r.recheck(ctx); err != nil {
		return err
	}
	if id != before || accepted {
		losses, err := r.Losses(ctx)
		if err != nil {
			return err
		}
		now, err := r.serverTime(ctx)
		if err != nil {
			return err
		}
		r.warnOfLosses(ctx, losses, now)
	}
	return r.outliveCaches(ctx)
}

// recordLoss writes the time of an accepted loss for some of the hash tags. All
// has the precision of a second, as activations have.
func (r *Store) recordLoss(ctx context.Context, lost func(bucket int) bool) error {
	now, err := r.serverTime(ctx)
	if err != nil {
		return err
	}
	err = r.changeLosses(ctx, func(bucket int, m *lossMark) {
		if lost(bucket) {
			m.missing, m.all = now.UnixMilli(), now.Truncate(time.Second).UnixMilli()
		}
	})
	if err != nil {
		return err
	}
	r.cache.clear()
	_, err = r.Losses(ctx)
	return err
}
