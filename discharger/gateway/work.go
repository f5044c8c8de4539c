package gateway

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// start begins the work beside requests.
func (g *Gateway) start() {
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.background.Go(func() { g.settle(ctx) })
	g.background.Go(func() { g.seen.run(ctx) })
	g.background.Go(func() { g.follow(ctx) })
	g.background.Go(func() { g.inspectUpstream(ctx) })
	g.background.Go(func() { g.reconcileEvery(ctx) })
}

// Close ends what goes on beside requests, reports what was seen in use until
// then, and closes the file. Requests should be over; what those that are not
// would write down is only logged.
func (g *Gateway) Close() error {
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

// settle carries out pending orders and logouts until ctx ends. One that fails is
// tried again, with growing pauses, and after a restart.
func (g *Gateway) settle(ctx context.Context) {
	for failures := 0; ; {
		pause := idleSettlePause
		if err := g.settleOnce(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			pause = min(firstSettlePause<<min(failures, 10), maxSettlePause)
			failures++
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocation or logout failed, retrying", slog.Any("error", err))
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

// settleOnce sends all orders and logouts that it can. Calls run one after the other.
func (g *Gateway) settleOnce(ctx context.Context) error {
	g.settling.Lock()
	defer g.settling.Unlock()
	ordersErr := g.settleOrders(ctx)
	if err := g.logOutPending(ctx); err != nil {
		return err
	}
	return ordersErr
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
