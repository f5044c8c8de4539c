package loglimit

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A repeated failure is logged once a second, with the number of dropped lines. Other
// failures, and lines below WARN, are not dropped.
func TestRepeatedFailuresAreDropped(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	now := time.Now()
	log := New(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
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
	now = now.Add(Interval)
	log.Warn("one")
	log.Error("two")
	if text := out.String(); !strings.Contains(text, "msg=one suppressed=19") || !strings.Contains(text, "msg=two suppressed=9") {
		t.Errorf("%s", text)
	}
	out.Reset()
	now = now.Add(Interval)
	if log.Warn("one"); strings.Contains(out.String(), Suppressed) {
		t.Errorf("%s", out.String())
	}
}

// Causes that are not constant take bounded memory.
func TestCausesAreBounded(t *testing.T) {
	t.Parallel()
	var l Limiter
	for i := range 10 * maxCauses {
		if _, ok := l.Pass(strconv.Itoa(i)); !ok || len(l.all) > maxCauses {
			t.Fatalf("cause %d: written %v, %d causes in memory", i, ok, len(l.all))
		}
	}
}
