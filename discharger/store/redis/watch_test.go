package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestRedisEvictionAtRuntime changes the policy of a server in use.
func TestRedisEvictionAtRuntime(t *testing.T) {
	t.Parallel()
	for _, journaled := range []bool{false, true} {
		t.Run(fmt.Sprintf("journal=%v", journaled), func(t *testing.T) {
			t.Parallel()
			s := StartRedis(t)
			var log storetest.LogBuffer
			f := newRedisFixture(t, s, func(c *redis.Config) {
				c.Log = log.Logger()
				if journaled {
					c.Journal = storetest.OpenJournal(t, journal.Config{})
				}
			})
			r, u, id := f.Store.(*redis.Store), storetest.NewUser(), storetest.NewSession()
			f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
			s.Do(t, "config", "set", "maxmemory-policy", "allkeys-lru")
			redistest.Eventually(t, "the store refuses the server", func() bool { return r.Stats().Refused })
			refused := func(err error) bool {
				return err != nil && !errors.Is(err, store.ErrLost) && strings.Contains(err.Error(), "noeviction")
			}
			_, errLoad := f.Load(t.Context(), u, id, revocation.DeviceTag{})
			_, errList := f.List(t.Context(), u)
			_, errSwap := f.Swap(t.Context(), storetest.One(u, store.Change{Session: id, Old: []byte("a"), New: []byte("b")}))
			_, errNow := f.Now(t.Context())
			for i, err := range []error{errLoad, errList, errSwap, errNow, f.Ready(t.Context())} {
				if !refused(err) {
					t.Errorf("method %d: %v", i, err)
				}
			}
			if n := strings.Count(log.String(), "redis server evicts keys"); n != 1 {
				t.Errorf("logged %d times: %s", n, log.String())
			}
			s.Do(t, "config", "set", "maxmemory-policy", "noeviction")
			redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
			f.Expect(t, u, id, "a", "")
		})
	}
}

// TestRedisEvictionAfterFailover promotes a replica that evicts keys. No store
// uses it, with or without a journal, until it does not any more.
func TestRedisEvictionAfterFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	for _, n := range s.Nodes[1:] {
		n.Do(t, "config", "set", "maxmemory-policy", "allkeys-lru")
	}
	var logs [2]storetest.LogBuffer
	var stores []*storetest.Fixture
	for i := range logs {
		cfg := sentinelConfig(s)
		cfg.Log = logs[i].Logger()
		if i > 0 {
			cfg.Journal = storetest.OpenJournal(t, journal.Config{})
		}
		stores = append(stores, &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: storetest.NewClock()})
	}
	u, id := storetest.NewUser(), storetest.NewSession()
	stores[0].MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
	for _, f := range stores {
		f.Expect(t, u, id, string(storetest.Live(t, 0)), "")
	}
	primary := s.Lose(t)
	for i, f := range stores {
		redistest.Eventually(t, "the store meets the new primary", func() bool {
			if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
				t.Fatal("the store answers from a primary that evicts keys")
			}
			return strings.Contains(logs[i].String(), "redis server evicts keys")
		})
		if err := f.Ready(t.Context()); err == nil {
			t.Error("the store is ready")
		}
	}
	primary.Do(t, "config", "set", "maxmemory-policy", "noeviction")
	for _, f := range stores {
		redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
		f.Expect(t, u, id, string(storetest.Live(t, 0)), "")
	}
}

// TestRedisEvicted counts the keys that a server throws away.
func TestRedisEvicted(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	var log storetest.LogBuffer
	f := newRedisFixture(t, s, func(c *redis.Config) { c.Log = log.Logger() })
	r := f.Store.(*redis.Store)
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	redistest.Eventually(t, "the servers are looked at", func() bool { return f.Ready(t.Context()) == nil })
	if n := r.Stats().Evicted; n != 0 {
		t.Errorf("%d keys were evicted", n)
	}
	s.Do(t, "config", "set", "maxmemory-policy", "allkeys-random")
	s.Do(t, "config", "set", "maxmemory", "1")
	redistest.Eventually(t, "keys are evicted", func() bool { return s.Info(t, "stats")["evicted_keys"] != "0" })
	s.Do(t, "config", "set", "maxmemory", "0")
	s.Do(t, "config", "set", "maxmemory-policy", "noeviction")
	redistest.Eventually(t, "evicted keys are noticed", func() bool {
		return r.Stats().Evicted > 0 && strings.Contains(log.String(), "redis server has evicted keys")
	})
}

