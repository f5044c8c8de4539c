package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// The bounds of reconciling. A session is logged out at the homeserver when the
// service has not listed it for a week, in which its client may come back to the
// device and its keys, and no pass does that to most sessions there are: then
// something else is wrong.
const (
	reconcilePage  = 100
	reconcilePause = 50 * time.Millisecond // between users
	reconcileYoung = 15 * time.Minute      // younger sessions may not be known there yet
	reconcileFew   = 20                    // as many may always go
	reconcileAfter = 7 * 24 * time.Hour    // of not being listed
)

// reconcileEvery compares the vault with the service's sessions, again and
// again until ctx ends. It finds sessions that ran out by themselves, and those
// whose end was missed.
func (g *Gateway) reconcileEvery(ctx context.Context) {
	for {
		timer := time.NewTimer(time.Duration((0.75 + 0.5*g.cfg.Jitter()) * float64(g.cfg.Reconcile)))
		select {
		case <-timer.C:
		case <-g.gap:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if err := g.reconcile(ctx, reconcilePause); err != nil && ctx.Err() == nil {
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "cannot compare sessions with the service's", slog.Any("error", err))
		}
	}
}

// reconcile makes one pass. If anything cannot be decided, it changes nothing
// more.
func (g *Gateway) reconcile(ctx context.Context, pause time.Duration) error {
	var gone []caveat.SessionID
	total := 0
	for after := ""; ; {
		users, err := g.vault.users(after, reconcilePage)
		if err != nil {
			return err
		}
		for _, user := range users {
			n, missing, err := g.missingOf(ctx, user)
			if err != nil {
				return err
			}
			total += n
			gone = append(gone, missing...)
			if !sleep(ctx, pause) {
				return ctx.Err()
			}
		}
		if len(users) < reconcilePage {
			break
		}
		after = users[len(users)-1]
	}
	if len(gone) > reconcileFew && len(gone) > total/2 {
		return fmt.Errorf("%d of %d sessions are not at the service any more, which is not believed: nobody is logged out", len(gone), total)
	}
	if err := g.vault.condemnAll(gone); err != nil {
		return err
	}
	if len(gone) > 0 {
		g.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "logging out what is over", slog.Int("sessions", len(gone)))
		g.wake()
	}
	return nil
}

// missingOf counts a user's sessions, and gives those that have not been at the
// service for long.
func (g *Gateway) missingOf(ctx context.Context, user string) (total int, gone []caveat.SessionID, err error) {
	kept, err := g.vault.sessionsOf(user)
	if err != nil {
		return 0, nil, err
	}
	live, err := g.client.Sessions(ctx, user)
	if err != nil {
		return 0, nil, err
	}
	there := make(map[caveat.SessionID]bool, len(live))
	for _, s := range live {
		there[s.ID] = true
	}
	now := g.cfg.Clock()
	for id, s := range kept {
		since := s.Missing
		switch {
		case there[id]:
			since = 0
		case now.Sub(time.UnixMilli(s.Minted)) < reconcileYoung:
		case s.Missing == 0:
			since = now.UnixMilli()
		case now.Sub(time.UnixMilli(s.Missing)) >= reconcileAfter:
			gone = append(gone, id)
		}
		if since != s.Missing {
			if err := g.vault.setMissing(id, since); err != nil {
				return 0, nil, err
			}
		}
	}
	return len(kept), gone, nil
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
