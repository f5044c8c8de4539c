package redis_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func newRedisFixture(t testing.TB, s *redisServer, change ...func(*redis.Config)) *storetest.Fixture {
	t.Helper()
	cfg := s.Config()
	for _, f := range change {
		f(&cfg)
	}
	c := storetest.NewClock()
	return &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: c}
}

// openEventually waits until the servers have the configured durability.
func openEventually(t testing.TB, cfg redis.Config) *storetest.Fixture {
	t.Helper()
	var r *redis.Store
	var err error
	redistest.Eventually(t, "the store can be opened", func() bool {
		r, err = redis.Open(t.Context(), cfg)
		return err == nil
	})
	t.Cleanup(func() { r.Close() })
	return &storetest.Fixture{Store: r, Clock: storetest.NewClock()}
}

// TestRedisDatabases keeps the stores of two numbered databases apart.
func TestRedisDatabases(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	u, id := storetest.NewUser(), storetest.NewSession()
	var fixtures []*storetest.Fixture
	for _, db := range []int{0, 3} {
		fixtures = append(fixtures, newRedisFixture(t, s, func(c *redis.Config) { c.DB = db }))
	}
	fixtures[1].MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	fixtures[0].Expect(t, u, id, "", "")
	fixtures[1].Expect(t, u, id, "a", "")
}

// TestRedisRoundTrips counts the round trips of operations.
func TestRedisRoundTrips(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	c := storetest.NewClock() // it stands still: the homeserver's record stays in the cache
	f := newRedisFixture(t, s, func(cfg *redis.Config) { *cfg = cfg.WithClock(c.Now) })
	f.Store.(*redis.Store).StopWatch()
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: make([]byte, 90), Expires: f.Clock.In(time.Hour)})
	f.MustLoad(t, u, id)
	s.Do(t, "config", "resetstat")
	const n = 20
	for range n {
		f.MustLoad(t, u, id)
	}
	calls := s.Calls(t)
	if calls["hmget"] != n || calls["get"] > 0 || calls["evalsha"]+calls["eval"] > 0 {
		t.Errorf("%d loads are %v", n, calls)
	}
	s.Do(t, "script", "flush")
	s.Do(t, "config", "resetstat")
	f.MustSwap(t, true, u, store.Change{Session: id, Old: make([]byte, 90), New: []byte("b"), Expires: f.Clock.In(time.Hour)})
	f.MustSwap(t, true, u, store.Change{Session: id, Old: []byte("b"), New: []byte("c"), Expires: f.Clock.In(time.Hour)})
	if calls := s.Calls(t); calls["evalsha"] != 2 || calls["eval"] != 1 {
		t.Errorf("two swaps after the scripts were forgotten are %v", calls)
	}
}

// TestRedisRefreshCost counts the round trips of one refresh, and of one
// discharge in mode open.
func TestRedisRefreshCost(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	f.Store.(*redis.Store).StopWatch()
	counted := &counting{Store: f.Store}
	is := storetest.NewIssuer(t, counted)
	rotating, open := is.Login("@alice:hs"), is.LoginMode("@bob:hs", caveat.ModeOpen)
	for _, c := range []struct {
		name        string
		d           *storetest.Device
		loads, rest int
	}{{"refresh", rotating, 1, 1}, {"open", open, 1, 0}} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // activation, and the first refresh, which follows at once
				if err := c.d.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			before := s.Calls(t)
			*counted = counting{Store: f.Store}
			if err := c.d.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if counted.loads != c.loads || counted.rest != c.rest {
				t.Errorf("%d loads and %d other calls of the store, want %d and %d", counted.loads, counted.rest, c.loads, c.rest)
			}
			after := s.Calls(t)
			if n := after["evalsha"] + after["eval"] - before["evalsha"] - before["eval"]; n != c.rest {
				t.Errorf("%d scripts, want %d", n, c.rest)
			}
		})
	}
}

// counting counts calls of a store.
type counting struct {
	store.Store
	loads, rest int
}

func (c *counting) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, device revocation.DeviceTag) (store.View, error) {
	c.loads++
	return c.Store.Load(ctx, u, id, device)
}

func (c *counting) List(ctx context.Context, u store.UserKey) (store.Listing, error) {
	c.rest++
	return c.Store.List(ctx, u)
}

func (c *counting) Swap(ctx context.Context, w store.Write) (bool, error) {
	c.rest++
	return c.Store.Swap(ctx, w)
}

