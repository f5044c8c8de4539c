package redis_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redis/conn"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func TestRedisConfig(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	for what, change := range map[string]func(*redis.Config){
		"no address":          func(c *redis.Config) { c.Addrs = nil },
		"several addresses":   func(c *redis.Config) { c.Addrs = []string{s.Socket, s.Socket} },
		"sentinel or cluster": func(c *redis.Config) { c.MasterName, c.Cluster = "m", true },
		"cluster and DB":      func(c *redis.Config) { c.Cluster, c.DB = true, 1 },
		"no tag key":          func(c *redis.Config) { c.TagKey = nil },
		"short tag key":       func(c *redis.Config) { c.TagKey = c.TagKey[:31] },
		"timeout":             func(c *redis.Config) { c.ReadTimeout = -1 },
		"cache":               func(c *redis.Config) { c.CacheHomeserver = time.Second + 1 },
		"pool":                func(c *redis.Config) { c.PoolSize = -1 },
		"durability":          func(c *redis.Config) { c.Durability = "disc" },
		"replicas":            func(c *redis.Config) { c.Replicas = 1 },
		"cluster":             func(c *redis.Config) { c.Cluster = true }, // which this server is not
		"database":            func(c *redis.Config) { c.DB = 99 },
		"password":            func(c *redis.Config) { c.Username, c.Password = "x", secret.Bytes("opensesame") },
		"no server":           func(c *redis.Config) { c.Addrs = []string{s.Socket + "x"} },
	} {
		t.Run(what, func(t *testing.T) {
			cfg := s.Config()
			change(&cfg)
			r, err := redis.Open(t.Context(), cfg)
			if err == nil {
				r.Close()
				t.Errorf("%s: opened", what)
			} else if strings.Contains(err.Error(), "opensesame") {
				t.Errorf("%s: error contains the password: %v", what, err)
			}
		})
	}
	cfg := s.Config()
	cfg.Password = secret.Bytes("opensesame")
	if text := fmt.Sprintf("%v %+v", cfg, &cfg); strings.Contains(text, "opensesame") || strings.Contains(text, string(tagKey)) {
		t.Errorf("printing a configuration reveals secrets: %s", text)
	}
}

// TestRedisRefuses lists servers that must not be used.
func TestRedisRefuses(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	primary := StartRedis(t, "--port", port, "--bind", host)
	for _, c := range []struct {
		what, want string
		server     func() *redisServer
		change     func(*redis.Config)
	}{
		{what: "eviction", want: "set maxmemory-policy to noeviction",
			server: func() *redisServer { return StartRedis(t, "--maxmemory-policy", "allkeys-lru") }},
		{what: "volatile eviction", want: "noeviction",
			server: func() *redisServer { return StartRedis(t, "--maxmemory-policy", "volatile-ttl") }},
		{what: "replica", want: `not a primary but "slave";`,
			server: func() *redisServer { return StartRedis(t, "--replicaof", host, port) }},
		{what: "node of a cluster", want: "part of a cluster",
			server: func() *redisServer {
				host, port := redistest.Address(t)
				return StartRedis(t, "--cluster-enabled", "yes", "--port", port, "--bind", host)
			}},
		{what: "disk before 7.2", want: "needs Redis 7.2",
			server: func() *redisServer { return StartRedis(t, "--appendonly", "yes") },
			change: func(c *redis.Config) { c.Durability = redis.DurabilityDisk }},
		{what: "no replica", want: "0 of 1 replicas",
			server: func() *redisServer { return StartRedis(t) },
			change: func(c *redis.Config) {
				c.Durability, c.ReadTimeout = redis.DurabilityReplica, 4*time.Second
			}},
	} {
		t.Run(c.what, func(t *testing.T) {
			cfg := c.server().Config()
			if c.change != nil {
				c.change(&cfg)
			}
			r, err := redis.Open(t.Context(), cfg)
			if err == nil {
				r.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want an error with %q", c.what, err, c.want)
			}
		})
	}
	OpenRedis(t, primary.Config())
}

// TestRedisDemoted notices that the server became a replica while in use.
func TestRedisDemoted(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	StartRedis(t, "--port", port, "--bind", host)
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	if err := f.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Do(t, "replicaof", host, port)
	if err := f.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "not a primary") {
		t.Errorf("Ready at a replica: %v", err)
	}
	if ok, err := f.Swap(t.Context(), storetest.One(storetest.NewUser(), store.Change{New: []byte("a")})); err == nil || ok {
		t.Errorf("Swap at a replica: %v, %v", ok, err)
	}
}

