package outbox

import (
	"context"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Wake starts a flush.
func (b *Outbox) Wake() { signal(b.woken) }

// signal makes the next receive from a channel of capacity 1 return.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// idlePause is the pause between two flushes without failures.
const idlePause = 10 * time.Minute

// run makes pending calls until ctx ends. Failed calls are retried with growing
// pauses.
func (b *Outbox) run(ctx context.Context) {
	pauses := backoff.ExponentialBackOff{
		InitialInterval: time.Second, MaxInterval: 5 * time.Minute, Multiplier: 2, RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
	for {
		pause := idlePause
		if err := b.Flush(ctx); err == nil {
			pauses.Reset()
		} else if ctx.Err() != nil {
			return
		} else {
			pause = pauses.NextBackOff()
			b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocation or logout failed, retrying", slog.Any("error", err))
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

// Flush sends all revocation jobs and pending logouts, one after the other.
func (b *Outbox) Flush(ctx context.Context) error {
	b.flushing.Lock()
	defer b.flushing.Unlock()
	jobsErr := b.FlushJobs(ctx)
	if err := b.flushLogouts(ctx); err != nil {
		return err
	}
	return jobsErr
}
