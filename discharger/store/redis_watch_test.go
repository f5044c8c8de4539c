package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

// TestRedisEvictionAtRuntime has somebody change the policy of a server in use,
// and change it back.
func TestRedisEvictionAtRuntime(t *testing.T) {
	t.Parallel()
	for _, journal := range []bool{false, true} {
		t.Run(fmt.Sprintf("journal=%v", journal), func(t *testing.T) {
			t.Parallel()
			s := startRedis(t)
			var log logBuffer
			f := newRedisFixture(t, s, func(c *store.RedisConfig) {
				c.Log = log.logger()
				if journal {
					c.Journal = openJournal(t, store.JournalConfig{})
				}
			})
			r, u, id := f.Store.(*store.Redis), someone(), newSession()
			f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
			s.do(t, "config", "set", "maxmemory-policy", "allkeys-lru")
			redistest.Eventually(t, "the store refuses the server", func() bool { return r.Stats().Refused })
			refused := func(err error) bool {
				return err != nil && !errors.Is(err, discharger.ErrStoreLost) && strings.Contains(err.Error(), "noeviction")
			}
			_, errLoad := f.Load(t.Context(), u, id, revocation.DeviceTag{})
			_, errList := f.List(t.Context(), u)
			_, errSwap := f.Swap(t.Context(), one(u, discharger.Change{Session: id, Old: []byte("a"), New: []byte("b")}))
			_, errNow := f.Now(t.Context())
			for i, err := range []error{errLoad, errList, errSwap, errNow, f.Ready(t.Context())} {
				if !refused(err) {
					t.Errorf("method %d: %v", i, err)
				}
			}
			if n := strings.Count(log.String(), "redis server must not be used"); n != 1 {
				t.Errorf("logged %d times: %s", n, log.String())
			}
			s.do(t, "config", "set", "maxmemory-policy", "noeviction")
			redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
			f.expect(t, u, id, "a", "")
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
	var logs [2]logBuffer
	var stores []*fixture
	for i := range logs {
		cfg := sentinelConfig(s)
		cfg.Log = logs[i].logger()
		if i > 0 {
			cfg.Journal = openJournal(t, store.JournalConfig{})
		}
		stores = append(stores, &fixture{Store: openRedis(t, cfg), clock: newClock()})
	}
	u, id := someone(), newSession()
	stores[0].swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
	for _, f := range stores {
		f.expect(t, u, id, string(live(t, 0)), "")
	}
	primary := s.Lose(t)
	for i, f := range stores {
		redistest.Eventually(t, "the store meets the new primary", func() bool {
			if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
				t.Fatal("the store answers from a primary that evicts keys")
			}
			return strings.Contains(logs[i].String(), "redis server must not be used")
		})
		if err := f.Ready(t.Context()); err == nil {
			t.Error("the store is ready")
		}
	}
	primary.Do(t, "config", "set", "maxmemory-policy", "noeviction")
	for _, f := range stores {
		redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
		f.expect(t, u, id, string(live(t, 0)), "")
	}
}

// TestRedisEvicted counts the keys that a server throws away.
func TestRedisEvicted(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	var log logBuffer
	f := newRedisFixture(t, s, func(c *store.RedisConfig) { c.Log = log.logger() })
	r := f.Store.(*store.Redis)
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
	redistest.Eventually(t, "the servers are looked at", func() bool { return f.Ready(t.Context()) == nil })
	if n := r.Stats().Evicted; n != 0 {
		t.Errorf("%d keys were evicted", n)
	}
	s.do(t, "config", "set", "maxmemory-policy", "allkeys-random")
	s.do(t, "config", "set", "maxmemory", "1")
	redistest.Eventually(t, "keys are evicted", func() bool { return s.Info(t, "stats")["evicted_keys"] != "0" })
	s.do(t, "config", "set", "maxmemory", "0")
	s.do(t, "config", "set", "maxmemory-policy", "noeviction")
	redistest.Eventually(t, "evicted keys are noticed", func() bool {
		return r.Stats().Evicted > 0 && strings.Contains(log.String(), "redis server has evicted keys")
	})
}

// TestRedisReady is not ready while the server takes no write, for each of the
// reasons that a server has, and is afterwards.
func TestRedisReady(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	s := startRedis(t, "--port", port, "--bind", host, "--save", "3600 1", "--enable-protected-configs", "yes")
	f := newRedisFixture(t, s)
	for _, c := range []struct {
		name, want  string
		break_, fix func(t *testing.T)
	}{
		{"memory is full", "OOM", func(t *testing.T) {
			s.do(t, "config", "set", "maxmemory", "1")
		}, func(t *testing.T) {
			s.do(t, "config", "set", "maxmemory", "0")
		}},
		{"disk is full", "MISCONF", func(t *testing.T) {
			s.do(t, "set", "changed", "1")
			s.do(t, "config", "set", "dbfilename", strings.Repeat("x", 300)) // too long a name
			_ = s.raw.BgSave(t.Context()).Err()
			redistest.Eventually(t, "the snapshot fails", func() bool {
				return s.Info(t, "persistence")["rdb_last_bgsave_status"] == "err"
			})
		}, func(t *testing.T) {
			s.do(t, "config", "set", "dbfilename", "dump.rdb")
			s.do(t, "save")
		}},
		{"too few replicas", "NOREPLICAS", func(t *testing.T) {
			s.do(t, "config", "set", "min-replicas-to-write", "1")
		}, func(t *testing.T) {
			s.do(t, "config", "set", "min-replicas-to-write", "0")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
			c.break_(t)
			redistest.Eventually(t, "the store is not ready", func() bool {
				err := f.Ready(t.Context())
				if errors.Is(err, discharger.ErrStoreLost) {
					t.Fatal(err)
				}
				return err != nil && strings.Contains(err.Error(), c.want)
			})
			c.fix(t)
			redistest.Eventually(t, "the store is ready again", func() bool { return f.Ready(t.Context()) == nil })
		})
	}
}

// TestRedisReadyIsCheap asks often and writes rarely.
func TestRedisReadyIsCheap(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	f := newRedisFixture(t, s)
	if err := f.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.do(t, "config", "resetstat")
	began := time.Now()
	const asked = 200
	for range asked {
		if err := f.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	seconds := int(time.Since(began)/time.Second) + 2
	if n := s.Calls(t)["evalsha"]; n > seconds {
		t.Errorf("asked %d times within %d seconds, it wrote %d times", asked, seconds, n)
	}
}

// beatAt adds a heartbeat from the past.
func beatAt(t testing.TB, s *redisServer, at time.Time) {
	t.Helper()
	s.do(t, "xadd", store.BeatKey(tagKey), fmt.Sprintf("%d-0", at.UnixMilli()), "b", "1")
}

// TestRedisOlderData puts back what was saved long before, or a moment ago. What
// the journal does not cover is a loss until it is accepted, by one process for
// all.
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
			s.do(t, "del", store.BeatKey(tagKey))
			beatAt(t, s, time.Now().Add(-c.ago))
			u, id := someone(), newSession()
			writeWithoutBeats(t, s, u, id)
			s.do(t, "save")
			for _, ago := range []time.Duration{5 * time.Minute, 4 * time.Minute} {
				beatAt(t, s, time.Now().Add(-ago))
			}
			a, b := openPeer(t, s.config(), ""), openPeer(t, s.config(), "")
			fa, fb := &fixture{Store: a.Redis, clock: newClock()}, &fixture{Store: b.Redis, clock: newClock()}
			for _, f := range []*fixture{fa, fb} {
				redistest.Eventually(t, "the process has seen heartbeats", func() bool { return f.Ready(ctx) == nil })
			}
			s.crash(t)
			if !c.lost {
				for _, p := range []*peer{a, b} {
					redistest.Eventually(t, "the process works again", func() bool {
						return !p.JournalStats().LastFailover.IsZero() && p.Ready(ctx) == nil
					})
					if !strings.Contains(p.log.String(), "data is older than what it replaces") {
						t.Errorf("nothing was logged: %s", p.log.String())
					}
				}
				fa.expect(t, u, id, string(live(t, 0)), "")
				if l := fa.load(t, u, id).Losses; l.All != 0 {
					t.Errorf("losses are %+v", l)
				}
				return
			}
			for _, f := range []*fixture{fa, fb} {
				redistest.Eventually(t, "the loss is noticed", func() bool { return errors.Is(f.Ready(ctx), discharger.ErrStoreLost) })
			}
			if err := a.AcceptLoss(ctx); err != nil && !strings.Contains(err.Error(), "replayed") {
				t.Fatal(err)
			}
			for _, f := range []*fixture{fa, fb} {
				redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(ctx) == nil })
				if l := f.load(t, u, id).Losses; l.All == 0 {
					t.Errorf("with a record, losses are %+v", l)
				}
				if l := f.load(t, u, newSession()).Losses; l.All == 0 || l.Missing < l.All {
					t.Errorf("without a record, losses are %+v", l)
				}
			}
		})
	}
}

