package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// expectLost tries everything that could mistake a loss for an answer.
func expectLost(t testing.TB, what string, s discharger.Store, u discharger.UserKey) {
	t.Helper()
	id := newSession()
	_, errLoad := s.Load(t.Context(), u, id, revocation.DeviceTag{})
	_, errList := s.List(t.Context(), u)
	ok1, errNew := s.Swap(t.Context(), one(u, discharger.Change{Session: id, New: []byte("a")}))
	ok2, errOld := s.Swap(t.Context(), one(u, discharger.Change{Session: id, Old: []byte("a"), New: []byte("b")}))
	ok3, errHome := s.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("a"))
	if ok1 || ok2 || ok3 {
		t.Errorf("%s: a swap was done", what)
	}
	for i, err := range []error{errLoad, errList, errNew, errOld, errHome, s.Ready(t.Context())} {
		if !errors.Is(err, discharger.ErrStoreLost) {
			t.Errorf("%s: method %d: %v, want ErrStoreLost", what, i, err)
		}
	}
}

// TestRedisFlushed empties the server while it is used, and asks each method
// first in turn.
func TestRedisFlushed(t *testing.T) {
	t.Parallel()
	u, id := someone(), newSession()
	for what, ask := range map[string]func(discharger.Store) error{
		"Load": func(s discharger.Store) error {
			_, err := s.Load(t.Context(), u, id, revocation.DeviceTag{})
			return err
		},
		"List": func(s discharger.Store) error { _, err := s.List(t.Context(), u); return err },
		"Swap": func(s discharger.Store) error {
			_, err := s.Swap(t.Context(), one(u, discharger.Change{Session: id, Old: []byte("a"), New: []byte("b")}))
			return err
		},
		"Swap of nothing": func(s discharger.Store) error {
			_, err := s.Swap(t.Context(), one(someone(), discharger.Change{Session: id, New: []byte("b")}))
			return err
		},
		"SwapHomeserver": func(s discharger.Store) error {
			_, err := s.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("b"))
			return err
		},
		"Ready": func(s discharger.Store) error { return s.Ready(t.Context()) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := startRedis(t)
			f := newRedisFixture(t, s)
			f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
			f.expect(t, u, id, "a", "") // and has the homeserver's record in a cache
			s.do(t, "flushall")
			for range 3 {
				if err := ask(f.Store); !errors.Is(err, discharger.ErrStoreLost) {
					t.Fatalf("%v, want ErrStoreLost", err)
				}
			}
			expectLost(t, "afterwards", f.Store, u)
			if n := s.do(t, "dbsize").(int64); n != 0 {
				t.Errorf("%d keys were written to an emptied server", n)
			}
		})
	}
}

// TestRedisAcceptLoss lets an operator accept the loss at one process. Another
// process with the same memory agrees by itself.
func TestRedisAcceptLoss(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	c := newClock()
	withClock := func(cfg *store.RedisConfig) { cfg.Now = c.now }
	a, b := newRedisFixture(t, s, withClock), newRedisFixture(t, s, withClock)
	u, id := someone(), newSession()
	a.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
	s.do(t, "flushall")
	expectLost(t, "first", a, u)
	expectLost(t, "second", b, u)
	if err := a.Store.(*store.Redis).AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.expect(t, u, id, "", "")
	a.swap(t, true, u, discharger.Change{Session: id, New: []byte("b")})
	c.advance(2 * time.Second) // the other one has looked a moment ago
	b.expect(t, u, id, "b", "")
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

// TestRedisRestored brings the data back, and all is well again.
func TestRedisRestored(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	c := newClock()
	f := newRedisFixture(t, s, func(cfg *store.RedisConfig) { cfg.Now = c.now })
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
	s.do(t, "swapdb", 0, 1)
	expectLost(t, "emptied", f, u)
	s.do(t, "swapdb", 0, 1)
	if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("looked again at once: %v", err)
	}
	c.advance(2 * time.Second)
	f.expect(t, u, id, "a", "")
}

