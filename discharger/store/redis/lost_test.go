package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestRedisFlushed empties the server while it is in use, and calls each
// method.
func TestRedisFlushed(t *testing.T) {
	t.Parallel()
	u, id := storetest.NewUser(), storetest.NewSession()
	for what, ask := range map[string]func(store.Store) error{
		"Load": func(s store.Store) error {
			_, err := s.Load(t.Context(), u, id, revocation.DeviceTag{})
			return err
		},
		"List": func(s store.Store) error { _, err := s.List(t.Context(), u); return err },
		"Swap": func(s store.Store) error {
			_, err := s.Swap(t.Context(), storetest.One(u, store.Change{Session: id, Old: []byte("a"), New: []byte("b")}))
			return err
		},
		"Swap of nothing": func(s store.Store) error {
			_, err := s.Swap(t.Context(), storetest.One(storetest.NewUser(), store.Change{Session: id, New: []byte("b")}))
			return err
		},
		"SwapHomeserver": func(s store.Store) error {
			_, err := s.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("b"))
			return err
		},
		"Ready": func(s store.Store) error { return s.Ready(t.Context()) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := StartRedis(t)
			f := newRedisFixture(t, s)
			f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
			f.Expect(t, u, id, "a", "") // and has the homeserver's record in a cache
			s.Do(t, "flushall")
			for range 3 {
				if err := ask(f.Store); !errors.Is(err, store.ErrLost) {
					t.Fatalf("%v, want ErrStoreLost", err)
				}
			}
			storetest.ExpectLost(t, "afterwards", f.Store, u)
			if n := s.Do(t, "dbsize").(int64); n != 0 {
				t.Errorf("%d keys were written to an emptied server", n)
			}
		})
	}
}

// TestRedisAcceptLoss lets an operator accept the loss at one process. Another
// process with the same memory agrees by itself.
func TestRedisAcceptLoss(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	c := storetest.NewClock()
	withClock := func(cfg *redis.Config) { *cfg = cfg.WithClock(c.Now) }
	a, b := newRedisFixture(t, s, withClock), newRedisFixture(t, s, withClock)
	u, id := storetest.NewUser(), storetest.NewSession()
	a.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	s.Do(t, "flushall")
	storetest.ExpectLost(t, "first", a, u)
	storetest.ExpectLost(t, "second", b, u)
	if err := a.Store.(*redis.Store).AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.Expect(t, u, id, "", "")
	a.MustSwap(t, true, u, store.Change{Session: id, New: []byte("b")})
	c.Advance(2 * time.Second) // the other one has looked a moment ago
	b.Expect(t, u, id, "b", "")
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

// TestRedisRestored brings the data back, and all is well again.
func TestRedisRestored(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	c := storetest.NewClock()
	f := newRedisFixture(t, s, func(cfg *redis.Config) { *cfg = cfg.WithClock(c.Now) })
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	s.Do(t, "swapdb", 0, 1)
	storetest.ExpectLost(t, "emptied", f, u)
	s.Do(t, "swapdb", 0, 1)
	if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); !errors.Is(err, store.ErrLost) {
		t.Errorf("looked again at once: %v", err)
	}
	c.Advance(2 * time.Second)
	f.Expect(t, u, id, "a", "")
}

// TestRedisPartlyLost loses the data of one node of a cluster.
func TestRedisPartlyLost(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	u, v, id := storetest.NewUser(), storetest.NewUser(), storetest.NewSession()
	key := redis.UserHash(tagKey, u)
	for redis.UserHash(tagKey, v)[:6] == key[:6] { // must be on another node
		v.User += "x"
	}
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	f.MustSwap(t, true, v, store.Change{Session: id, New: []byte("a")})
	for _, k := range s.raw.Keys(t.Context(), "*").Val() {
		if k[:6] == key[:6] { // of the same hash tag
			s.Do(t, "del", k)
		}
	}
	if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); !errors.Is(err, store.ErrLost) {
		t.Errorf("Load: %v", err)
	}
	storetest.ExpectLost(t, "everywhere", f, v)
	// A process without a marker must not accept the rest as the whole.
	fresh := newRedisFixture(t, s)
	storetest.ExpectLost(t, "newcomer", fresh, u)
	if err := fresh.Store.(*redis.Store).AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh.Expect(t, u, id, "", "")
	fresh.Expect(t, v, id, "a", "")
	if err := f.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
	f.Expect(t, v, id, "a", "")
}

