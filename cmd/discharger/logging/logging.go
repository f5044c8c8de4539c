// Package logging makes the loggers of a service. Lines of requests are written
// in batches, all other lines at once and in order with them; no line is longer than
// a bound, whatever text from outside it contains.
package logging

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/discharger/discharger/config"
)

// logs are the two loggers of a service. They write the same lines to the same
// place, but those of access are gathered for a moment: one comes with every
// request, and writing each of its own would be a tenth of a request's cost.
// Whatever else is logged is written at once, after what was gathered before it.
// No line is longer than a bound, whatever is in it.
type Loggers struct {
	Main   *slog.Logger
	Access *slog.Logger
	out    *gatherer
}

func New(w io.Writer, format config.LogFormat, level slog.Leveler) Loggers {
	out := &gatherer{w: w}
	out.timer = time.AfterFunc(time.Hour, out.flush)
	out.timer.Stop()
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(out, o)
	if format == config.LogJSON {
		h = slog.NewJSONHandler(out, o)
	}
	h = bounded{h}
	return Loggers{Main: slog.New(prompt{h, out}), Access: slog.New(h), out: out}
}

// flush writes the lines that were gathered.
func (l Loggers) Flush() { l.out.flush() }

// gatherer writes what it is given, in order, in large pieces and soon.
type gatherer struct {
	w     io.Writer
	timer *time.Timer

	mu  sync.Mutex
	buf []byte
}

const (
	gatherFor  = 100 * time.Millisecond
	gatherSize = 32 << 10 // bytes
)

// Write keeps a line for later. An error comes with a later line.
func (g *gatherer) Write(line []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.buf) == 0 {
		g.timer.Reset(gatherFor)
	}
	if g.buf = append(g.buf, line...); len(g.buf) >= gatherSize {
		return len(line), g.write()
	}
	return len(line), nil
}

// flush writes what was kept.
func (g *gatherer) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.write() // there is nobody to tell
}

func (g *gatherer) write() error {
	if len(g.buf) == 0 {
		return nil
	}
	_, err := g.w.Write(g.buf)
	g.buf = g.buf[:0]
	return err
}

// prompt writes every line at once.
type prompt struct {
	slog.Handler
	out *gatherer
}

// Handle writes a line.
func (p prompt) Handle(ctx context.Context, r slog.Record) error {
	defer p.out.flush()
	return p.Handler.Handle(ctx, r)
}

// WithAttrs keeps the handler prompt.
func (p prompt) WithAttrs(attrs []slog.Attr) slog.Handler {
	return prompt{p.Handler.WithAttrs(attrs), p.out}
}

// WithGroup keeps the handler prompt.
func (p prompt) WithGroup(name string) slog.Handler { return prompt{p.Handler.WithGroup(name), p.out} }
