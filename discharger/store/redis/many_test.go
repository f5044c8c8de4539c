package redis_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// patient is a configuration for a machine that is busy with other tests, or
// whose disk is.
func patient(cfg redis.Config) redis.Config {
	cfg.Replayer = failover.New(revocation.Lifetime{}, nil)
	cfg.TagKey = tagKey
	cfg.DialTimeout, cfg.ReadTimeout, cfg.WriteTimeout = time.Minute, time.Minute, time.Minute
	return cfg
}

func sentinelConfig(s *redistest.Sentinel) redis.Config {
	return patient(redis.Config{Addrs: s.Addrs, MasterName: s.Name})
}

func clusterConfig(c *redistest.Cluster) redis.Config {
	return patient(redis.Config{Addrs: c.Addrs, Cluster: true})
}

// readers are commands that a store reads with. Replicas execute the writes
// they are sent, but no client sends them these.
var readers = []string{"get", "hget", "hmget", "hgetall", "evalsha", "eval", "readonly"}

func expectUnread(t *testing.T, replicas []*redistest.Server) {
	t.Helper()
	for _, r := range replicas {
		calls := r.Calls(t)
		for _, name := range readers {
			if calls[name] > 0 {
				t.Errorf("replica %s was sent %s %d times", r.Addr, name, calls[name])
			}
		}
	}
}

// TestRedisSentinel runs the suite on a primary that Sentinels watch.
func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	cfg := sentinelConfig(s)
	primary := s.Primary(t)
	t.Run("conformance", func(t *testing.T) {
		storetest.Run(t, redisFixture(cfg, func(t testing.TB, key string) int {
			return int(primary.Do(t, "hlen", key).(int64))
		}))
	})
	var replicas []*redistest.Server
	for _, n := range s.Nodes {
		if n != primary {
			replicas = append(replicas, n)
		}
	}
	expectUnread(t, replicas)
	// A primary that was replaced and lives on accepts writes until it is demoted.
	followed(t, cfg, func() { s.Failover(t); s.Rejoin(t) }, func() { s.Lose(t) })
}

// TestRedisCluster does the same on three primaries at once. A cluster refuses
// a command or a script whose keys are in different slots, so that all methods
// work here proves that none needs more than one.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	cfg := clusterConfig(c)
	replicas := c.Replicas(t)
	t.Run("conformance", func(t *testing.T) {
		storetest.Run(t, redisFixture(cfg, func(t testing.TB, key string) int {
			return int(c.PrimaryOf(t, key).Do(t, "hlen", key).(int64))
		}))
	})
	t.Run("eviction", func(t *testing.T) {
		bad := c.Primaries(t)[1]
		bad.Do(t, "config", "set", "maxmemory-policy", "allkeys-lru")
		defer bad.Do(t, "config", "set", "maxmemory-policy", "noeviction")
		r, err := redis.Open(t.Context(), cfg)
		if err == nil {
			r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), bad.Addr) || !strings.Contains(err.Error(), "noeviction") {
			t.Errorf("one primary of three evicts: %v", err)
		}
	})
	t.Run("user", func(t *testing.T) {
		user := []any{"acl", "setuser", "discharger", "on", ">secret", "~ds{*"}
		for _, command := range strings.Fields(redistest.Commands + " " + redistest.Checks + " +cluster|slots +command +wait") {
			user = append(user, command)
		}
		for _, n := range c.Nodes {
			n.Do(t, user...)
		}
		cfg := cfg
		cfg.Username, cfg.Password = "discharger", secret.Bytes("secret")
		cfg.Durability, cfg.Journal = redis.DurabilityReplica, storetest.OpenJournal(t, journal.Config{})
		f := &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: storetest.NewClock()}
		u, id := storetest.NewUser(), storetest.NewSession()
		f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
		w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: storetest.Live(t, 0), New: storetest.Tombstone(t)}}}
		if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
			t.Errorf("revoke: %v, %v", ok, err)
		}
		if err := f.Ready(t.Context()); err != nil {
			t.Errorf("Ready: %v", err)
		}
		for _, n := range c.Nodes {
			for _, entry := range n.Do(t, "acl", "log").([]any) {
				t.Errorf("%s forbade %v", n.Addr, entry)
			}
		}
	})
	t.Run("accepted loss", func(t *testing.T) {
		f := &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: storetest.NewClock()}
		u, id := storetest.NewUser(), storetest.NewSession()
		f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
		c.PrimaryOf(t, redis.UserHash(tagKey, u)).Do(t, "flushall")
		storetest.ExpectLost(t, "one primary of three is empty", f.Store, u)
		if err := f.Store.(*redis.Store).AcceptLoss(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.Expect(t, u, id, "", "")
	})
	expectUnread(t, replicas)
	t.Run("linear", func(t *testing.T) {
		cfg := cfg
		cfg.ReadTimeout, cfg.Journal = 2*time.Second, storetest.OpenJournal(t, journal.Config{})
		first := c.Primaries(t)[0]
		storetest.ExpectLinear(t, storetest.Linear{Tabs: 1, Forgetful: true, Settled: func() { c.Cut(t, first) }, During: func(loggedOut <-chan struct{}) {
			<-loggedOut
			first.Kill(t)
			c.TakeOver(t, first)
		}}.Run(t, OpenRedis(t, cfg)))
		c.Rejoin(t)
	})
	t.Run("event", func(t *testing.T) { testClusterEvent(t, c) })
	followed(t, cfg,
		func() { c.Failover(t, c.Primaries(t)[0]) },
		func() { c.Lose(t, c.Primaries(t)[0]) },
		func() { c.Rejoin(t); c.TakeOver(t, c.Primaries(t)[2]) })
}

