package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestRedisReplyLost cuts the connection after a script has taken effect and
// before the reply arrives.
func TestRedisReplyLost(t *testing.T) {
	t.Parallel()
	for _, durability := range []redis.Durability{redis.DurabilityPrimary, redis.DurabilityReplica} {
		t.Run(string(durability), func(t *testing.T) {
			t.Parallel()
			host, port := redistest.Address(t)
			s := StartRedis(t, "--port", port, "--bind", host, "--repl-diskless-sync-delay", "0")
			replica := StartRedis(t, "--replicaof", host, port)
			redistest.Eventually(t, "the replica is linked", func() bool {
				return strings.Contains(s.Do(t, "info", "replication").(string), "state=online")
			})
			defer replica.Kill(t)
			p := startProxy(t, s.Socket)
			f := newRedisFixture(t, s, func(c *redis.Config) {
				c.Addrs, c.Durability = []string{p.addr}, durability
				c.SetWait(func(context.Context, time.Duration) error { return nil })
			})
			f.Store.(*redis.Store).StopWatch()
			u, id := storetest.NewUser(), storetest.NewSession()
			swap := func(old, new string) (bool, error) {
				return f.Swap(t.Context(), store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{
					{Session: id, Old: []byte(old), New: []byte(new), Expires: f.Clock.In(time.Hour)}}})
			}
			f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("1")})

			// Once: the client retries by itself.
			s.Do(t, "config", "resetstat")
			p.cut.Store(1)
			if ok, err := swap("1", "2"); !ok || err != nil {
				t.Fatalf("one lost reply: %v, %v", ok, err)
			}
			if n := s.Calls(t)["evalsha"]; n != 2 {
				t.Errorf("the script ran %d times, want 2", n)
			}
			f.Expect(t, u, id, "2", "")

			// Always: an error, though it has taken effect; the caller tries again.
			p.cut.Store(1 << 30)
			if ok, err := swap("2", "3"); ok || err == nil {
				t.Fatalf("no reply at all: %v, %v", ok, err)
			}
			if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("h")); ok || err == nil {
				t.Fatalf("no reply at all: %v, %v", ok, err)
			}
			p.cut.Store(0)
			f.Expect(t, u, id, "3", "")
			if ok, err := swap("2", "3"); !ok || err != nil {
				t.Fatalf("the same again: %v, %v", ok, err)
			}
			if ok, err := swap("2", "4"); ok || err != nil {
				t.Fatalf("something else: %v, %v", ok, err)
			}
			if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("h")); !ok || err != nil {
				t.Fatalf("the same again: %v, %v", ok, err)
			}
			f.Expect(t, u, id, "3", "")
		})
	}
}

