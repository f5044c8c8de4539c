package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// start begins what goes on beside requests.
func (g *Gateway) start() {
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.background.Go(func() { g.settle(ctx) })
	g.background.Go(func() { g.seen.run(ctx) })
	g.background.Go(func() { g.follow(ctx) })
	g.background.Go(func() { g.inspectUpstream(ctx) })
	if g.cfg.Reconcile > 0 {
		g.background.Go(func() { g.reconcileEvery(ctx) })
	}
}

// later does something beside requests, or at once if the gateway is closing.
func (g *Gateway) later(f func()) {
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		f()
		return
	}
	g.background.Go(f)
}

// Close ends what goes on beside requests, reports what was seen in use until
// then, and closes the file. Requests should be over; what those that are not
// would write down is only logged.
func (g *Gateway) Close() error {
	g.closing.Lock()
	g.closed = true
	g.closing.Unlock()
	g.cancel()
	g.background.Wait()
	for _, c := range g.idle {
		c.CloseIdleConnections()
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.patience.order)
	defer cancel()
	g.seen.flush(ctx)
	return g.vault.close()
}

// wake makes the worker look for something to do.
func (g *Gateway) wake() {
	select {
	case g.woken <- struct{}{}:
	default:
	}
}

// The pauses of the worker, after failures in a row.
const (
	firstSettlePause = time.Second
	maxSettlePause   = 5 * time.Minute
	idleSettlePause  = 10 * time.Minute
)

// settle pays what the vault says is owed, until ctx ends. What fails is tried
// again, with growing pauses, and after a restart.
func (g *Gateway) settle(ctx context.Context) {
	for failures := 0; ; {
		pause := idleSettlePause
		if err := g.settleOnce(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			pause = min(firstSettlePause<<min(failures, 10), maxSettlePause)
			failures++
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "an end of sessions is still to be passed on", slog.Any("error", err))
		} else {
			failures = 0
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-g.woken:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// settleOnce pays everything that it can.
func (g *Gateway) settleOnce(ctx context.Context) error {
	ordersErr := g.settleOrders(ctx)
	if err := g.reap(ctx); err != nil {
		return err
	}
	return ordersErr
}

// settleOrders tells the service what it could not be told before.
func (g *Gateway) settleOrders(ctx context.Context) error {
	for ctx.Err() == nil {
		if more, err := g.settleOrder(ctx, ""); err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

// settleOrdersOf does that for one user. It comes before they get a new session,
// which an order from before must not end.
func (g *Gateway) settleOrdersOf(ctx context.Context, user string) error {
	for {
		if more, err := g.settleOrder(ctx, user); err != nil || !more {
			return err
		}
	}
}

// settleOrder tells one order, of one user or of any. It reports false if there
// is none.
func (g *Gateway) settleOrder(ctx context.Context, user string) (bool, error) {
	g.ordering.Lock()
	defer g.ordering.Unlock()
	key, o, err := g.vault.firstOrder(user)
	if err != nil || key == nil {
		return false, err
	}
	var bad *api.BadRequestError
	if err := g.tellLate(ctx, o); errors.As(err, &bad) && bad.Code == api.CodeBadRequest {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "the service makes nothing of an order, and it is dropped", slog.Any("error", err))
	} else if err != nil {
		return false, err
	}
	return true, g.vault.told(key)
}

// maxTries is how often a logout is tried that the homeserver answers, but not
// as it should.
const maxTries = 20

// reap logs out at the homeserver what is over at the service. One that fails
// is not in the way of others, unless the homeserver cannot be reached at all.
func (g *Gateway) reap(ctx context.Context) (failed error) {
	for id := (caveat.SessionID{}); ctx.Err() == nil; {
		next, d, ok, err := g.vault.nextCondemned(id)
		if err != nil || !ok {
			return errors.Join(failed, err)
		}
		id = next
		token, err := g.sealer.openUpstream(id, d.Box)
		if err != nil {
			g.cfg.Log.LogAttrs(ctx, slog.LevelError, "the key to a homeserver's token is gone, and its device stays",
				slog.String("session", id.String()))
		} else if err = g.logoutUpstream(ctx, token); err != nil {
			g.metrics.reaped.WithLabelValues(resultError).Inc()
			var status *statusError
			if !errors.As(err, &status) {
				return fmt.Errorf("log out at the homeserver: %w", err)
			}
			if d.Tries++; d.Tries < maxTries {
				failed = fmt.Errorf("log out at the homeserver: %w", err)
				if err := g.vault.owe(id, d); err != nil {
					return err
				}
				continue
			}
			g.cfg.Log.LogAttrs(ctx, slog.LevelError, "the homeserver does not log a device out, and it stays",
				slog.String("session", id.String()), slog.Any("error", err))
		} else {
			g.metrics.reaped.WithLabelValues(resultOK).Inc()
		}
		if err := g.vault.paid(id); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// statusError is an answer of the homeserver's that was not expected.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return "the homeserver answered with status " + strconv.Itoa(e.status)
}

func fillRandom(r io.Reader, b []byte) error {
	if r == nil {
		r = rand.Reader
	}
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("draw random bytes: %w", err)
	}
	return nil
}
