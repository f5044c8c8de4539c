package redis

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// SetLog has go-redis log there what it would otherwise print to standard
// error, such as that a server cannot be reached: each kind of message once a
// second at most, with the number of those left out. It is one setting for the
// whole process; nil leaves such messages out.
func SetLog(log *slog.Logger) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	redis.SetLogger(&clientLog{log: log, kinds: make(map[string]*redisKind)})
}

const (
	redisLogEvery = time.Second
	redisLogText  = 300 // bytes of a message, of which some have the state of goroutines
	redisLogKinds = 256
)

// clientLog writes messages of go-redis. None of its formats prints a command's
// arguments or a password.
type clientLog struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[string]*redisKind // by format
}

// redisKind is one kind of message.
type redisKind struct {
	at      time.Time // when one was logged last
	skipped int       // since then
}

// Printf logs a message unless one of its kind was logged a moment ago.
func (l *clientLog) Printf(ctx context.Context, format string, v ...any) {
	skipped, due := l.due(format, time.Now())
	if !due {
		return
	}
	text := fmt.Sprintf(format, v...)
	if len(text) > redisLogText {
		text = strings.ToValidUTF8(text[:redisLogText], "") + "…"
	}
	level := slog.LevelWarn
	if strings.HasPrefix(format, "sentinel: new") || strings.HasPrefix(format, "sentinel: discovered") || strings.HasPrefix(format, "sentinel: selected") {
		level = slog.LevelInfo
	}
	l.log.LogAttrs(ctx, level, "message from the redis client", slog.String("text", text), slog.Int("suppressed", skipped))
}

func (l *clientLog) due(format string, now time.Time) (skipped int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[format]
	if k == nil {
		if len(l.kinds) >= redisLogKinds { // a format that is made of values
			clear(l.kinds)
		}
		k = new(redisKind)
		l.kinds[format] = k
	}
	if !k.at.IsZero() && now.Sub(k.at) < redisLogEvery {
		k.skipped++
		return 0, false
	}
	skipped, k.at, k.skipped = k.skipped, now, 0
	return skipped, true
}
