package conn

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// SetLog routes the messages of go-redis to a logger, which would otherwise be
// printed to standard error. Each kind of message is logged at most once a
// second, with the number of suppressed ones. The setting is one for the
// process; nil drops the messages.
func SetLog(log *slog.Logger) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	redis.SetLogger(&clientLog{log: log, kinds: make(map[string]*redisKind)})
}

const (
	redisLogEvery = time.Second
	redisLogText  = 300 // bytes of a message; some contain stack traces
	redisLogKinds = 256
)

// clientLog logs messages of go-redis. None of its formats contains the
// arguments of a command or a password.
type clientLog struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[string]*redisKind // by format
}

// redisKind is the state of one kind of message.
type redisKind struct {
	at      time.Time // when a message was logged last
	skipped int       // since then
}

// Printf logs a message unless one of its kind was logged within a second.
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
