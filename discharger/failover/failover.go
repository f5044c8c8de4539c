// Package failover replays revocations that a store may have lost: after a failover
// of Redis, or with an older copy of a file, acknowledged writes are missing, and
// sessions that ended would live again. Each process journals the revocations that
// it makes or receives. A store whose data may be older than the journal fences
// itself and calls [Replayer.Replay].
//
// Package session computes the changes of records, see [session.Replay]. This
// package reads, publishes and swaps. It publishes before it swaps, unlike a first
// revocation: the event is true in any case, and after a crash in between, the
// records are unchanged and the next replay repeats both. In the other order, no
// record would show that an event is missing.
package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
)

// Replayer replays revocations. Its methods may be called concurrently.
type Replayer struct {
	life atomic.Pointer[revocation.Lifetime]
	log  *slog.Logger
}

// New returns a replayer for discharges of a lifetime. Without a logger it logs nothing.
func New(life revocation.Lifetime, log *slog.Logger) *Replayer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Replayer{log: log}
	r.SetLifetime(life)
	return r
}

// SetLifetime changes the lifetime of discharges, as a reload does.
func (r *Replayer) SetLifetime(life revocation.Lifetime) { r.life.Store(&life) }

const (
	parallel = 16 // users that are replayed at once
	maxRaces = 32 // tries for records that other processes change
)

// Replay implements [store.Replayer].
func (r *Replayer) Replay(ctx context.Context, t store.ReplayTarget, journaled []revocation.Revocation, now time.Time) (store.Replayed, error) {
	users, homeservers := journal.ByUser(journaled)
	var (
		mu   sync.Mutex
		out  store.Replayed
		errs []error
		wg   sync.WaitGroup
		room = make(chan struct{}, parallel)
	)
	add := func(records int, restored []revocation.Revocation, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			out.Records, out.Restored = out.Records+records, append(out.Restored, restored...)
		} else if len(errs) < 3 {
			errs = append(errs, fmt.Errorf("replay: %w", err))
		}
	}
	for user, some := range users {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			add(r.user(ctx, t, user, some, now))
		})
	}
	wg.Wait()
	for name, some := range homeservers {
		add(r.homeserver(ctx, t, name, some, now))
	}
	err := errors.Join(errs...)
	if err == nil {
		out.Events, err = t.PublishMissing(ctx, r.missing(journaled, now))
	}
	return out, err
}

func (r *Replayer) user(ctx context.Context, t store.ReplayTarget, user store.UserKey, journaled []revocation.Revocation, now time.Time) (int, []revocation.Revocation, error) {
	published := make(map[revocation.Revocation]bool)
	for range maxRaces {
		l, err := t.List(ctx, user)
		if err != nil {
			return 0, nil, err
		}
		changes, restored, err := session.Replay(journaled, l, now)
		if err != nil || len(changes) == 0 {
			return 0, nil, err
		}
		events := slices.DeleteFunc(slices.Clone(restored), func(x revocation.Revocation) bool { return published[x] })
		if err := t.Publish(ctx, user.Homeserver, r.again(ctx, events, now)...); err != nil {
			return 0, nil, err
		}
		for _, x := range events {
			published[x] = true
		}
		// Without Revocations: they are in the journal already.
		if done, err := t.Swap(ctx, store.Write{User: user, Changes: changes}); err != nil || done {
			return len(changes), restored, err
		}
	}
	return 0, nil, errors.New("records of a user keep changing")
}

func (r *Replayer) homeserver(ctx context.Context, t store.ReplayTarget, name string, journaled []revocation.Revocation, now time.Time) (int, []revocation.Revocation, error) {
	for range maxRaces {
		record, err := t.LoadHomeserver(ctx, name)
		if err != nil {
			return 0, nil, err
		}
		next, restored, err := session.ReplayHomeserver(name, journaled, record, now)
		if err != nil || bytes.Equal(next, record) {
			return 0, nil, err
		}
		latest := []revocation.Revocation{restored}
		if done, err := t.SwapHomeserver(ctx, name, record, next, r.again(ctx, latest, now)...); err != nil || done {
			return 1, latest, err
		}
	}
	return 0, nil, errors.New("record of a homeserver keeps changing")
}

// again returns revocations with the events of a replay. Discharges may have been
// issued while the store did not show the revocation, so the event is kept as
// long as one that is made now. A revocation of which no event can be written has
// none, since it was never published.
func (r *Replayer) again(ctx context.Context, restored []revocation.Revocation, now time.Time) []revocation.Revocation {
	out := slices.Clone(restored)
	for i := range out {
		if err := r.setEvent(&out[i], max(out[i].At, now.UnixMilli())); err != nil {
			r.log.LogAttrs(ctx, slog.LevelWarn, "restored revocation has no event", slog.Any("error", err))
		}
	}
	return out
}

// missing returns the revocations whose own event should still be in the feed.
// Events of a homeserver are written together with its record.
func (r *Replayer) missing(journaled []revocation.Revocation, now time.Time) (out []revocation.Revocation) {
	for _, x := range journaled {
		if x.Kind == revocation.KindHomeserver {
			continue
		}
		if err := r.setEvent(&x, x.At); err == nil && x.Until > now.UnixMilli() {
			out = append(out, x)
		}
	}
	return out
}

// setEvent gives a revocation the event of a replay, which is kept until no
// discharge that was issued before a time is valid. The mark of a device has none:
// it covers sessions without a record, which have no discharges.
func (r *Replayer) setEvent(x *revocation.Revocation, at int64) error {
	x.Again, x.Only = true, true
	if x.Kind == revocation.KindDevice {
		return nil
	}
	if x.Kind == revocation.KindSession && x.Cause == "" { // of an earlier version, which did not journal it
		x.Soft = true
	}
	x.Until = r.life.Load().Until(at)
	e, _ := x.Event()
	if _, err := e.MarshalJSON(); err != nil {
		x.Until = 0
		return err
	}
	return nil
}
