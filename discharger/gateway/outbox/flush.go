package outbox

import (
	"context"
	"log/slog"
	"time"
)

// Wake makes the worker look for something to do.
func (b *Outbox) Wake() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}

// The pauses of the worker, after failures in a row.
const (
	firstSettlePause = time.Second
	maxSettlePause   = 5 * time.Minute
	idleSettlePause  = 10 * time.Minute
)

// run carries out pending orders and logouts until ctx ends. One that fails is
// tried again, with growing pauses, and after a restart.
func (b *Outbox) run(ctx context.Context) {
	for failures := 0; ; {
		pause := idleSettlePause
		if err := b.Flush(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			pause = min(firstSettlePause<<min(failures, 10), maxSettlePause)
			failures++
			b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocation or logout failed, retrying", slog.Any("error", err))
		} else {
			failures = 0
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-b.woken:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Flush sends all orders and logouts that it can. Calls run one after the other.
func (b *Outbox) Flush(ctx context.Context) error {
	b.flushing.Lock()
	defer b.flushing.Unlock()
	ordersErr := b.FlushJobs(ctx)
	if err := b.flushLogouts(ctx); err != nil {
		return err
	}
	return ordersErr
}
