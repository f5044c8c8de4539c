package redis_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

var tagKey = secret.Bytes("0123456789abcdef0123456789abcdef")

// A redisServer is a real one, with a connection of its own.
type redisServer struct {
	*redistest.Server
	raw *goredis.Client // to look behind the store's back
}

func StartRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := &redisServer{Server: redistest.Start(t, args...)}
	s.raw = s.Connect(t)
	return s
}

// pause stops the server as a machine that hangs would, resume lets it go on.
func (s *redisServer) pause(t testing.TB) { s.Signal(t, syscall.SIGSTOP) }

func (s *redisServer) resume(t testing.TB) { s.Signal(t, syscall.SIGCONT) }

// Do runs one command behind the store's back.
func (s *redisServer) Do(t testing.TB, args ...any) any {
	t.Helper()
	v, err := s.raw.Do(t.Context(), args...).Result()
	if err != nil && err != goredis.Nil {
		t.Fatalf("%v: %v", args, err)
	}
	return v
}

func (s *redisServer) Config() redis.Config {
	return patient(redis.Config{Addrs: []string{s.Socket}})
}

func OpenRedis(t testing.TB, cfg redis.Config) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// redisFixture makes fixtures of one Redis, wherever it is.
func redisFixture(cfg redis.Config, fields func(testing.TB, string) int) func(testing.TB) *storetest.Fixture {
	return func(t testing.TB) *storetest.Fixture {
		c, cfg := storetest.NewClock(), cfg
		cfg = cfg.WithClock(c.Now)
		cfg.SetWait(func(_ context.Context, d time.Duration) error { c.Advance(d); return nil })
		f := &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: c}
		f.Other = func(t testing.TB) store.Store { return OpenRedis(t, cfg) }
		f.Reopen = func(t testing.TB, f *storetest.Fixture) { f.Store = OpenRedis(t, cfg) }
		f.Forget = func(t testing.TB, u store.UserKey) int {
			return fields(t, redis.UserHash(cfg.TagKey, u))
		}
		return f
	}
}

func TestRedisConformance(t *testing.T) {
	t.Parallel()
	for _, unpipelined := range []bool{false, true} {
		t.Run(fmt.Sprintf("unpipelined=%v", unpipelined), func(t *testing.T) {
			s := StartRedis(t)
			cfg := s.Config()
			cfg.Unpipelined = unpipelined
			storetest.Run(t, redisFixture(cfg, func(t testing.TB, key string) int {
				return int(s.raw.HLen(t.Context(), key).Val())
			}))
		})
	}
}
