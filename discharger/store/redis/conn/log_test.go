package conn

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/loglimit"
)

// Each kind of message is logged once a second, with the number of those that
// were not, and no message is long.
func TestRedisLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := &clientLog{log: slog.New(slog.NewTextHandler(&out, nil))}
		for i := range 100 {
			l.Printf(t.Context(), "redis: failed to dial after %d attempts: %v", i, "refused")
			l.Printf(t.Context(), "sentinel: new master=%q", "m")
		}
		time.Sleep(loglimit.Interval)
		l.Printf(t.Context(), "redis: failed to dial after %d attempts: %v", 100, strings.Repeat("x", 10_000))
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 3 {
			t.Fatalf("%d lines:\n%s", len(lines), out.String())
		}
		for i, parts := range [][]string{{"level=WARN", "after 0 attempts", "suppressed=0"}, {"level=INFO", "new master"}, {"level=WARN", "after 100 attempts", "suppressed=99"}} {
			for _, part := range parts {
				if !strings.Contains(lines[i], part) {
					t.Errorf("line %d does not have %q: %s", i, part, lines[i])
				}
			}
		}
		if len(lines[2]) > 2*redisLogText {
			t.Errorf("a line has %d bytes", len(lines[2]))
		}
	})
}