// TestRedisFirstLost loses the node with the progress of the creation of the
// store.
func TestRedisFirstLost(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	f := newRedisFixture(t, s)
	first := redis.IdentityKeys(tagKey)[0]
	for _, k := range s.raw.Keys(t.Context(), "*").Val() {
		if k[:6] == first[:6] {
			s.Do(t, "del", k)
		}
	}
	fresh := newRedisFixture(t, s)
	storetest.ExpectLost(t, "newcomer", fresh, storetest.NewUser())
	if err := fresh.Store.(*redis.Store).AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*storetest.Fixture{fresh, f, newRedisFixture(t, s)} {
		if err := f.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestRedisHomeserverLost loses a homeserver's record, and with it that
// everything was revoked, but not the sessions.
func TestRedisHomeserverLost(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	c := storetest.NewClock()
	f := newRedisFixture(t, s, func(cfg *redis.Config) {
		*cfg = cfg.WithClock(c.Now)
		cfg.SetWait(func(_ context.Context, d time.Duration) error { c.Advance(d); return nil })
	})
	u, id := storetest.NewUser(), storetest.NewSession()
	home := redis.HomeserverKey(tagKey, u.Homeserver)
	for redis.UserHash(tagKey, u)[:6] == home[:6] { // must be on another node
		u.User += "x"
	}
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("all revoked")); !ok || err != nil {
		t.Fatal(ok, err)
	}
	f.Expect(t, u, id, "a", "")
	for _, k := range s.raw.Keys(t.Context(), "*").Val() {
		if k[:6] == home[:6] {
			s.Do(t, "del", k)
		}
	}
	c.Advance(2 * time.Second) // no process has it in a cache any more
	if v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); !errors.Is(err, store.ErrLost) {
		t.Errorf("Load gives %+v, %v", v, err)
	}
}

func TestRedisMarkers(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	storetest.Markers(t, func(m marker.Marker) (storetest.MarkedStore, error) {
		cfg := s.Config()
		cfg.Marker = m
		cfg.SetWait(func(context.Context, time.Duration) error { return nil })
		return redis.Open(t.Context(), cfg)
	}, func() { s.Do(t, "flushall") }, func() {
		s.Do(t, "flushall")
		OpenRedis(t, s.Config()) // with a new identity
	})
}

// TestRedisTagKey treats data that cannot be found as lost.
func TestRedisTagKey(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	marker := marker.FileMarker(filepath.Join(t.TempDir(), "marker"))
	newRedisFixture(t, s, func(c *redis.Config) { c.Marker = marker })
	f := newRedisFixture(t, s, func(c *redis.Config) {
		c.Marker = marker
		c.TagKey = bytes.Repeat([]byte("x"), 32)
	})
	storetest.ExpectLost(t, "with another tag key", f, storetest.NewUser())
}

// TestRedisFirst lets many processes come to an empty server at once.
func TestRedisFirst(t *testing.T) {
	t.Parallel()
	for range 10 {
		s := StartRedis(t)
		var wg sync.WaitGroup
		markers := make([]*storetest.Memory, 8)
		for i := range markers {
			markers[i] = new(storetest.Memory)
			wg.Go(func() {
				cfg := s.Config()
				cfg.Marker = markers[i]
				r, err := redis.Open(t.Context(), cfg)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				if err := r.Ready(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, m := range markers {
			if m.Id == nil || !bytes.Equal(m.Id, markers[0].Id) {
				t.Fatalf("they disagree: %q and %q", m.Id, markers[0].Id)
			}
		}
		s.Kill(t)
	}
}

// TestRedisInterrupted finds a store whose first process was killed before it
// had written everything.
func TestRedisInterrupted(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	OpenRedis(t, s.Config())
	var keys []string
	for _, k := range s.raw.Keys(t.Context(), "ds{??}*").Val() {
		if bytes.Contains([]byte(k), []byte("store:")) {
			keys = append(keys, k)
		} else if bytes.Contains([]byte(k), []byte("new:")) {
			s.Do(t, "hdel", k, "done")
		}
	}
	if len(keys) != 256 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, k := range keys[100:] {
		s.Do(t, "del", k)
	}
	f := newRedisFixture(t, s)
	if err := f.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	for _, k := range keys {
		s.Do(t, "set", k, fmt.Sprintf("garbage %d", 1))
	}
	if err := f.Ready(t.Context()); err == nil {
		t.Error("takes garbage for an identity")
	}
	if r, err := redis.Open(t.Context(), s.Config()); err == nil {
		r.Close()
		t.Error("opened on garbage")
	}
}