// writeWithoutBeats writes a session and leaves no heartbeat.
func writeWithoutBeats(t testing.TB, s *redisServer, u discharger.UserKey, id [16]byte) {
	t.Helper()
	beats := s.do(t, "dump", store.BeatKey(tagKey))
	f := newRedisFixture(t, s)
	f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.do(t, "restore", store.BeatKey(tagKey), 0, beats, "replace")
}

// TestRedisLosses reads what was recorded of a store, and of one that an
// earlier version made, which has lost nothing.
func TestRedisLosses(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	var log *logBuffer // of the latest store; the others go on writing to theirs
	quick := func(c *store.RedisConfig) {
		log = new(logBuffer)
		c.Log = log.logger()
		c.Wait = func(context.Context, time.Duration) error { return nil }
		c.CacheHomeserver = time.Nanosecond
	}
	newRedisFixture(t, s, quick)
	u, id := someone(), newSession()
	if n := strings.Count(log.String(), "store is new"); n != 1 {
		t.Errorf("warned %d times: %s", n, log.String())
	}
	// As an earlier version would have left it.
	for _, k := range s.raw.Keys(t.Context(), "ds{??}since:*").Val() {
		s.do(t, "del", k)
	}
	f := newRedisFixture(t, s, quick)
	r := f.Store.(*store.Redis)
	f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
	for _, v := range []discharger.View{f.load(t, u, id), f.load(t, u, newSession())} {
		if v.Losses != (session.Losses{}) {
			t.Errorf("a store of an earlier version has lost %+v", v.Losses)
		}
	}
	if strings.Contains(log.String(), "store is new") {
		t.Errorf("warned: %s", log.String())
	}
	s.do(t, "flushall")
	expectLost(t, "emptied", f, u)
	if err := r.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := f.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v := f.load(t, u, id)
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
	newRedisFixture(t, s, quick, func(c *store.RedisConfig) { c.SessionLife = time.Nanosecond })
	if strings.Contains(log.String(), "was accepted") {
		t.Errorf("warned of what is over: %s", log.String())
	}
}