// testClusterEvent loses the event of a revocation with the node that the feed
// is on, and not the revocation, which is on another one.
func testClusterEvent(t *testing.T, c *redistest.Cluster) {
	p := openPeer(t, clusterConfig(c), "")
	is := storetest.NewIssuer(t, p.Store)
	on := c.PrimaryOf(t, redis.FeedKey(tagKey, storetest.IssuerHomeserver))
	var d *storetest.Device
	for i := 0; d == nil || c.PrimaryOf(t, redis.UserHash(tagKey, d.User)) == on; i++ {
		d = is.Login(fmt.Sprintf("@user%d:hs", i))
	}
	other := is.Login("@other:hs")
	for _, x := range []*storetest.Device{d, other} {
		if err := x.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f := follow(is, p.Store)
	if err := other.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the homeserver receives a logout", func() bool { return f.refuses(other) })
	f.hang()
	c.Cut(t, on)
	if err := d.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	on.Kill(t)
	c.TakeOver(t, on)
	f.connect()
	redistest.Eventually(t, "the homeserver receives the other logout", func() bool { return f.refuses(d) })
	if st := p.JournalStats(); st.Replayed != 0 || st.Missing == 0 {
		t.Errorf("statistics of the journal: %+v", st)
	}
	if st := f.Status(); st.Gaps != 0 {
		t.Errorf("status of the feed: %+v", st)
	}
	c.Rejoin(t)
}

// followed checks that a store finds its way after each of several failovers,
// with the data as it was.
func followed(t *testing.T, cfg redis.Config, failovers ...func()) {
	t.Helper()
	f := &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: storetest.NewClock()}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("0")})
	last := "0"
	for i, failover := range failovers {
		// A store that follows must not misread intermediate states.
		if _, err := f.Swap(t.Context(), storetest.One(u, store.Change{Session: id, Old: []byte(last), New: []byte(last + "+")})); err != nil {
			t.Fatal(err)
		}
		last += "+"
		failover()
		redistest.Eventually(t, "the store works again", func() bool {
			v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
			if errors.Is(err, store.ErrLost) {
				t.Fatalf("after failover %d: %v", i, err)
			}
			return err == nil && v.Session != nil
		})
		f.Expect(t, u, id, last, "")
		redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
	}
}
