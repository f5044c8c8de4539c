package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

var tagKey = caveat.Secret("0123456789abcdef0123456789abcdef")

// A redisServer is a real one, with a connection of its own.
type redisServer struct {
	*redistest.Server
	raw *redis.Client // to look behind the store's back
}

func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := &redisServer{Server: redistest.Start(t, args...)}
	s.raw = s.Connect(t)
	return s
}

// pause stops the server as a machine that hangs would, resume lets it go on.
func (s *redisServer) pause(t testing.TB)  { s.Signal(t, syscall.SIGSTOP) }
func (s *redisServer) resume(t testing.TB) { s.Signal(t, syscall.SIGCONT) }

// do runs one command behind the store's back.
func (s *redisServer) do(t testing.TB, args ...any) any {
	t.Helper()
	v, err := s.raw.Do(t.Context(), args...).Result()
	if err != nil && err != redis.Nil {
		t.Fatalf("%v: %v", args, err)
	}
	return v
}

// A logBuffer takes a log that several goroutines write.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (s *redisServer) config() store.RedisConfig {
	return patient(store.RedisConfig{Addrs: []string{s.Socket}})
}

// awake runs f and returns for how long this process was there to run it: a
// machine that stands still for a while is not counted, since of the ticks that
// are missed only one comes late.
func awake(f func()) time.Duration {
	const step = 10 * time.Millisecond
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for steps := time.Duration(0); ; steps++ {
		select {
		case <-done:
			return steps * step
		case <-tick.C:
		}
	}
}

func openRedis(t testing.TB, cfg store.RedisConfig) *store.Redis {
	t.Helper()
	s, err := store.OpenRedis(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// redisFixture makes fixtures of one Redis, wherever it is.
func redisFixture(cfg store.RedisConfig, fields func(testing.TB, string) int) func(testing.TB) *fixture {
	return func(t testing.TB) *fixture {
		c, cfg := newClock(), cfg
		cfg.Now = c.now
		cfg.Wait = func(_ context.Context, d time.Duration) error { c.advance(d); return nil }
		f := &fixture{Store: openRedis(t, cfg), clock: c}
		f.other = func(t testing.TB) discharger.Store { return openRedis(t, cfg) }
		f.reopen = func(t testing.TB, f *fixture) { f.Store = openRedis(t, cfg) }
		f.forget = func(t testing.TB, u discharger.UserKey) int {
			return fields(t, store.UserHash(cfg.TagKey, u))
		}
		return f
	}
}

func TestRedisConformance(t *testing.T) {
	t.Parallel()
	for _, unpipelined := range []bool{false, true} {
		t.Run(fmt.Sprintf("unpipelined=%v", unpipelined), func(t *testing.T) {
			s := startRedis(t)
			cfg := s.config()
			cfg.Unpipelined = unpipelined
			conformance(t, redisFixture(cfg, func(t testing.TB, key string) int {
				return int(s.raw.HLen(t.Context(), key).Val())
			}))
		})
	}
}

func boltFixture(t testing.TB) *fixture {
	c := newClock()
	cfg := store.BoltConfig{Path: filepath.Join(t.TempDir(), "store.db"), Now: c.now, LockTimeout: time.Minute}
	f := &fixture{clock: c}
	open := func(t testing.TB) *store.Bolt {
		t.Helper()
		b, err := store.OpenBolt(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open(t)
	f.Store = b
	t.Cleanup(func() { f.Close() })
	f.other = func(testing.TB) discharger.Store { return f.Store } // one process has the file
	f.reopen = func(t testing.TB, f *fixture) {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f.Store = open(t)
	}
	f.forget = func(t testing.TB, u discharger.UserKey) int {
		if _, err := b.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return b.Rows(t, u)
	}
	return f
}

func TestBoltConformance(t *testing.T) {
	t.Parallel()
	conformance(t, boltFixture)
}

// ending returns the journal's entry of a session that becomes the tombstone.
func ending(t testing.TB, u discharger.UserKey, id caveat.SessionID) []revocation.Revocation {
	t.Helper()
	var r session.Record
	if err := r.UnmarshalBinary(tombstone(t)); err != nil {
		t.Fatal(err)
	}
	return []revocation.Revocation{{
		Kind: revocation.KindSession, Homeserver: u.Homeserver, User: u.User, Session: id,
		At: r.End.At, Soft: r.End.Soft, Cause: r.End.Cause, Code: r.End.Code,
	}}
}