// TestRedisPartlyLost loses what one node of a cluster would have.
func TestRedisPartlyLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	f := newRedisFixture(t, s)
	u, v, id := someone(), someone(), newSession()
	key := store.UserHash(tagKey, u)
	for store.UserHash(tagKey, v)[:6] == key[:6] { // must be on another node
		v.User += "x"
	}
	f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
	f.swap(t, true, v, discharger.Change{Session: id, New: []byte("a")})
	for _, k := range s.raw.Keys(t.Context(), "*").Val() {
		if k[:6] == key[:6] { // of the same hash tag
			s.do(t, "del", k)
		}
	}
	if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("Load: %v", err)
	}
	expectLost(t, "everywhere", f, v)
	// A process that knows nothing must not take the rest for the whole.
	fresh := newRedisFixture(t, s)
	expectLost(t, "newcomer", fresh, u)
	if err := fresh.Store.(*store.Redis).AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh.expect(t, u, id, "", "")
	fresh.expect(t, v, id, "a", "")
	if err := f.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
	f.expect(t, v, id, "a", "")
}

// TestRedisFirstLost loses the node that knew how far the store had been made.
// A process that knows nothing must not make it anew.
func TestRedisFirstLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	f := newRedisFixture(t, s)
	first := store.IdentityKeys(tagKey)[0]
	for _, k := range s.raw.Keys(t.Context(), "*").Val() {
		if k[:6] == first[:6] {
			s.do(t, "del", k)
		}
	}
	fresh := newRedisFixture(t, s)
	expectLost(t, "newcomer", fresh, someone())
	if err := fresh.Store.(*store.Redis).AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*fixture{fresh, f, newRedisFixture(t, s)} {
		if err := f.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestRedisHomeserverLost loses a homeserver's record, and with it that
// everything was revoked, but not the sessions.
func TestRedisHomeserverLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	c := newClock()
	f := newRedisFixture(t, s, func(cfg *store.RedisConfig) {
		cfg.Now = c.now
		cfg.Wait = func(_ context.Context, d time.Duration) error { c.advance(d); return nil }
	})
	u, id := someone(), newSession()
	home := store.HomeserverKey(tagKey, u.Homeserver)
	for store.UserHash(tagKey, u)[:6] == home[:6] { // must be on another node
		u.User += "x"
	}
	f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("all revoked")); !ok || err != nil {
		t.Fatal(ok, err)
	}
	f.expect(t, u, id, "a", "")
	for _, k := range s.raw.Keys(t.Context(), "*").Val() {
		if k[:6] == home[:6] {
			s.do(t, "del", k)
		}
	}
	c.advance(2 * time.Second) // nobody has it in a cache any more
	if v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("Load gives %+v, %v", v, err)
	}
}

// memory is a marker that lives as long as a test.
type memory struct {
	mu      sync.Mutex
	id      []byte
	fail    error
	saved   int
	loadErr error
}

func (m *memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id, m.loadErr
}

func (m *memory) Save(id []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil {
		m.id = bytes.Clone(id)
		m.saved++
	}
	return m.fail
}

// A markedStore is either store, seen by the tests that both have to pass.
type markedStore interface {
	discharger.Store
	AcceptLoss(context.Context) error
}