func (c *counting) Now(ctx context.Context) (time.Time, error) {
	c.rest++
	return c.Store.Now(ctx)
}

// TestRedisExpiry looks at the expiry of keys, which is the server's business.
func TestRedisExpiry(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	u, a, b := storetest.NewUser(), storetest.NewSession(), storetest.NewSession()
	key := redis.UserHash(tagKey, u)
	base := time.Now().Truncate(time.Second)
	at := func(hours int) time.Time {
		if hours == 0 {
			return time.Time{}
		}
		return base.Add(time.Duration(hours) * time.Hour)
	}
	want := func(hours int) { // 0 is never, -1 that there is no key
		t.Helper()
		got := s.Do(t, "expiretime", key).(int64)
		switch expect := at(hours).Unix(); {
		case hours == 0 && got != -1, hours == -1 && got != -2, hours > 0 && got != expect:
			t.Fatalf("key expires at %d, want %d (%d hours)", got, expect, hours)
		}
	}
	for _, step := range []struct {
		changes []store.Change
		key     int
	}{
		{[]store.Change{{Session: a, New: []byte("1"), Expires: at(5)}}, 5},
		{[]store.Change{{Session: a, Old: []byte("1"), New: []byte("2"), Expires: at(7)}}, 7},
		{[]store.Change{{Session: a, Old: []byte("2"), New: []byte("3"), Expires: at(7)}}, 7},
		{[]store.Change{{Session: b, New: []byte("1"), Expires: at(6)}}, 7},
		{[]store.Change{{Session: a, Old: []byte("3"), New: []byte("tombstone"), Expires: at(1)}}, 6},
		{[]store.Change{{New: []byte("user"), Expires: at(9)}}, 9},
		{[]store.Change{{Old: []byte("user"), New: []byte("user"), Expires: at(2)}}, 6},
		{[]store.Change{{Session: b, Old: []byte("1"), New: []byte("2")}}, 0},
		{[]store.Change{{Session: a, Old: []byte("tombstone"), New: []byte("tombstone"), Expires: at(8)}}, 0},
		{[]store.Change{{Session: b, Old: []byte("2"), New: []byte("3"), Expires: at(3)}}, 8},
		{[]store.Change{{Session: a, Old: []byte("tombstone")}}, 3},
		{[]store.Change{{Session: a, Old: []byte("tombstone")}}, 3}, // again
		{[]store.Change{{Session: b, Old: []byte("3")}}, 2},
		{[]store.Change{{Old: []byte("user")}}, -1},
	} {
		f.MustSwap(t, true, u, step.changes...)
		want(step.key)
	}
}

// TestRedisTrim lets sessions expire in real time and checks the remaining
// fields after the next write.
func TestRedisTrim(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	u, stays := storetest.NewUser(), storetest.NewSession()
	key := redis.UserHash(tagKey, u)
	f.MustSwap(t, true, u, store.Change{Session: stays, New: []byte("stays"), Expires: time.Now().Add(time.Hour)},
		store.Change{New: []byte("user"), Expires: time.Now()})
	first := time.Now().Add(time.Second) // when the first one expires, at the earliest
	for i := range 20 {
		f.MustSwap(t, true, u, store.Change{Session: storetest.NewSession(), New: make([]byte, 1+i*7), Expires: time.Now().Add(time.Second)})
	}
	if n := s.Do(t, "hlen", key).(int64); n < 22 && time.Now().Before(first) {
		t.Fatalf("hash has %d fields", n)
	}
	i := 0
	redistest.Eventually(t, "expired sessions are gone", func() bool {
		i++
		f.MustSwap(t, true, u, store.Change{Session: caveat.SessionID{1: byte(i), 2: byte(i >> 8)}, New: []byte("x"), Expires: time.Now()})
		return s.Do(t, "hlen", key).(int64) <= 3
	})
	f.Expect(t, u, stays, "stays", "user")
}

