package gateway

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A failure that repeats is logged once a second, with the number of lines that were
// left out. Other failures, and what is no failure, are logged as they come.
func TestLimitLog(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	now := time.Now()
	log := limitLog(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
	for i := range 10 {
		log.Warn("one", "i", i)
		log.With("a", "b").Warn("one", "i", i)
		log.WithGroup("g").Error("two", "i", i)
		log.Info("three")
	}
	for message, want := range map[string]int{"msg=one": 1, "msg=two": 1, "msg=three": 10} {
		if n := strings.Count(out.String(), message); n != want {
			t.Errorf("%s: %d lines, want %d", message, n, want)
		}
	}
	out.Reset()
	now = now.Add(logPause)
	log.Warn("one")
	log.Error("two")
	if text := out.String(); !strings.Contains(text, "msg=one suppressed=19") || !strings.Contains(text, "msg=two suppressed=9") {
		t.Errorf("%s", text)
	}
	out.Reset()
	now = now.Add(logPause)
	if log.Warn("one"); strings.Contains(out.String(), logSuppressed) {
		t.Errorf("%s", out.String())
	}
}
