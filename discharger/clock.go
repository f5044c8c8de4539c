package discharger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// clock notices when the machine's clock jumps: the time it shows has gone on
// by another amount than the monotonic clock. A clock that is far ahead for
// some seconds would end sessions by time that have not ended, and make
// revocation marks in the future. So nothing is decided after a jump until the
// clock is back, or has stayed where it is for a while: it was set.
type clock struct {
	wall    func() time.Time
	elapsed func() time.Duration // by the monotonic clock; nil: that in what wall returns, if there is one
	limit   time.Duration        // the largest jump that does not matter
	log     *slog.Logger

	mu       sync.Mutex
	start    time.Time     // wall at elapsed 0
	accepted time.Duration // of wall against start and elapsed
	jumped   time.Duration // elapsed, when the jump under way was noticed; 0: none
	seen     time.Duration // of wall against start and elapsed, at that time
}

// clockSettles is how long a clock that was set has to go on evenly before it
// is believed.
const clockSettles = 2 * time.Minute

func newClock(wall func() time.Time, elapsed func() time.Duration, limit time.Duration, log *slog.Logger) *clock {
	if wall == nil {
		wall = time.Now
	}
	c := &clock{wall: wall, elapsed: elapsed, limit: limit, log: log, start: wall()}
	if elapsed != nil {
		c.start = c.start.Round(0).Add(-elapsed())
	}
	return c
}

// check returns an error while the clock cannot be believed.
func (c *clock) check() error {
	now := c.wall()
	gone := now.Sub(c.start)
	if c.elapsed != nil {
		gone = c.elapsed()
	}
	off := now.Round(0).Sub(c.start.Round(0)) - gone
	c.mu.Lock()
	defer c.mu.Unlock()
	jump := off - c.accepted
	switch {
	case jump.Abs() <= c.limit:
		c.accepted, c.jumped = off, 0 // clocks drift, and are steered
		return nil
	case c.jumped == 0 || (off-c.seen).Abs() > c.limit:
		c.jumped, c.seen = max(gone, 1), off
		c.log.LogAttrs(context.Background(), slog.LevelError, "clock jumped, nothing is decided until it is back or has settled",
			slog.Duration("jump", jump), slog.Duration("settles", clockSettles))
	case gone-c.jumped >= clockSettles:
		c.log.LogAttrs(context.Background(), slog.LevelWarn, "clock was set", slog.Duration("jump", jump))
		c.accepted, c.jumped = off, 0
		return nil
	}
	return fmt.Errorf("clock jumped by %v", jump)
}
