package logging

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/server"
)

// maxLogLine bounds a line: all attributes, the message, and the constant part.
const maxLogLine = maxLogAttrs + maxLogLong + 1<<10

// lines logs, and returns the text that was written.
func lines(format config.LogFormat, log func(*slog.Logger)) string {
	w := new(writes)
	log(New(w, format, slog.LevelInfo).Main)
	return strings.Join(w.taken(), "")
}

func TestLogLineIsBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]string{
		"plain":       "a",
		"quotes":      `"`,
		"controls":    "\x00",
		"not UTF-8":   "\xff",
		"letters":     "é",
		"unprintable": "\U0010fffe",
		"newlines":    "\n",
		"line breaks": "\u2028",
	} {
		long := strings.Repeat(c, 60<<10)
		for _, format := range []config.LogFormat{config.LogText, config.LogJSON} {
			t.Run(name+" "+string(format), func(t *testing.T) {
				t.Parallel()
				one := lines(format, func(l *slog.Logger) {
					l.Warn("one", "path", long, "after", "there")
				})
				if len(one) > maxLogText+200 || !strings.Contains(one, "bytes more)") || !strings.Contains(one, "there") || !utf8.ValidString(one) {
					t.Errorf("%d bytes: %.900s", len(one), one)
				}
				all := lines(format, func(l *slog.Logger) {
					l = l.With("with", long, slog.Group("group", "inner", long))
					l = l.WithGroup("g")
					var attrs []any
					for n := range 100 {
						attrs = append(attrs, slog.Any(strconv.Itoa(n), errors.New(long)))
					}
					attrs = append(attrs, "list", []string{long}, stackKey, long, slog.Group("group", "inner", long), "last", "x")
					l.Error(long, attrs...)
				})
				if len(all) > 2*maxLogLine || strings.Count(all, "\n") != 1 || !strings.Contains(all, "last") {
					t.Errorf("%d bytes, %d lines", len(all), strings.Count(all, "\n"))
				}
				if format == config.LogJSON && !json.Valid([]byte(all)) {
					t.Errorf("not JSON: %.900s", all)
				}
			})
		}
	}
}

// TestLogKeepsShort leaves a line as it is that is short enough.
func TestLogKeepsShort(t *testing.T) {
	t.Parallel()
	log := func(l *slog.Logger) {
		l = l.With("component", "x").WithGroup("g")
		l.Info("short", "path", strings.Repeat("é", maxLogText/2), "error", errors.New("bad"), "addr", netip.MustParseAddr("::1"),
			"list", []string{"a", "b"}, "nil", nil, "n", 1, slog.Group("more", "ok", true), "bytes", (*url.URL)(nil))
	}
	for _, format := range []config.LogFormat{config.LogText, config.LogJSON} {
		var want strings.Builder
		var h slog.Handler = slog.NewTextHandler(&want, nil)
		if format == config.LogJSON {
			h = slog.NewJSONHandler(&want, nil)
		}
		log(slog.New(h))
		_, wanted, _ := strings.Cut(want.String(), "short")
		if _, got, _ := strings.Cut(lines(format, log), "short"); got != wanted {
			t.Errorf("%s: got %s, want %s", format, got, wanted)
		}
	}
}

// TestLongPathInLog has net/http report a request with a long path that
// panicked.
func TestLongPathInLog(t *testing.T) {
	t.Parallel()
	w := new(writes)
	s := httptest.NewUnstartedServer(nil)
	s.Config = server.HTTPServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { panic(r.URL.Path) }),
		New(w, config.LogText, slog.LevelInfo).Main)
	s.Start()
	if resp, err := http.Get(s.URL + "/" + strings.Repeat("%00", 8<<10)); err == nil {
		resp.Body.Close()
		t.Errorf("answered %d", resp.StatusCode)
	}
	s.Close()
	if got := strings.Join(w.taken(), ""); !strings.Contains(got, "panic serving") || len(got) > maxLogLong+200 {
		t.Errorf("%d bytes: %.900s", len(got), got)
	}
}
