package conn

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/loglimit"
)

// SetLog routes the messages of go-redis to a logger, which would otherwise be printed to
// standard error. Each kind of message is logged at most once a second, with the number
// of suppressed ones. The setting is one for the process; nil drops the messages.
func SetLog(log *slog.Logger) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	redis.SetLogger(&clientLog{log: log})
}

// redisLogText bounds a message in bytes; some contain stack traces.
const redisLogText = 300

// clientLog logs messages of go-redis. The format of a message is its kind. No format
// contains the arguments of a command or a password.
type clientLog struct {
	log     *slog.Logger
	limiter loglimit.Limiter
}

// Printf logs a message unless one of its kind was logged within a second.
func (l *clientLog) Printf(ctx context.Context, format string, v ...any) {
	suppressed, ok := l.limiter.Pass(format)
	if !ok {
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
	l.log.LogAttrs(ctx, level, "message from the redis client", slog.String("text", text), slog.Int(loglimit.Suppressed, suppressed))
}
