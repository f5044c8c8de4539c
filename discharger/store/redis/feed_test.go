package redis_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func TestRedisFeedBound(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s, func(c *redis.Config) {
		c.MaxEvents = 3
		c.SetWait(func(context.Context, time.Duration) error { return nil })
	})
	storetest.FeedBound(t, f, func(at time.Time) {
		lost := s.Do(t, "keys", "*lost:*").([]any)
		if len(lost) != 1 || s.Do(t, "pexpiretime", lost[0]) != at.UnixMilli() {
			t.Fatalf("%q is not forgotten at %v", lost, at)
		}
		s.Do(t, "pexpire", lost[0], 1) // as if it were that late
		redistest.Eventually(t, "the loss is forgotten", func() bool { return s.Do(t, "exists", lost[0]) == int64(0) })
	})
}

// millis is the server's clock.
func (s *redisServer) millis(t testing.TB) int64 {
	t.Helper()
	now, err := s.raw.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now.UnixMilli()
}

// entryMillis is when a position's event was added, by the server's clock.
func entryMillis(t testing.TB, position string) int64 {
	t.Helper()
	_, entry, _ := strings.Cut(position, ".")
	text, _, _ := strings.Cut(entry, "-")
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

// TestRedisFeedFailover continues at a replica that lags behind, and at one
// whose clock is behind: the last event of the reader is not there, so it sees
// a gap.
func TestRedisFeedFailover(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	u := storetest.NewUser()
	f.MustPublish(t, u.Homeserver, f.Events("1")...)
	key := redis.FeedKey(tagKey, u.Homeserver)
	saved := s.Do(t, "dump", key)
	f.MustPublish(t, u.Homeserver, f.Events("2")...)
	at := f.ExpectFeed(t, u.Homeserver, "", false, "1", "2")[1].Position
	s.Do(t, "restore", key, 0, saved, "replace")
	f.ExpectFeed(t, u.Homeserver, at, true, "1")
	redistest.Eventually(t, "the server's clock has moved on", func() bool { return s.millis(t) > entryMillis(t, at) })
	f.MustPublish(t, u.Homeserver, f.Events("3")...)
	f.ExpectFeed(t, u.Homeserver, at, true, "1", "3")
	s.Do(t, "del", key)
	f.ExpectFeed(t, u.Homeserver, at, true)
}

// TestRedisFeedLost returns ErrLost when the data is gone.
func TestRedisFeedLost(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	u := storetest.NewUser()
	f.MustPublish(t, u.Homeserver, f.Events("1")...)
	s.Do(t, "flushall")
	if _, err := f.Feed().ReadFeed(t.Context(), u.Homeserver, ""); !errors.Is(err, store.ErrLost) {
		t.Errorf("ReadFeed: %v", err)
	}
	if err := f.Publish(t.Context(), u.Homeserver, f.Events("2")...); !errors.Is(err, store.ErrLost) {
		t.Errorf("Publish: %v", err)
	}
	if err := f.Feed().AwaitFeed(t.Context(), u.Homeserver, ""); !errors.Is(err, store.ErrLost) {
		t.Errorf("AwaitFeed: %v", err)
	}
}