// TestRedisReady is not ready while the server takes no write, for each of the
// reasons that a server has, and is afterwards.
func TestRedisReady(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	s := StartRedis(t, "--port", port, "--bind", host, "--save", "3600 1", "--enable-protected-configs", "yes")
	f := newRedisFixture(t, s)
	for _, c := range []struct {
		name, want  string
		break_, fix func(t *testing.T)
	}{
		{"memory is full", "OOM", func(t *testing.T) {
			s.Do(t, "config", "set", "maxmemory", "1")
		}, func(t *testing.T) {
			s.Do(t, "config", "set", "maxmemory", "0")
		}},
		{"disk is full", "MISCONF", func(t *testing.T) {
			s.Do(t, "set", "changed", "1")
			s.Do(t, "config", "set", "dbfilename", strings.Repeat("x", 300)) // too long a name
			_ = s.raw.BgSave(t.Context()).Err()
			redistest.Eventually(t, "the snapshot fails", func() bool {
				return s.Info(t, "persistence")["rdb_last_bgsave_status"] == "err"
			})
		}, func(t *testing.T) {
			s.Do(t, "config", "set", "dbfilename", "dump.rdb")
			s.Do(t, "save")
		}},
		{"too few replicas", "NOREPLICAS", func(t *testing.T) {
			s.Do(t, "config", "set", "min-replicas-to-write", "1")
		}, func(t *testing.T) {
			s.Do(t, "config", "set", "min-replicas-to-write", "0")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
			c.break_(t)
			redistest.Eventually(t, "the store is not ready", func() bool {
				err := f.Ready(t.Context())
				if errors.Is(err, store.ErrLost) {
					t.Fatal(err)
				}
				return err != nil && strings.Contains(err.Error(), c.want)
			})
			c.fix(t)
			redistest.Eventually(t, "the store is ready again", func() bool { return f.Ready(t.Context()) == nil })
		})
	}
}

// TestRedisReadyIsCheap calls Ready often, which writes rarely.
func TestRedisReadyIsCheap(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	if err := f.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Do(t, "config", "resetstat")
	began := time.Now()
	const asked = 200
	for range asked {
		if err := f.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	seconds := int(time.Since(began)/time.Second) + 2
	if n := s.Calls(t)["evalsha"]; n > seconds {
		t.Errorf("called %d times within %d seconds, it wrote %d times", asked, seconds, n)
	}
}

// beatAt adds a heartbeat from the past.
func beatAt(t testing.TB, s *redisServer, at time.Time) {
	t.Helper()
	s.Do(t, "xadd", redis.BeatKey(tagKey), fmt.Sprintf("%d-0", at.UnixMilli()), "b", "1")
}

// TestRedisOlderData puts back data of long ago, and of a moment ago. Only the
// first is a loss.
func TestRedisOlderData(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		ago  time.Duration // that the saved data is from
		lost bool
	}{
		{"covered", time.Hour, false},
		{"not covered", 25 * time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := forgetful(t)
			// The first process makes the store, and ends.
			maker := newRedisFixture(t, s)
			if err := maker.Close(); err != nil {
				t.Fatal(err)
			}
			s.Do(t, "del", redis.BeatKey(tagKey))
			beatAt(t, s, time.Now().Add(-c.ago))
			u, id := storetest.NewUser(), storetest.NewSession()
			writeWithoutBeats(t, s, u, id)
			s.Do(t, "save")
			for _, ago := range []time.Duration{5 * time.Minute, 4 * time.Minute} {
				beatAt(t, s, time.Now().Add(-ago))
			}
			a, b := openPeer(t, s.Config(), ""), openPeer(t, s.Config(), "")
			fa, fb := &storetest.Fixture{Store: a.Store, Clock: storetest.NewClock()}, &storetest.Fixture{Store: b.Store, Clock: storetest.NewClock()}
			for _, f := range []*storetest.Fixture{fa, fb} {
				redistest.Eventually(t, "the process has seen heartbeats", func() bool { return f.Ready(ctx) == nil })
			}
			s.crash(t)
			if !c.lost {
				for _, p := range []*peer{a, b} {
					redistest.Eventually(t, "the process works again", func() bool {
						return !p.JournalStats().LastFailover.IsZero() && p.Ready(ctx) == nil
					})
					if !strings.Contains(p.log.String(), "data is older than the data it replaces") {
						t.Errorf("nothing was logged: %s", p.log.String())
					}
				}
				fa.Expect(t, u, id, string(storetest.Live(t, 0)), "")
				if l := fa.MustLoad(t, u, id).Losses; l.All != 0 {
					t.Errorf("losses are %+v", l)
				}
				return
			}
			for _, f := range []*storetest.Fixture{fa, fb} {
				redistest.Eventually(t, "the loss is noticed", func() bool { return errors.Is(f.Ready(ctx), store.ErrLost) })
			}
			if err := a.AcceptLoss(ctx); err != nil && !strings.Contains(err.Error(), "replayed") {
				t.Fatal(err)
			}
			for _, f := range []*storetest.Fixture{fa, fb} {
				redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(ctx) == nil })
				if l := f.MustLoad(t, u, id).Losses; l.All == 0 {
					t.Errorf("with a record, losses are %+v", l)
				}
				if l := f.MustLoad(t, u, storetest.NewSession()).Losses; l.All == 0 || l.Missing < l.All {
					t.Errorf("without a record, losses are %+v", l)
				}
			}
		})
	}
}