// TestRedisLargeHash never shortens the life of a hash it did not read in
// full, and removes expired sessions little by little.
func TestRedisLargeHash(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	u, far := storetest.NewUser(), storetest.NewSession()
	key := redis.UserHash(tagKey, u)
	base := time.Now().Truncate(time.Second)
	f.MustSwap(t, true, u, store.Change{Session: far, New: []byte("far"), Expires: base.Add(1000 * time.Hour)})
	add := func(i int, expires time.Time) {
		f.MustSwap(t, true, u, store.Change{Session: caveat.SessionID{0: byte(i), 1: byte(i >> 8), 2: 1}, New: make([]byte, 100), Expires: expires})
	}
	for i := range 900 {
		add(i, base.Add(time.Hour))
	}
	if got, want := s.Do(t, "expiretime", key).(int64), base.Add(1000*time.Hour).Unix(); got != want {
		t.Errorf("key expires at %d, want %d", got, want)
	}
	for i := range 900 { // all of them end now
		f.MustSwap(t, true, u, store.Change{Session: caveat.SessionID{0: byte(i), 1: byte(i >> 8), 2: 1},
			Old: make([]byte, 100), New: make([]byte, 100), Expires: base})
	}
	i := 1000
	redistest.Eventually(t, "expired sessions are gone", func() bool {
		i++
		add(i, time.Now())
		return s.Do(t, "hlen", key).(int64) <= 4
	})
	f.Expect(t, u, far, "far", "")
	if got, want := s.Do(t, "expiretime", key).(int64), base.Add(1000*time.Hour).Unix(); got != want {
		t.Errorf("key expires at %d, want %d", got, want)
	}
}

// TestRedisLease checks the reads of other processes while the record of a
// homeserver changes.
func TestRedisLease(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	c := storetest.NewClock()
	u, id := storetest.NewUser(), storetest.NewSession()
	other := newRedisFixture(t, s, func(cfg *redis.Config) { *cfg = cfg.WithClock(c.Now) })
	if got := other.MustLoad(t, u, id).Homeserver; got != nil {
		t.Fatalf("homeserver's record is %q", got)
	}
	waits := 0
	f := newRedisFixture(t, s, func(cfg *redis.Config) {
		*cfg = cfg.WithClock(c.Now)
		cfg.CacheHomeserver = time.Millisecond // others may have it longer
		cfg.SetWait(func(_ context.Context, d time.Duration) error {
			if waits++; waits == 1 {
				if got := other.MustLoad(t, u, id).Homeserver; got != nil {
					t.Errorf("the record was not cached: it is %q", got)
				}
			}
			c.Advance(d)
			return nil
		})
	})
	swap := func(want bool, old, new []byte) {
		t.Helper()
		if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, old, new); ok != want || err != nil {
			t.Fatalf("SwapHomeserver gave %v, %v, want %v", ok, err, want)
		}
	}
	swap(true, nil, []byte("new"))
	if got := other.MustLoad(t, u, id).Homeserver; string(got) != "new" {
		t.Fatalf("after SwapHomeserver, the record is %q", got)
	}
	swap(true, nil, []byte("new")) // has no more information on the caches of others than the first one
	swap(false, []byte("x"), []byte("y"))
	if waits != 2 {
		t.Errorf("waited %d times, want 2", waits)
	}
}

// TestRedisLeaseEndsWithALostRace has two processes replace a homeserver's
// record one after the other, the second one while it has the first record.
func TestRedisLeaseEndsWithALostRace(t *testing.T) {
	t.Parallel()
	s, c := StartRedis(t), storetest.NewClock()
	frozen := func(cfg *redis.Config) {
		*cfg = cfg.WithClock(c.Now) // so that nothing that is cached gets old
		cfg.SetWait(func(context.Context, time.Duration) error { return nil })
	}
	first, second := newRedisFixture(t, s, frozen), newRedisFixture(t, s, frozen)
	u, id := storetest.NewUser(), storetest.NewSession()
	if got := second.MustLoad(t, u, id).Homeserver; got != nil {
		t.Fatalf("homeserver's record is %q", got)
	}
	if ok, err := first.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("one")); !ok || err != nil {
		t.Fatalf("SwapHomeserver gave %v, %v", ok, err)
	}
	if ok, err := second.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("two")); ok || err != nil {
		t.Fatalf("SwapHomeserver of a record that is another by now gave %v, %v", ok, err)
	}
	if got := second.MustLoad(t, u, id).Homeserver; string(got) != "one" {
		t.Errorf("after the lost race, the record is %q", got)
	}
}

// TestRedisWaitEnds does not wait for others' caches longer than it may.
func TestRedisWaitEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := newRedisFixture(t, StartRedis(t), func(c *redis.Config) {
		c.SetWait(func(ctx context.Context, d time.Duration) error {
			if d < time.Second {
				t.Errorf("others may have a record for a second, and it waits for %v", d)
			}
			time.AfterFunc(50*time.Millisecond, cancel)
			return redis.Wait(ctx, time.Hour)
		})
	})
	if ok, err := f.SwapHomeserver(ctx, storetest.NewUser().Homeserver, nil, []byte("a")); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("SwapHomeserver did not wait: %v, %v", ok, err)
	}
	if err := redis.Wait(t.Context(), time.Millisecond); err != nil {
		t.Errorf("a wait that is over: %v", err)
	}
}