// TestRedisUnreliable has many callers on a connection that breaks all the
// time. Each takes its session through the same states; none may be lost or
// passed twice.
func TestRedisUnreliable(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	p := startProxy(t, s.Socket)
	f := newRedisFixture(t, s, func(c *redis.Config) { c.Addrs = []string{p.addr} })
	p.every.Store(7)
	var failed atomic.Int64
	var wg sync.WaitGroup
	const callers, steps = 64, 20
	for range callers {
		wg.Go(func() {
			u, id := storetest.NewUser(), storetest.NewSession()
			var old []byte
			for step := range steps {
				next := fmt.Appendf(nil, "%d %s", step, strings.Repeat("x", step*7))
				for {
					ok, err := f.Swap(t.Context(), storetest.One(u, store.Change{Session: id, Old: old, New: next}))
					if err == nil && !ok {
						t.Errorf("step %d: another record was there", step)
						return
					}
					if err == nil {
						break
					}
					failed.Add(1)
				}
				v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
				if err != nil {
					failed.Add(1)
				} else if !bytes.Equal(v.Session, next) {
					t.Errorf("step %d: record is %q", step, v.Session)
					return
				}
				old = next
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d operations had to be repeated by the caller", failed.Load(), 2*callers*steps)
}

// rubbish are replies that no Redis server sends.
var rubbish = []string{
	"+OK\r\n", "-ERR no\r\n", ":1\r\n", ":0\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n", "$3\r\nabc\r\n", "*1\r\n$1\r\nx\r\n",
	"*5\r\n$1\r\na\r\n:1\r\n:1\r\n$-1\r\n$-1\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*5\r\n$-1\r\n$-1\r\n$-1\r\n$1\r\n0\r\n$-1\r\n",
	"HTTP/1.1 400 Bad Request\r\n\r\n", "\x00\x01\x02\r\n", "\r\n", "$-5\r\n", "*3\r\n",
	"-LOADING Redis is loading\r\n", "-READONLY no\r\n", "-NOSCRIPT no\r\n", "-CLUSTERDOWN no\r\n", "-MOVED 1 127.0.0.1:1\r\n",
}

// TestMalformedReplies gives wrong answers to a store in use. It must not believe
// that there is no session, and must recover.
func TestMalformedReplies(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	p := startProxy(t, s.Socket)
	c := storetest.NewClock()
	f := newRedisFixture(t, s, func(cfg *redis.Config) {
		*cfg = cfg.WithClock(c.Now)
		cfg.Addrs = []string{p.addr}
		cfg.ReadTimeout = time.Second
		cfg.SetWait(func(context.Context, time.Duration) error { return nil })
	})
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a"), Expires: f.Clock.In(time.Hour)})
	for i := range 2 * len(rubbish) {
		answer := rubbish[i/2]
		if i%2 == 0 {
			c.Advance(2 * time.Second) // the homeserver's record is read as well
		} else {
			f.MustLoad(t, u, id) // there is a connection that has been greeted
		}
		b := []byte(answer)
		p.rubbish.Store(&b)
		if v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
			t.Errorf("%q: Load gives %+v", answer, v)
		}
		if l, err := f.List(t.Context(), u); err == nil {
			t.Errorf("%q: List gives %+v", answer, l)
		}
		w := storetest.One(u, store.Change{Session: id, Old: []byte("x"), New: []byte("y")})
		if ok, err := f.Swap(t.Context(), w); err == nil && answer != ":0\r\n" && answer != ":1\r\n" {
			t.Errorf("%q: Swap gives %v", answer, ok)
		}
		if err := f.Ready(t.Context()); err == nil {
			t.Errorf("%q: Ready", answer)
		}
		p.rubbish.Store(nil)
		redistest.Eventually(t, "the store has recovered", func() bool {
			c.Advance(time.Second) // after which a store that seems lost is looked at again
			v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
			if err == nil && string(v.Session) != "a" {
				t.Fatalf("session is %q", v.Session)
			}
			return err == nil
		})
	}
}

// TestRedisStub opens a store at something that is no Redis.
func TestRedisStub(t *testing.T) {
	t.Parallel()
	for _, answer := range append(rubbish, "") {
		l, err := net.Listen("tcp", "127.53.7.3:0")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer c.Close()
					buf := make([]byte, 4096)
					for {
						if _, err := c.Read(buf); err != nil {
							return
						}
						if _, err := c.Write([]byte(answer)); err != nil {
							return
						}
					}
				})
			}
		})
		cfg := redis.Config{Addrs: []string{l.Addr().String()}, TagKey: tagKey, ReadTimeout: 50 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		took := storetest.Awake(func() {
			r, err := redis.Open(ctx, cfg)
			if err == nil {
				r.Close()
				t.Errorf("%q: opened", answer)
			}
		})
		if took > 10*time.Second {
			t.Errorf("%q: took %v", answer, took)
		}
		cancel()
		l.Close()
		wg.Wait()
	}
}