// TestRedisACL works as a user who may do no more than the package comment
// says, or not even look.
func TestRedisACL(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	for user, more := range map[string]string{"blind": "", "seeing": " " + redistest.Checks} {
		t.Run(user, func(t *testing.T) {
			args := []any{"acl", "setuser", user, "on", ">secret", "~ds{*"}
			for _, c := range strings.Fields(redistest.Commands + more) {
				args = append(args, c)
			}
			s.Do(t, args...)
			var log storetest.LogBuffer
			f := newRedisFixture(t, s, func(c *redis.Config) {
				c.Username, c.Password = user, secret.Bytes("secret")
				c.Log = log.Logger()
				c.MaxEvents = 1
				c.SetWait(func(context.Context, time.Duration) error { return nil })
			})
			warned := strings.Count(log.String(), "was not checked")
			if want := map[string]int{"blind": 2, "seeing": 0}[user]; warned != want {
				t.Errorf("%s: %d warnings, want %d: %s", user, warned, want, log.String())
			}
			u, id := storetest.NewUser(), storetest.NewSession()
			f.MustSwap(t, true, u, store.Change{Session: id, New: make([]byte, 100), Expires: f.Clock.In(time.Hour)})
			for i := range 600 {
				f.MustSwap(t, true, u, store.Change{Session: caveat.SessionID{0: byte(i), 1: byte(i >> 8), 2: 1}, New: make([]byte, 100), Expires: f.Clock.In(time.Duration(i) * time.Hour)})
			}
			f.MustSwap(t, true, u, store.Change{Session: id, Old: make([]byte, 100)}, store.Change{New: []byte("u")})
			f.Expect(t, u, id, "", "u")
			if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("a")); !ok || err != nil {
				t.Errorf("SwapHomeserver: %v, %v", ok, err)
			}
			if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, []byte("a"), nil); !ok || err != nil {
				t.Errorf("SwapHomeserver: %v, %v", ok, err)
			}
			if err := f.Ready(t.Context()); err != nil {
				t.Errorf("Ready: %v", err)
			}
			followFeed(t, f, u.Homeserver)
		})
	}
	// The list has nothing that could be left out.
	calls := s.Calls(t)
	for _, c := range strings.Fields(redistest.Commands + " " + redistest.Checks) {
		if calls[strings.TrimPrefix(c, "+")] == 0 {
			t.Errorf("%s is permitted and never used", c)
		}
	}
	if log := s.Do(t, "acl", "log").([]any); len(log) == 0 {
		t.Error("nothing was forbidden to the user who may not look")
	}
}

// followFeed uses all that feeds are made with.
func followFeed(t *testing.T, f *storetest.Fixture, homeserver string) {
	t.Helper()
	for range 2 { // the second one displaces the first
		if err := f.Publish(t.Context(), homeserver, storetest.Event("x", time.Now().Add(time.Hour))); err != nil {
			t.Errorf("Publish: %v", err)
		}
	}
	feed := f.Store.(store.Feed)
	page, err := feed.ReadFeed(t.Context(), homeserver, "")
	if err != nil || len(page.Entries) != 1 {
		t.Fatalf("ReadFeed: %+v, %v", page, err)
	}
	before := page.Entries[0].Position[:strings.LastIndex(page.Entries[0].Position, ".")] + ".1-1"
	if _, err := feed.ReadFeed(t.Context(), homeserver, before); err != nil {
		t.Errorf("ReadFeed: %v", err)
	}
	if err := feed.AwaitFeed(t.Context(), homeserver, before); err != nil {
		t.Errorf("AwaitFeed: %v", err)
	}
}

// TestRedisClock warns when the clock of the server differs.
func TestRedisClock(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	for ahead, want := range map[time.Duration]bool{0: false, time.Minute: true, -time.Minute: true} {
		t.Run(ahead.String(), func(t *testing.T) {
			var log storetest.LogBuffer
			newRedisFixture(t, s, func(c *redis.Config) {
				*c = c.WithClock(func() time.Time { return time.Now().Add(ahead) })
				c.Log = log.Logger()
			})
			if got := strings.Contains(log.String(), "clock"); got != want {
				t.Errorf("with a clock %v ahead the log is %q", ahead, log.String())
			}
		})
	}
}

// TestRedisSecure is an ACL user that talks TLS to a server which is who it
// says it is, and not to another.
func TestRedisSecure(t *testing.T) {
	t.Parallel()
	s := redistest.StartSecure(t)
	cfg := patient(redis.Config{
		Addrs: []string{s.Addr}, Access: conn.Access{TLS: s.TLS(), Username: s.User, Password: secret.Bytes(s.Password)},
	})
	f := &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: storetest.NewClock()}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	f.Expect(t, u, id, "a", "")
	for what, change := range map[string]func(*redis.Config){
		"trusts an unknown certificate":         func(c *redis.Config) { c.TLS.RootCAs = x509.NewCertPool() },
		"trusts a certificate for another name": func(c *redis.Config) { c.TLS.ServerName = "redis.example.org" },
		"is let in without a certificate":       func(c *redis.Config) { c.TLS.Certificates = nil },
		"is let in with a wrong password":       func(c *redis.Config) { c.Password = secret.Bytes("wrong") },
		"is accepted without credentials":       func(c *redis.Config) { c.Username, c.Password = "", nil },
	} {
		t.Run(what, func(t *testing.T) {
			cfg := cfg
			cfg.TLS = s.TLS()
			change(&cfg)
			if r, err := redis.Open(t.Context(), cfg); err == nil {
				r.Close()
				t.Error(what)
			}
		})
	}
}
