package outbox

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// Bounds of reconciling. A pass that would log out more than half of the sessions logs
// out none, since a fault of the service is more likely.
const (
	reconcilePage  = 100                   // users
	reconcilePause = 50 * time.Millisecond // between users
	ReconcileFew   = 20                    // sessions that a pass may always log out
	clockTolerance = time.Hour             // between the clocks, from pass to pass
)

// reconcileEvery reconciles until ctx ends. It finds sessions that have expired, and
// those whose revocation was missed.
func (b *Outbox) reconcileEvery(ctx context.Context) {
	for b.passDue(ctx) {
		if err := b.Reconcile(ctx, reconcilePause); err != nil && ctx.Err() == nil {
			b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "reconciling sessions with the service failed, retrying", slog.Any("error", err))
		}
	}
}

// passDue blocks until the next pass is due. It returns false if ctx ends. Without an
// interval, it waits for a reload that sets one.
func (b *Outbox) passDue(ctx context.Context) bool {
	since, spread := time.Now(), 0.75+0.5*b.cfg.Jitter()
	for {
		var due <-chan time.Time
		var gap <-chan struct{}
		if period := b.reconcilePeriod(); period > 0 {
			due, gap = time.After(time.Until(since.Add(time.Duration(spread*float64(period))))), b.gap
		}
		select {
		case <-due:
			return true
		case <-gap:
			return true
		case <-b.reconfigured:
		case <-ctx.Done():
			return false
		}
	}
}

// reconcilePeriod returns the interval of reconciling: at most half of ForgetAfter.
func (b *Outbox) reconcilePeriod() time.Duration {
	every, forget := b.cfg.Periods()
	if half := forget / 2; half > 0 {
		return min(every, half)
	}
	return every
}

// pass is one comparison of the file with the service's sessions.
type pass struct {
	now      time.Time          // of the service's store
	reaping  bool               // devices may be forgotten: no clock was set since the last pass
	sessions int                // compared
	hard     []caveat.SessionID // ended hard
	due      []caveat.SessionID // ended softly, ForgetAfter ago
}

// Reconcile compares the sessions in the file with the service's, and adds pending
// logouts for those that have ended. It stops at the first error. It pauses between
// users.
func (b *Outbox) Reconcile(ctx context.Context, pause time.Duration) error {
	p, err := b.newPass(ctx)
	if err != nil {
		return err
	}
	for after := ""; ; {
		users, err := b.Store.users(after, reconcilePage)
		if err != nil {
			return err
		}
		for _, user := range users {
			if err := b.compare(ctx, p, user); err != nil {
				return err
			}
			if !sleep(ctx, pause) {
				return ctx.Err()
			}
		}
		if len(users) < reconcilePage {
			break
		}
		after = users[len(users)-1]
	}
	if gone := len(p.hard) + len(p.due); gone > ReconcileFew && gone > p.sessions/2 {
		return fmt.Errorf("%d of %d sessions are missing at the service, more than half: no device is logged out", gone, p.sessions)
	}
	if err := b.Store.addLogouts(p.hard, false); err != nil {
		return err
	}
	if err := b.Store.addLogouts(p.due, true); err != nil {
		return err
	}
	if len(p.hard)+len(p.due) > 0 {
		b.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "logging out devices of ended sessions",
			slog.Int("ended", len(p.hard)), slog.Int("forgotten", len(p.due)))
		b.Wake()
	}
	return nil
}

// newPass begins a pass with the service's time. If since the last pass another time has
// passed for the service than for this machine, a clock was set, and no device is
// forgotten; nor in the first pass of a process.
func (b *Outbox) newPass(ctx context.Context) (*pass, error) {
	now, err := b.storeNow(ctx)
	if err != nil {
		return nil, err
	}
	times := &passTimes{store: now, here: b.cfg.Clock()}
	last := b.lastPass.Swap(times)
	return &pass{now: now, reaping: last != nil && b.forgetAfter() > 0 && times.diverged(last) <= clockTolerance}, nil
}

// passTimes is the beginning of a pass by the clocks of the service's store and of this
// machine. The latter has a monotonic reading, which no setting of the clock changes.
type passTimes struct{ store, here time.Time }

// diverged returns the difference of the times since another pass.
func (t *passTimes) diverged(last *passTimes) time.Duration {
	return (t.store.Sub(last.store) - t.here.Sub(last.here)).Abs()
}

// compare compares the sessions of one user.
func (b *Outbox) compare(ctx context.Context, p *pass, user string) error {
	kept, err := b.Store.sessions(user)
	if err != nil {
		return err
	}
	live, err := b.cfg.Patient.Sessions(ctx, user)
	if err != nil {
		return err
	}
	p.sessions += len(kept)
	gone := maps.Clone(kept)
	for _, s := range live {
		delete(gone, s.ID)
		if old, ok := kept[s.ID]; ok && (old.Missing > 0 || old.Ended > 0) {
			if err := b.Store.setEnd(s.ID, 0, 0, false); err != nil {
				return err
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return b.compareEnded(ctx, p, user, gone)
}

// compareEnded records how sessions ended that are not live at the service. A session
// without a record there ended softly.
func (b *Outbox) compareEnded(ctx context.Context, p *pass, user string, gone map[caveat.SessionID]Session) error {
	list, err := b.cfg.Patient.EndedSessions(ctx, user)
	if err != nil {
		return err
	}
	ends := make(map[caveat.SessionID]End, len(list))
	for _, s := range list {
		ends[s.ID] = fromRecord(s)
	}
	for id, s := range gone {
		e, remembered := ends[id]
		missing, at, decided := s.Missing, s.Ended, s.Decided
		switch {
		case remembered && !e.Soft:
			p.hard = append(p.hard, id)
			continue
		case remembered && e.Replaced():
			// The session after it has the device.
			if err := b.Store.Drop(id); err != nil {
				return err
			}
			continue
		case remembered:
			at, decided = e.at, !e.Expired()
		case s.Missing == 0:
			missing = p.now.UnixMilli()
		}
		if missing != s.Missing || at != s.Ended || decided != s.Decided {
			if err := b.Store.setEnd(id, missing, at, decided); err != nil {
				return err
			}
		}
		if p.reaping && p.now.Sub(time.UnixMilli(cmp.Or(at, missing))) >= b.forgetAfter() {
			p.due = append(p.due, id)
		}
	}
	return nil
}

// sleep blocks for a duration. It returns false if ctx ends.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