// TestRedisPartLosses loses some of the hash tags, as one node of a cluster
// would be. Users of others have lost nothing, unless their homeserver's record
// was there.
func TestRedisPartLosses(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	f := newRedisFixture(t, s, func(c *store.RedisConfig) {
		c.Wait = func(context.Context, time.Duration) error { return nil }
		c.CacheHomeserver = time.Nanosecond
	})
	bucket := func(key string) string { return key[:6] }
	lost := bucket(store.IdentityKeys(tagKey)[200])
	find := func(userLost, homeserverLost bool) discharger.UserKey {
		for {
			u := someone()
			if (bucket(store.UserHash(tagKey, u)) == lost) == userLost && (bucket(store.HomeserverKey(tagKey, u.Homeserver)) == lost) == homeserverLost {
				return u
			}
		}
	}
	for _, k := range s.raw.Keys(t.Context(), "*").Val() {
		if bucket(k) == lost {
			s.do(t, "del", k)
		}
	}
	safe, user, home := find(false, false), find(true, false), find(false, true)
	expectLost(t, "partly", f, user)
	if err := f.Store.(*store.Redis).AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	born := f.load(t, safe, newSession()).Losses
	if born.All != 0 {
		t.Errorf("a user who lost nothing has %+v", born)
	}
	if l := f.load(t, user, newSession()).Losses; l.Missing <= born.Missing || l.All != 0 {
		t.Errorf("a user whose sessions are lost has %+v, born %+v", l, born)
	}
	if l := f.load(t, home, newSession()).Losses; l.Missing != born.Missing || l.All == 0 {
		t.Errorf("a user whose homeserver's record is lost has %+v", l)
	}
}
