// Package loglimit limits repeated log lines.
//
// A failure repeats with every request that it concerns. A limited logger writes at
// most one line a second per cause. The cause is the message, which has to be
// constant; attributes vary. The next line of the cause carries the number of dropped
// lines in the attribute "suppressed". Lines below WARN are never dropped.
//
// A [Limiter] does the same for lines with a cause of another kind.
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
	return slog.New(&handler{log.Handler(), &Limiter{now: now}})
}

// handler drops repeated lines. Handlers derived from one handler share its limiter.
type handler struct {
	next    slog.Handler
	limiter *Limiter
}

// Enabled implements [slog.Handler].
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		suppressed, ok := h.limiter.Pass(r.Message)
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

// WithAttrs implements [slog.Handler].
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.next.WithAttrs(attrs), h.limiter}
}

// WithGroup implements [slog.Handler].
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.next.WithGroup(name), h.limiter}
}

// maxCauses bounds the causes in memory.
const maxCauses = 256

// Limiter counts lines by cause. The zero value is ready to use. It may be used
// concurrently.
type Limiter struct {
	now func() time.Time // nil: time.Now

	mu  sync.Mutex
	all map[string]*cause
}

type cause struct {
	written    time.Time
	suppressed int
}

// Pass reports whether a line of a cause is written, and the number of lines dropped
// before it.
func (l *Limiter) Pass(of string) (suppressed int, ok bool) {
	now := time.Now()
	if l.now != nil {
		now = l.now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.all[of]
	if last == nil {
		if l.all == nil || len(l.all) >= maxCauses { // causes that are not constant
			l.all = make(map[string]*cause)
		}
		l.all[of] = &cause{written: now}
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
