package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// minPause is about the shortest pause between two attempts.
const minPause = 250 * time.Millisecond

// newBackoff returns the pauses between attempts: about 250 ms at first, twice as
// long each time, and 15 s at most, each with a random part.
func newBackoff() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: minPause, RandomizationFactor: 1. / 3, Multiplier: 2, MaxInterval: 45 * time.Second / 4,
	}
}

// pauseAfter returns the next pause. It is no shorter than a Retry-After, to which
// it adds, so that clients do not return all at once.
func pauseAfter(err error, pauses *backoff.ExponentialBackOff) time.Duration {
	pause := pauses.NextBackOff()
	if unavailable, ok := errors.AsType[*UnavailableError](err); ok && unavailable.RetryAfter > 0 {
		pause += unavailable.RetryAfter
	}
	return pause
}

// retry repeats an attempt while the service is unavailable, until
// [Config.Patience] or ctx ends. It returns the error of the last attempt.
func (c *Client) retry(ctx context.Context, attempt func(context.Context) error) error {
	end, pauses := time.Now().Add(c.cfg.Patience), newBackoff()
	for {
		err := attempt(ctx)
		unavailable, ok := errors.AsType[*UnavailableError](err)
		if !ok {
			return err
		}
		pause := pauseAfter(err, pauses)
		if time.Now().Add(pause).After(end) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return &UnavailableError{RetryAfter: unavailable.RetryAfter, Err: fmt.Errorf("%w, after: %w", ctx.Err(), unavailable.Err)}
		}
	}
}