// TestRedisDamaged damages stored records. Their readers get an error, and
// other users are not affected.
func TestRedisDamaged(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	long := bytes.Repeat([]byte("x"), 100)
	second := func(id caveat.SessionID) string { return fmt.Sprint(int(id[0])%126 + 2) }
	for what, damage := range map[string]func(key string, id caveat.SessionID){
		"type":            func(key string, _ caveat.SessionID) { s.Do(t, "set", key, "x") },
		"type 2":          func(key string, _ caveat.SessionID) { s.Do(t, "del", key); s.Do(t, "sadd", key, "x") },
		"empty":           func(key string, id caveat.SessionID) { s.Do(t, "hset", key, string(id[:]), "") },
		"short":           func(key string, id caveat.SessionID) { s.Do(t, "hset", key, string(id[:]), "\x00\x00\x00\x00\x00") },
		"place":           func(key string, id caveat.SessionID) { s.Do(t, "hset", key, string(id[:]), "\x00\x00\x00\x00\x03abc") },
		"place, expired":  func(key string, id caveat.SessionID) { s.Do(t, "hset", key, string(id[:]), "\x00\x00\x00\x01\x03abc") },
		"other place":     func(key string, id caveat.SessionID) { s.Do(t, "hset", key, string(id[:]), "\x00\x00\x00\x00\x02abc") },
		"no second piece": func(key string, id caveat.SessionID) { s.Do(t, "hdel", key, second(id)) },
	} {
		t.Run(what, func(t *testing.T) {
			u, id := storetest.NewUser(), storetest.NewSession()
			f := newRedisFixture(t, s)
			f.MustSwap(t, true, u, store.Change{Session: id, New: long}, store.Change{New: long})
			key := redis.UserHash(tagKey, u)
			s.Do(t, "del", key)
			f.MustSwap(t, true, u, store.Change{Session: id, New: long}, store.Change{New: long})
			damage(key, id)
			before := s.Do(t, "dump", key)
			check := func() {
				t.Helper()
				if v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil || errors.Is(err, store.ErrLost) {
					t.Errorf("%s: Load gives %v, %v", what, v, err)
				}
				if l, err := f.List(t.Context(), u); err == nil || errors.Is(err, store.ErrLost) {
					t.Errorf("%s: List gives %v, %v", what, l, err)
				}
				for _, w := range []store.Change{{Session: id, New: long}, {Session: id, Old: long, New: []byte("y")}, {Session: id, Old: long}} {
					if ok, err := f.Swap(t.Context(), storetest.One(u, w)); err == nil || ok {
						t.Errorf("%s: Swap gives %v, %v", what, ok, err)
					}
				}
			}
			check()
			if after := s.Do(t, "dump", key); after != before {
				t.Errorf("%s: the damaged record was changed", what)
			}
			if s.Do(t, "type", key) != "hash" {
				return
			}
			// Other sessions of the user continue, and the damaged record stays.
			for range 2 {
				other := storetest.NewSession()
				for second(other) == second(id) { // its second piece would stand in for the one that is missing
					other = storetest.NewSession()
				}
				f.MustSwap(t, true, u, store.Change{Session: other, New: long, Expires: time.Now()})
			}
			check()
		})
	}
	// One piece of a record without the other one.
	for _, field := range []string{"1", "\x01234567890123456\x01"} {
		u, id := storetest.NewUser(), caveat.SessionID([]byte("\x01234567890123456")[:16])
		f := newRedisFixture(t, s)
		f.MustSwap(t, true, u, store.Change{Session: storetest.NewSession(), New: []byte("a")})
		s.Do(t, "hset", redis.UserHash(tagKey, u), field[:min(len(field), 16)]+field[min(len(field), 17):], "rest")
		if l, err := f.List(t.Context(), u); err == nil {
			t.Errorf("List gives %v with an orphan %q", l, field)
		}
		if v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil && field == "1" {
			t.Errorf("Load gives %v with an orphan %q", v, field)
		}
	}
	u, id := storetest.NewUser(), storetest.NewSession()
	f := newRedisFixture(t, s)
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	s.Do(t, "hset", redis.UserHash(tagKey, u), "5", "rest")
	f.MustSwap(t, true, u, store.Change{Session: id, Old: []byte("a")})
	if l, err := f.List(t.Context(), u); err == nil {
		t.Errorf("List gives %v with nothing but an orphan", l)
	}
	for _, k := range s.raw.Keys(t.Context(), "ds{??}homeserver:*").Val() {
		t.Errorf("unexpected key %s", k)
	}
	s.Do(t, "lpush", redis.HomeserverKey(tagKey, u.Homeserver), "x")
	if v, err := f.Load(t.Context(), u, storetest.NewSession(), revocation.DeviceTag{}); err == nil {
		t.Errorf("Load gives %v with a list for the homeserver's record", v)
	}
	s.Do(t, "del", redis.HomeserverKey(tagKey, u.Homeserver))
	s.Do(t, "set", redis.HomeserverKey(tagKey, u.Homeserver), "")
	if v, err := f.Load(t.Context(), u, storetest.NewSession(), revocation.DeviceTag{}); err == nil {
		t.Errorf("Load gives %v with an empty record of the homeserver", v)
	}
}
