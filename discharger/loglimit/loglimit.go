// Package loglimit limits repeated log lines.
//
// A failure repeats with every request that it concerns. A limited logger writes at
// most one line a second per cause. The cause is the message, which has to be
// constant; attributes vary. The next line of the cause carries the number of dropped
// lines in the attribute "suppressed". Lines below WARN are never dropped.
package loglimit

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Interval is the shortest time between two lines of one cause.
const Interval = time.Second

// Suppressed is the attribute with the number of dropped lines.
const Suppressed = "suppressed"

// New returns a logger that writes to log. A nil now is time.Now.
func New(log *slog.Logger, now func() time.Time) *slog.Logger {
	if now == nil {
		now = time.Now
	}
	return slog.New(&handler{log.Handler(), &causes{now: now, all: make(map[string]*cause)}})
}

// handler drops repeated lines.
type handler struct {
	next   slog.Handler
	shared *causes
}

// causes counts lines by message. Handlers derived from one handler share it.
type causes struct {
	now func() time.Time

	mu  sync.Mutex
	all map[string]*cause
}

type cause struct {
	written    time.Time
	suppressed int
}

// Enabled implements [slog.Handler].
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		suppressed, ok := h.shared.pass(r.Message)
		if !ok {
			return nil
		}
		if suppressed > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int(Suppressed, suppressed))
		}
	}
	return h.next.Handle(ctx, r)
}

// pass reports whether a line is written, and the number of lines dropped before it.
func (c *causes) pass(message string) (suppressed int, ok bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.all[message]
	if last == nil {
		c.all[message] = &cause{written: now}
		return 0, true
	}
	if since := now.Sub(last.written); since >= 0 && since < Interval {
		last.suppressed++
		return 0, false
	}
	suppressed = last.suppressed
	last.written, last.suppressed = now, 0
	return suppressed, true
}

// WithAttrs implements [slog.Handler].
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.next.WithAttrs(attrs), h.shared}
}

// WithGroup implements [slog.Handler].
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.next.WithGroup(name), h.shared}
}
