package gateway

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// The bounds of reconciling. No pass ends most sessions there are: then something
// else is wrong.
const (
	reconcilePage  = 100
	reconcilePause = 50 * time.Millisecond // between users
	reconcileFew   = 20                    // as many may always go
	clockTolerance = time.Hour             // of the service's clock between two passes
)

// reconcileEvery compares the vault with the service's sessions, again and
// again until ctx ends. It finds sessions that ran out by themselves, and those
// whose end was missed. While there is no period, it waits for a reload that sets
// one.
func (g *Gateway) reconcileEvery(ctx context.Context) {
	for g.passDue(ctx) {
		if err := g.reconcile(ctx, reconcilePause); err != nil && ctx.Err() == nil {
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "cannot compare sessions with the service's", slog.Any("error", err))
		}
	}
}

// passDue waits until another pass is due, or until ctx ends and then returns
// false.
func (g *Gateway) passDue(ctx context.Context) bool {
	since, spread := time.Now(), 0.75+0.5*g.cfg.Jitter()
	for {
		var due <-chan time.Time
		var gap <-chan struct{}
		if period := g.reconcilePeriod(); period > 0 {
			due, gap = time.After(time.Until(since.Add(time.Duration(spread*float64(period))))), g.gap
		}
		select {
		case <-due:
			return true
		case <-gap:
			return true
		case <-g.reconfigured:
		case <-ctx.Done():
			return false
		}
	}
}

// reconcilePeriod returns the time between two passes: no more than half of the
// time after which devices are forgotten.
func (g *Gateway) reconcilePeriod() time.Duration {
	cfg := g.live()
	if half := cfg.ForgetAfter / 2; half > 0 {
		return min(cfg.Reconcile, half)
	}
	return cfg.Reconcile
}

// pass is one comparison of the vault with the service's sessions.
type pass struct {
	now      time.Time // of the service's store
	reaping  bool      // its clock went on since the last pass as this machine's did
	sessions int
	hard     []caveat.SessionID // ended hard: to be logged out
	due      []caveat.SessionID // ended softly, ForgetAfter ago: to be reaped
}

// reconcile makes one pass. If anything cannot be decided, it changes nothing
// more.
func (g *Gateway) reconcile(ctx context.Context, pause time.Duration) error {
	p, err := g.newPass(ctx)
	if err != nil {
		return err
	}
	for after := ""; ; {
		users, err := g.vault.users(after, reconcilePage)
		if err != nil {
			return err
		}
		for _, user := range users {
			if err := g.compare(ctx, p, user); err != nil {
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
	if gone := len(p.hard) + len(p.due); gone > reconcileFew && gone > p.sessions/2 {
		return fmt.Errorf("%d of %d sessions are not at the service any more, which is not believed: no device is logged out", gone, p.sessions)
	}
	if err := g.vault.condemnAll(p.hard, false); err != nil {
		return err
	}
	if err := g.vault.condemnAll(p.due, true); err != nil {
		return err
	}
	if len(p.hard)+len(p.due) > 0 {
		g.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "logging out devices of ended sessions",
			slog.Int("ended", len(p.hard)), slog.Int("forgotten", len(p.due)))
		g.wake()
	}
	return nil
}

// newPass reads the service's time. Where that has gone on by another amount than
// this machine's since the last pass, one of the clocks was set, and nothing is
// reaped; nor in the first pass of a process.
func (g *Gateway) newPass(ctx context.Context) (*pass, error) {
	now, err := g.storeNow(ctx)
	if err != nil {
		return nil, err
	}
	p := &pass{now: now}
	here := g.cfg.Clock()
	g.passing.Lock()
	defer g.passing.Unlock()
	if last := g.lastPass; !last.store.IsZero() {
		p.reaping = g.live().ForgetAfter > 0 && (now.Sub(last.store)-here.Sub(last.here)).Abs() <= clockTolerance
	}
	g.lastPass = passTimes{store: now, here: here}
	return p, nil
}

// passTimes is when a pass began, by the service's store and by this machine.
type passTimes struct{ store, here time.Time }

// compare compares the sessions of one user.
func (g *Gateway) compare(ctx context.Context, p *pass, user string) error {
	kept, err := g.vault.sessionsOf(user)
	if err != nil {
		return err
	}
	live, err := g.client.Sessions(ctx, user)
	if err != nil {
		return err
	}
	p.sessions += len(kept)
	gone := make(map[caveat.SessionID]vaultSession, len(kept))
	for id, s := range kept {
		gone[id] = s
	}
	for _, s := range live {
		delete(gone, s.ID)
		if old, ok := kept[s.ID]; ok && (old.Missing > 0 || old.Ended > 0) {
			if err := g.vault.setEnd(s.ID, 0, 0, false); err != nil {
				return err
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return g.compareEnded(ctx, p, user, gone)
}

// compareEnded finds out how sessions ended that the service does not list any
// more. One that it does not remember ended softly.
func (g *Gateway) compareEnded(ctx context.Context, p *pass, user string, gone map[caveat.SessionID]vaultSession) error {
	list, err := g.client.EndedSessions(ctx, user)
	if err != nil {
		return err
	}
	ends := make(map[caveat.SessionID]ending, len(list))
	for _, s := range list {
		ends[s.ID] = endingIn(s)
	}
	for id, s := range gone {
		e, remembered := ends[id]
		missing, at, decided := s.Missing, s.Ended, s.Decided
		switch {
		case remembered && !e.soft:
			p.hard = append(p.hard, id)
			continue
		case remembered && e.replaced():
			// The session after it has the device.
			if err := g.vault.drop(id); err != nil {
				return err
			}
			continue
		case remembered:
			at, decided = e.at, !e.overByTime()
		case s.Missing == 0:
			missing = p.now.UnixMilli()
		}
		if missing != s.Missing || at != s.Ended || decided != s.Decided {
			if err := g.vault.setEnd(id, missing, at, decided); err != nil {
				return err
			}
		}
		if p.reaping && p.now.Sub(time.UnixMilli(cmp.Or(at, missing))) >= g.live().ForgetAfter {
			p.due = append(p.due, id)
		}
	}
	return nil
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
