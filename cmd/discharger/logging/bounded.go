package logging

import (
	"context"
	"encoding"
	"fmt"
	"log/slog"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Bounds of a line of the log, in bytes as they are written, so that no request
// makes it long. Paths, names of clients and texts of errors come from outside.
const (
	maxLogText  = 512      // of an attribute
	maxLogLong  = 4 << 10  // of a message, and of a stack trace
	maxLogAttrs = 12 << 10 // of all attributes of a line
)

// stackKey is the attribute that may be as long as a message.
const stackKey = "stack"

// bounded truncates long texts in a line of the log, and marks them.
type bounded struct{ slog.Handler }

// Handle writes a line.
func (b bounded) Handle(ctx context.Context, r slog.Record) error {
	cut := bounds{left: maxLogAttrs}
	message, fits := cut.text(r.Message, maxLogLong)
	r.Attrs(func(a slog.Attr) bool {
		_, ok := cut.attr(a)
		fits = fits && ok
		return fits
	})
	if !fits {
		cut = bounds{left: maxLogAttrs}
		short := slog.NewRecord(r.Time, r.Level, message, r.PC)
		r.Attrs(func(a slog.Attr) bool {
			a, _ = cut.attr(a)
			short.AddAttrs(a)
			return true
		})
		r = short
	}
	return b.Handler.Handle(ctx, r)
}

// WithAttrs cuts the attributes once for all lines.
func (b bounded) WithAttrs(attrs []slog.Attr) slog.Handler {
	cut := bounds{left: maxLogAttrs}
	short := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		short[i], _ = cut.attr(a)
	}
	return bounded{b.Handler.WithAttrs(short)}
}

// WithGroup keeps the handler bounded.
func (b bounded) WithGroup(name string) slog.Handler { return bounded{b.Handler.WithGroup(name)} }

// bounds cuts the attributes of one line.
type bounds struct{ left int }

// attr returns an attribute within the bounds, and whether it is unchanged.
func (b *bounds) attr(a slog.Attr) (slog.Attr, bool) {
	most := maxLogText
	if a.Key == stackKey {
		most = maxLogLong
	}
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		s, fits := b.text(v.String(), most)
		if !fits {
			a.Value = slog.StringValue(s)
		}
		return a, fits
	case slog.KindAny:
		s, fits := b.text(textOf(v.Any()), most)
		if !fits {
			a.Value = slog.StringValue(s)
		}
		return a, fits
	case slog.KindGroup:
		group, fits := v.Group(), true
		short := make([]slog.Attr, len(group))
		for i := range group {
			var ok bool
			short[i], ok = b.attr(group[i])
			fits = fits && ok
		}
		if !fits {
			a.Value = slog.GroupValue(short...)
		}
		return a, fits
	}
	return a, true // numbers and times
}

// text returns s, truncated to a number of bytes as written and to the rest of the line,
// and whether it is complete.
func (b *bounds) text(s string, most int) (string, bool) {
	most = max(0, min(most, b.left))
	n, written := 0, 0
	for n < len(s) {
		size, width := 1, 1
		if c := s[n]; c >= utf8.RuneSelf || c < ' ' || c == '"' || c == '\\' || c == 0x7f {
			size, width = escaped(s[n:])
		}
		if written+width > most {
			b.left -= written
			return s[:n] + "…(" + strconv.Itoa(len(s)-n) + " bytes more)", false
		}
		n, written = n+size, written+width
	}
	b.left -= written
	return s, true
}

// escaped returns how many bytes the first character has, and as how many it is
// written at most, in text and in JSON.
func escaped(s string) (size, width int) {
	r, size := utf8.DecodeRuneInString(s)
	switch {
	case r == '"' || r == '\\':
		return size, 2
	case r == utf8.RuneError || !unicode.IsPrint(r):
		return size, len(`\U0010ffff`)
	}
	return size, size
}

// textOf returns a value about as a line has it; empty if that panics, which
// handlers cope with themselves.
func textOf(v any) (text string) {
	defer func() {
		if recover() != nil {
			text = ""
		}
	}()
	switch v := v.(type) {
	case nil:
		return ""
	case error:
		return v.Error()
	case encoding.TextMarshaler:
		if text, err := v.MarshalText(); err == nil {
			return string(text)
		}
	}
	return fmt.Sprintf("%+v", v)
}