func TestRedisDurability(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	s := StartRedis(t, "--port", port, "--bind", host, "--repl-diskless-sync-delay", "0")
	replica := StartRedis(t, "--replicaof", host, port)
	redistest.Eventually(t, "the replica is linked", func() bool {
		return strings.Contains(replica.Do(t, "info", "replication").(string), "master_link_status:up") &&
			strings.Contains(s.Do(t, "info", "replication").(string), "state=online")
	})
	cfg := s.Config()
	cfg.Durability = redis.DurabilityReplica
	cfg.SetWait(func(context.Context, time.Duration) error { return nil })
	f := openEventually(t, cfg)
	cfg.ReadTimeout = 2 * time.Second
	hasty := openEventually(t, cfg)
	u, id := storetest.NewUser(), storetest.NewSession()
	live, dead := store.Change{Session: id, New: []byte("live")}, store.Change{Session: id, Old: []byte("live"), New: []byte("dead")}
	revoke := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{dead}}
	f.MustSwap(t, true, u, live)
	s.Do(t, "config", "resetstat")
	if ok, err := f.Swap(t.Context(), revoke); !ok || err != nil {
		t.Fatalf("revocation with a replica: %v, %v", ok, err)
	}
	if got := replica.Do(t, "hget", redis.UserHash(tagKey, u), string(id[:])).(string); !strings.HasSuffix(got, "dead") {
		t.Errorf("replica has %q", got)
	}
	s.Do(t, "script", "flush") // revocations too go on without the scripts
	if ok, err := f.Swap(t.Context(), revoke); !ok || err != nil {
		t.Fatalf("the same revocation again: %v, %v", ok, err)
	}
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("generation")); !ok || err != nil {
		t.Fatalf("SwapHomeserver with a replica: %v, %v", ok, err)
	}
	if n := s.Calls(t)["wait"]; n < 3 {
		t.Errorf("waited %d times", n)
	}

	replica.pause(t)
	v := storetest.NewUser()
	f.MustSwap(t, true, v, store.Change{Session: id, New: []byte("live")}) // nothing waits for this
	revoke.User = v
	if ok, err := hasty.Swap(t.Context(), revoke); ok || err == nil || !strings.Contains(err.Error(), "0 of 1 replicas") {
		t.Fatalf("revocation without a replica: %v, %v", ok, err)
	}
	if ok, err := hasty.Swap(t.Context(), revoke); ok || err == nil { // it is there, but no more durable than before
		t.Fatalf("repeated revocation without a replica: %v, %v", ok, err)
	}
	if ok, err := hasty.SwapHomeserver(t.Context(), v.Homeserver, nil, []byte("generation")); ok || err == nil {
		t.Fatalf("SwapHomeserver without a replica: %v, %v", ok, err)
	}
	f.Expect(t, v, id, "dead", "")
	replica.resume(t)
	redistest.Eventually(t, "the revocation is acknowledged", func() bool {
		ok, err := f.Swap(t.Context(), revoke)
		return ok && err == nil
	})
}

// TestRedisPool lets more callers in than there are connections.
func TestRedisPool(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	for _, unpipelined := range []bool{false, true} {
		f := newRedisFixture(t, s, func(c *redis.Config) { c.PoolSize, c.Unpipelined = 4, unpipelined })
		errs := make(chan error)
		const callers = 200
		for range callers {
			go func() {
				u, id := storetest.NewUser(), storetest.NewSession()
				_, err := f.Swap(t.Context(), storetest.One(u, store.Change{Session: id, New: []byte("a")}))
				if err == nil {
					_, err = f.Load(t.Context(), u, id, revocation.DeviceTag{})
				}
				errs <- err
			}()
		}
		for range callers {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		var clients int
		for _, line := range strings.Split(s.Do(t, "client", "list").(string), "\n") {
			if strings.Contains(line, "cmd=hmget") || strings.Contains(line, "cmd=evalsha") {
				clients++
			}
		}
		if clients > 4+10 {
			t.Errorf("%d connections are open", clients)
		}
	}
}
