// Package logging makes the loggers of a service. Lines of requests are written
// in batches, all other lines at once and in order with them; every line has a
// bounded length, also with text from outside.
package logging

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/discharger/discharger/config"
)

// Loggers are the two loggers of a service, with the same format and output. Lines of
// Access, one per request, are buffered for up to [gatherFor]: a write of each would be
// a tenth of the cost of a request. A line of Main is written at once, after the lines
// that are buffered. Every line has a bounded length.
type Loggers struct {
	Main   *slog.Logger
	Access *slog.Logger
	out    *gatherer
}

// New returns loggers that write lines of a format and from a level on to w.
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

// Flush writes the buffered lines.
func (l Loggers) Flush() { l.out.flush() }

// gatherer buffers lines for a short time and writes them in order.
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

// Write buffers a line. The error of a write is returned with a later line.
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

// flush writes the buffer.
func (g *gatherer) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.write() // the log is where errors go
}

func (g *gatherer) write() error {
	if len(g.buf) == 0 {
		return nil
	}
	_, err := g.w.Write(g.buf)
	g.buf = g.buf[:0]
	return err
}

// prompt is a handler that flushes after every line.
type prompt struct {
	slog.Handler
	out *gatherer
}

// Handle writes a line at once.
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