// testMarkers opens a store with and without data, with and without a memory.
// wipe removes the data, replace puts another store's in its place.
func testMarkers(t *testing.T, open func(store.Marker) (markedStore, error), wipe, replace func()) {
	u, id := someone(), newSession()
	mustOpen := func(m store.Marker) markedStore {
		t.Helper()
		s, err := open(m)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ready := func(what string, s markedStore, session string) {
		t.Helper()
		v, err := s.Load(t.Context(), u, id, revocation.DeviceTag{})
		if err != nil || string(v.Session) != session {
			t.Fatalf("%s: session is %q, %v, want %q", what, v.Session, err, session)
		}
		if err := s.Ready(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	write := func(s markedStore) {
		t.Helper()
		if ok, err := s.Swap(t.Context(), one(u, discharger.Change{Session: id, New: []byte("a")})); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	closeStore := func(s markedStore) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}

	m := new(memory)
	s := mustOpen(m)
	ready("neither", s, "")
	write(s)
	closeStore(s)
	if len(m.id) == 0 {
		t.Fatal("nothing was remembered")
	}
	first := bytes.Clone(m.id)

	s = mustOpen(m)
	ready("both", s, "a")
	closeStore(s)

	newcomer := new(memory)
	s = mustOpen(newcomer)
	ready("store only", s, "a")
	closeStore(s)
	if !bytes.Equal(newcomer.id, first) {
		t.Errorf("adopted %q, want %q", newcomer.id, first)
	}

	wipe()
	for range 2 { // opening it again does not make it better
		s = mustOpen(m)
		expectLost(t, "wiped", s, u)
		closeStore(s)
	}
	if !bytes.Equal(m.id, first) {
		t.Errorf("memory became %q", m.id)
	}
	s = mustOpen(m)
	m.fail = errors.New("disk full")
	if err := s.AcceptLoss(t.Context()); !errors.Is(err, m.fail) {
		t.Errorf("AcceptLoss: %v", err)
	}
	m.fail = nil
	if err := s.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready("accepted", s, "")
	write(s)
	if err := s.AcceptLoss(t.Context()); err != nil { // of no effect
		t.Fatal(err)
	}
	ready("accepted twice", s, "a")
	closeStore(s)
	s = mustOpen(m)
	ready("accepted and opened again", s, "a")
	closeStore(s)

	replace()
	theirs := new(memory)
	s = mustOpen(theirs)
	write(s)
	closeStore(s)
	s = mustOpen(m)
	if v, err := s.Load(t.Context(), u, id, revocation.DeviceTag{}); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("another store's session is %+v, %v", v, err)
	}
	expectLost(t, "replaced", s, u)
	if err := s.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready("replacement accepted", s, "a")
	if !bytes.Equal(m.id, theirs.id) { // others who use it must not be disturbed
		t.Errorf("accepted %q as %q", theirs.id, m.id)
	}
	closeStore(s)
	s = mustOpen(m)
	ready("replacement opened again", s, "a")
	closeStore(s)

	for what, bad := range map[string]*memory{
		"foreign":    {id: []byte("somebody else's marker")},
		"later":      {id: bytes.Replace(first, []byte("-1:"), []byte("-2:"), 1)},
		"short":      {id: first[:len(first)-1]},
		"unreadable": {loadErr: errors.New("permission denied")},
	} {
		if s, err := open(bad); err == nil {
			s.Close()
			t.Errorf("%s marker: opened", what)
		}
	}
	wipe()
	if s, err := open(&memory{fail: errors.New("disk full")}); err == nil {
		s.Close()
		t.Error("opened a new store that cannot be remembered")
	}
}

func TestRedisMarkers(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	testMarkers(t, func(m store.Marker) (markedStore, error) {
		cfg := s.config()
		cfg.Marker = m
		cfg.Wait = func(context.Context, time.Duration) error { return nil }
		return store.OpenRedis(t.Context(), cfg)
	}, func() { s.do(t, "flushall") }, func() {
		s.do(t, "flushall")
		openRedis(t, s.config()) // with a new identity
	})
}

// TestRedisTagKey treats data that cannot be found as lost.
func TestRedisTagKey(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	marker := store.FileMarker(filepath.Join(t.TempDir(), "marker"))
	newRedisFixture(t, s, func(c *store.RedisConfig) { c.Marker = marker })
	f := newRedisFixture(t, s, func(c *store.RedisConfig) {
		c.Marker = marker
		c.TagKey = bytes.Repeat([]byte("x"), 32)
	})
	expectLost(t, "with another tag key", f, someone())
}

// TestRedisFirst lets many processes come to an empty server at once.
func TestRedisFirst(t *testing.T) {
	t.Parallel()
	for range 10 {
		s := startRedis(t)
		var wg sync.WaitGroup
		markers := make([]*memory, 8)
		for i := range markers {
			markers[i] = new(memory)
			wg.Go(func() {
				cfg := s.config()
				cfg.Marker = markers[i]
				r, err := store.OpenRedis(t.Context(), cfg)
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
			if m.id == nil || !bytes.Equal(m.id, markers[0].id) {
				t.Fatalf("they disagree: %q and %q", m.id, markers[0].id)
			}
		}
		s.Kill(t)
	}
}

// TestRedisInterrupted finds a store whose first process was killed before it
// had written everything.
func TestRedisInterrupted(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	openRedis(t, s.config())
	var keys []string
	for _, k := range s.raw.Keys(t.Context(), "ds{??}*").Val() {
		if bytes.Contains([]byte(k), []byte("store:")) {
			keys = append(keys, k)
		} else if bytes.Contains([]byte(k), []byte("new:")) {
			s.do(t, "hdel", k, "done")
		}
	}
	if len(keys) != 256 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, k := range keys[100:] {
		s.do(t, "del", k)
	}
	f := newRedisFixture(t, s)
	if err := f.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	for _, k := range keys {
		s.do(t, "set", k, fmt.Sprintf("garbage %d", 1))
	}
	if err := f.Ready(t.Context()); err == nil {
		t.Error("takes garbage for an identity")
	}
	if r, err := store.OpenRedis(t.Context(), s.config()); err == nil {
		r.Close()
		t.Error("opened on garbage")
	}
}
