package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// size counts what a cache remembers.
func (c *cache) size() (n int) {
	for i := range c.shards {
		n += len(c.shards[i].young) + len(c.shards[i].old)
	}
	return n
}

// What is remembered of a bundle decides nothing that depends on the moment or
// the request.
func TestRememberedBundlesAreChecked(t *testing.T) {
	t.Parallel()
	var revoked atomic.Bool
	asked := 0
	w := newWorld(t, func(c *Config) {
		c.Revocations = revocations(func(Identity) bool { return revoked.Load() })
		c.Check = func(context.Context, string) error { asked++; return nil }
	})
	access := w.mint(t, alice(caveat.ModeRotate))
	d := w.discharge(t, access, append(usual(caveat.ModeRotate), "client-ip 192.0.2.0/24", "moon-phase full")...)
	text := encode(t, access, bound(access, d))
	w.accepted(t, text, someClient)
	if w.cache.get(text) == nil {
		t.Fatal("not remembered")
	}
	for range 3 {
		w.accepted(t, text, someClient)
	}
	if asked != 4 {
		t.Errorf("Check was asked %d times, want 4", asked)
	}
	w.refused(t, text, Request{ClientIP: netip.MustParseAddr("198.51.100.1")}, ErrNotMet)
	revoked.Store(true)
	w.refused(t, text, someClient, ErrRevoked)
	revoked.Store(false)
	w.accepted(t, text, someClient)

	data := mustDecode(t, text)
	data[len(data)-1] ^= 1
	w.refused(t, api.EncodeBase64(data), someClient, ErrBadSignature)

	w.now = testNow.Add(5 * time.Minute)
	w.refused(t, text, someClient, ErrExpired)
}

type revocations func(Identity) bool

func (f revocations) Revoked(id Identity) bool { return f(id) }

func TestRevocationsSeeTheIdentity(t *testing.T) {
	t.Parallel()
	var seen Identity
	w := newWorld(t, func(c *Config) {
		c.Revocations = revocations(func(id Identity) bool { seen = id; return id.Epoch < 4 })
	})
	w.refused(t, w.bundle(t, caveat.ModeRotate), someClient, ErrRevoked)
	if seen.User != "@alice:example.org" || seen.Epoch != 3 {
		t.Errorf("asked about %+v", seen)
	}
}

// kinds is a Revocations that knows how sessions ended.
type kinds struct{ soft bool }

func (k kinds) Revoked(Identity) bool                     { panic("RevokedKind is called instead") }
func (k kinds) RevokedKind(Identity) (soft, revoked bool) { return k.soft, true }

// TestRevokedSaysHow: an error because of a revocation carries the kind of end. A
// kind that is not known is soft, which costs nobody a key.
func TestRevokedSaysHow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		revocations Revocations
		soft        bool
	}{
		"hard":     {kinds{false}, false},
		"soft":     {kinds{true}, true},
		"no kinds": {revocations(func(Identity) bool { return true }), true},
	} {
		w := newWorld(t, func(cfg *Config) { cfg.Revocations = c.revocations })
		_, err := w.Verify(context.Background(), w.bundle(t, caveat.ModeRotate), someClient)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrRevoked) || e.SoftLogout != c.soft {
			t.Errorf("%s: %+v", name, err)
		}
	}
	// A feed knows it from the event.
	for _, soft := range []bool{false, true} {
		f := follow(t)
		w := newWorld(t, func(cfg *Config) { cfg.Revocations = f })
		bundle := w.bundle(t, caveat.ModeRotate)
		id := w.accepted(t, bundle, someClient)
		r := f.session(1, time.Hour)
		r.Session, r.User, r.Device, r.Soft = id.Session, id.User, id.Device, soft
		f.send(t, r)
		_, err := w.Verify(context.Background(), bundle, someClient)
		var e *Error
		if !errors.As(err, &e) || e.SoftLogout != soft {
			t.Errorf("soft %v: %+v", soft, err)
		}
	}
}

func TestRefusedBundlesAreNotRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	access := w.mint(t, alice(caveat.ModeOpen))
	good := w.discharge(t, access, soon())
	elsewhere := narrowed(t, good, "client-ip 198.51.100.1")
	for _, text := range []string{"", "AQ", encode(t, access), encode(t, access, good), encode(t, access, bound(access, elsewhere))} {
		if _, err := w.Verify(context.Background(), text, someClient); err == nil {
			t.Fatal("accepted")
		}
	}
	if n := w.cache.size(); n != 0 {
		t.Errorf("%d bundles remembered", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newCache(64)
	v := &verified{}
	for i := range 5000 {
		c.put(fmt.Sprintf("%06d", i), v)
	}
	if n := c.size(); n == 0 || n > 64 {
		t.Errorf("%d bundles remembered, want 1 to 64", n)
	}
	if newCache(1).limit != 1 {
		t.Error("a cache for one remembers nothing")
	}
	var none *cache
	none.put("x", v)
	if none.get("x") != nil {
		t.Error("no cache remembers something")
	}
}

// Whatever is asked for stays while other things go.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	c := newCache(cacheShards * 8)
	v := &verified{}
	c.put("AAA", v)
	for i := range 10_000 {
		// All end alike, so all share a shard.
		c.put(fmt.Sprintf("%d AAA", i), &verified{})
		if i%2 == 0 && c.get("AAA") != v {
			t.Fatalf("forgotten after %d others", i)
		}
	}
}

func TestNoCache(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.CacheSize = -1 })
	text := w.bundle(t, caveat.ModeOpen)
	w.accepted(t, text, someClient)
	w.accepted(t, text, someClient)
	if w.cache != nil {
		t.Error("there is a cache")
	}
}

func TestVerifyConcurrently(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.CacheSize = 40 })
	var texts []string
	for range 100 {
		texts = append(texts, w.bundle(t, caveat.ModeRotate))
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 400 {
				text := texts[(i*7+worker*13)%len(texts)]
				id, err := w.Verify(context.Background(), text, someClient)
				if err != nil || id.Epoch != 3 {
					t.Errorf("%+v, %v", id, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := w.cache.size(); n > 40+cacheShards {
		t.Errorf("%d bundles remembered", n)
	}
}
