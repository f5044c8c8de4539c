package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// limitedHandler writes at most one line a second of each cause: a failure repeats
// with every request that it concerns. The cause is the message, which is constant
// wherever one is logged. The next line that is written has the number of those
// that were left out since. Lines below WARN pass.
type limitedHandler struct {
	next   slog.Handler
	causes *logCauses
}

// logCauses counts lines by their message. It is shared by the handlers that were
// made of one.
type logCauses struct {
	now func() time.Time

	mu  sync.Mutex
	all map[string]*logCause
}

type logCause struct {
	written    time.Time
	suppressed int
}

const (
	logPause      = time.Second
	logSuppressed = "suppressed"
)

// limitLog makes a logger that repeats itself at most once a second.
func limitLog(log *slog.Logger, now func() time.Time) *slog.Logger {
	return slog.New(&limitedHandler{log.Handler(), &logCauses{now: now, all: make(map[string]*logCause)}})
}

// Enabled implements [slog.Handler].
func (h *limitedHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *limitedHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		suppressed, ok := h.causes.pass(r.Message)
		if !ok {
			return nil
		}
		if suppressed > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int(logSuppressed, suppressed))
		}
	}
	return h.next.Handle(ctx, r)
}

// pass reports whether a line is to be written, and how many were not before it.
func (c *logCauses) pass(message string) (suppressed int, ok bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	cause := c.all[message]
	if cause == nil {
		c.all[message] = &logCause{written: now}
		return 0, true
	}
	if since := now.Sub(cause.written); since >= 0 && since < logPause {
		cause.suppressed++
		return 0, false
	}
	suppressed = cause.suppressed
	cause.written, cause.suppressed = now, 0
	return suppressed, true
}

// WithAttrs implements [slog.Handler].
func (h *limitedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limitedHandler{h.next.WithAttrs(attrs), h.causes}
}

// WithGroup implements [slog.Handler].
func (h *limitedHandler) WithGroup(name string) slog.Handler {
	return &limitedHandler{h.next.WithGroup(name), h.causes}
}
