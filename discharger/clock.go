package discharger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// clock detects jumps of the wall clock against the monotonic clock. A clock that is
// far ahead for some seconds would expire live sessions and set revocation marks in
// the future. So every request is undecided after a jump until the clock is back, or
// has run evenly for clockSettles: then it was set.
type clock struct {
	wall    func() time.Time
	elapsed func() time.Duration // monotonic; nil: the monotonic reading of wall, if it has one
	limit   time.Duration        // the largest tolerated jump
	log     *slog.Logger

	mu       sync.Mutex
	start    time.Time     // wall at elapsed 0
	accepted time.Duration // offset of wall from start plus elapsed
	jumped   time.Duration // elapsed when the current jump was detected; 0: none
	seen     time.Duration // offset then
}

// clockSettles is how long a clock must run evenly after a jump to be accepted.
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

// check returns an error after a jump, until the clock is back or has settled.
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
		c.accepted, c.jumped = off, 0 // clocks drift and are slewed
		return nil
	case c.jumped == 0 || (off-c.seen).Abs() > c.limit:
		c.jumped, c.seen = max(gone, 1), off
		c.log.LogAttrs(context.Background(), slog.LevelError, "clock jumped, requests answered 503 until it is back or has settled",
			slog.Duration("jump", jump), slog.Duration("settles", clockSettles))
	case gone-c.jumped >= clockSettles:
		c.log.LogAttrs(context.Background(), slog.LevelWarn, "clock was set", slog.Duration("jump", jump))
		c.accepted, c.jumped = off, 0
		return nil
	}
	return fmt.Errorf("clock jumped by %v", jump)
}