// writeWithoutBeats writes a session and leaves no heartbeat.
func writeWithoutBeats(t testing.TB, s *redisServer, u store.UserKey, id [16]byte) {
	t.Helper()
	beats := s.Do(t, "dump", redis.BeatKey(tagKey))
	f := newRedisFixture(t, s)
	f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.Do(t, "restore", redis.BeatKey(tagKey), 0, beats, "replace")
}

// TestRedisLosses reads the losses of a new store, and of one whose loss was
// accepted.
func TestRedisLosses(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	var log *storetest.LogBuffer // of the latest store; the others go on writing to theirs
	quick := func(c *redis.Config) {
		log = new(storetest.LogBuffer)
		c.Log = log.Logger()
		c.SetWait(func(context.Context, time.Duration) error { return nil })
		c.CacheHomeserver = time.Nanosecond
	}
	newRedisFixture(t, s, quick)
	u, id := storetest.NewUser(), storetest.NewSession()
	if n := strings.Count(log.String(), "store is new"); n != 1 {
		t.Errorf("warned %d times: %s", n, log.String())
	}
	// As an earlier version would have left it.
	for _, k := range s.raw.Keys(t.Context(), "ds{??}since:*").Val() {
		s.Do(t, "del", k)
	}
	f := newRedisFixture(t, s, quick)
	r := f.Store.(*redis.Store)
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	for _, v := range []store.View{f.MustLoad(t, u, id), f.MustLoad(t, u, storetest.NewSession())} {
		if v.Losses != (store.Losses{}) {
			t.Errorf("a store of an earlier version has lost %+v", v.Losses)
		}
	}
	if strings.Contains(log.String(), "store is new") {
		t.Errorf("warned: %s", log.String())
	}
	s.Do(t, "flushall")
	storetest.ExpectLost(t, "emptied", f, u)
	if err := r.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := f.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v := f.MustLoad(t, u, id)
	if v.Losses.Missing == 0 || v.Losses.Missing > now.UnixMilli() || v.Losses.All == 0 {
		t.Errorf("an accepted loss is %+v at %d", v.Losses, now.UnixMilli())
	}
	if l := r.Stats().Losses; l.Missing.IsZero() || l.All.IsZero() || !l.Born.IsZero() {
		t.Errorf("statistics: %+v", l)
	}
	newRedisFixture(t, s, quick)
	if n := strings.Count(log.String(), "was accepted"); n != 2 {
		t.Errorf("warned %d times: %s", n, log.String())
	}
	newRedisFixture(t, s, quick, func(c *redis.Config) { c.SessionLife = time.Nanosecond })
	if strings.Contains(log.String(), "was accepted") {
		t.Errorf("warned of an old loss: %s", log.String())
	}
}

// TestRedisPartLosses loses some of the hash tags, as one node of a cluster
// would be. Users of others have lost nothing, unless their homeserver's record
// was there.
func TestRedisPartLosses(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s, func(c *redis.Config) {
		c.SetWait(func(context.Context, time.Duration) error { return nil })
		c.CacheHomeserver = time.Nanosecond
	})
	bucket := func(key string) string { return key[:6] }
	lost := bucket(redis.IdentityKeys(tagKey)[200])
	find := func(userLost, homeserverLost bool) store.UserKey {
		for {
			u := storetest.NewUser()
			if (bucket(redis.UserHash(tagKey, u)) == lost) == userLost && (bucket(redis.HomeserverKey(tagKey, u.Homeserver)) == lost) == homeserverLost {
				return u
			}
		}
	}
	for _, k := range s.raw.Keys(t.Context(), "*").Val() {
		if bucket(k) == lost {
			s.Do(t, "del", k)
		}
	}
	safe, user, home := find(false, false), find(true, false), find(false, true)
	storetest.ExpectLost(t, "partly", f, user)
	if err := f.Store.(*redis.Store).AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	born := f.MustLoad(t, safe, storetest.NewSession()).Losses
	if born.All != 0 {
		t.Errorf("a user who lost nothing has %+v", born)
	}
	if l := f.MustLoad(t, user, storetest.NewSession()).Losses; l.Missing <= born.Missing || l.All != 0 {
		t.Errorf("a user whose sessions are lost has %+v, born %+v", l, born)
	}
	if l := f.MustLoad(t, home, storetest.NewSession()).Losses; l.Missing != born.Missing || l.All == 0 {
		t.Errorf("a user whose homeserver's record is lost has %+v", l)
	}
}
