package homeserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// A cached bundle decides nothing that depends on the time or
// the request.
func TestRememberedBundlesAreChecked(t *testing.T) {
	t.Parallel()
	var revoked atomic.Bool
	asked := 0
	w := newWorld(t, func(c *Config) {
		c.Revocations = revocations(func(Identity) bool { return revoked.Load() })
		c.Check = func(context.Context, Caveat) error { asked++; return nil }
	})
	access := w.mint(t, alice(caveat.ModeRotate))
	d := w.discharge(t, access, append(usual(caveat.ModeRotate), "client-ip 192.0.2.0/24", "moon-phase full")...)
	text := encode(t, access, bound(access, d))
	w.accepted(t, text, someClient)
	if _, ok := w.ring.Load().cache.Get(text); !ok {
		t.Fatal("not remembered")
	}
	for range 3 {
		w.accepted(t, text, someClient)
	}
	if asked != 4 {
		t.Errorf("Check was called %d times, want 4", asked)
	}
	w.refused(t, text, Request{ClientIP: netip.MustParseAddr("198.51.100.1")}, ErrNotMet)
	revoked.Store(true)
	w.refused(t, text, someClient, ErrRevoked)
	revoked.Store(false)
	w.accepted(t, text, someClient)

	data := mustDecode(t, text)
	data[len(data)-1] ^= 1
	w.refused(t, wire.EncodeBase64(data), someClient, ErrBadSignature)

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
		t.Errorf("called with %+v", seen)
	}
}

// kinds is a Revocations that records how sessions ended.
type kinds struct{ soft bool }

func (k kinds) Revoked(Identity) bool                     { panic("RevokedKind is called instead") }
func (k kinds) RevokedKind(Identity) (soft, revoked bool) { return k.soft, true }

// TestRevokedSaysHow: an error because of a revocation carries the kind of end. A
// unknown kind is soft, which keeps encryption keys.
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
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.Revocations = c.revocations })
			_, err := w.Verify(context.Background(), w.bundle(t, caveat.ModeRotate), someClient)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrRevoked) || e.Soft != c.soft || e.SoftLogout() != c.soft || e.StatusCode() != http.StatusUnauthorized {
				t.Errorf("%+v", err)
			}
		})
	}
	// A feed has it from the event.
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
		if !errors.As(err, &e) || e.SoftLogout() != soft {
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
	if n := w.ring.Load().cache.Len(); n != 0 {
		t.Errorf("%d bundles remembered", n)
	}
}

// Bundles that holders narrow take no more memory than they may, and of one
// session only some are remembered. All of them are verified all the same.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	const room = 1 << 20
	w := newWorld(t, func(c *Config) {
		c.CacheBytes = room
		c.Check = func(context.Context, Caveat) error { return nil }
	})
	whole := w.bundle(t, caveat.ModeRotate)
	long := strings.Repeat("x", defaultMaxCondition-10)
	narrow := func(access *macaroon.Macaroon, i, conditions int) string {
		access = access.Clone()
		for j := range conditions {
			if err := access.AddFirstPartyCaveat(fmt.Appendf(nil, "%d-%d %s", i, j, long)); err != nil {
				t.Fatal(err)
			}
		}
		return encode(t, access, bound(access, w.discharge(t, access, usual(caveat.ModeRotate)...)))
	}
	for range 40 {
		access := w.mint(t, alice(caveat.ModeRotate))
		for i := range 20 {
			w.accepted(t, narrow(access, i, defaultMaxConditions), someClient)
		}
		w.accepted(t, whole, someClient)
		if w.ring.Load().cache.Bytes() > room {
			t.Fatalf("%d bytes", w.ring.Load().cache.Bytes())
		}
	}
	if _, ok := w.ring.Load().cache.Get(whole); !ok {
		t.Error("a bundle in use was forgotten")
	}
	before := w.ring.Load().cache.Len()
	access := w.mint(t, alice(caveat.ModeRotate))
	for i := range 3 * bundlesOfSession {
		w.accepted(t, narrow(access, i, 1), someClient)
	}
	if w.ring.Load().cache.Len() > before+bundlesOfSession {
		t.Errorf("%d bundles of one session", w.ring.Load().cache.Len()-before)
	}
}

// Conditions of holders have bounds, for single access macaroons too.
func TestConditionsAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		conditions, bytes int
		change            func(*Config)
		want              error
	}{
		{"as many as there may be", defaultMaxConditions, 100, nil, nil},
		{"one more", defaultMaxConditions + 1, 100, nil, ErrMalformed},
		{"as long as it may be", 1, defaultMaxCondition, nil, nil},
		{"longer", 1, defaultMaxCondition + 1, nil, ErrMalformed},
		{"fewer allowed", 3, 100, func(c *Config) { c.MaxConditions = 2 }, ErrMalformed},
		{"shorter allowed", 1, 100, func(c *Config) { c.MaxCondition = 99 }, ErrMalformed},
		{"no bounds", 40, 40, func(c *Config) { c.MaxConditions, c.MaxCondition = -1, -1 }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(cfg *Config) {
				cfg.Check = func(context.Context, Caveat) error { return nil }
				if c.change != nil {
					c.change(cfg)
				}
			})
			access := w.mint(t, alice(caveat.ModeRotate))
			for range c.conditions {
				if err := access.AddFirstPartyCaveat(bytes.Repeat([]byte{'x'}, c.bytes)); err != nil {
					t.Fatal(err)
				}
			}
			text := encode(t, access, bound(access, w.discharge(t, access, usual(caveat.ModeRotate)...)))
			if c.want != nil {
				w.refused(t, text, someClient, c.want)
			} else {
				w.accepted(t, text, someClient)
			}
			if _, err := w.VerifyAccess(context.Background(), text, someClient); !errors.Is(err, c.want) {
				t.Errorf("access macaroon alone: %v", err)
			}
		})
	}
}

func TestNoCache(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.CacheBytes = -1 })
	text := w.bundle(t, caveat.ModeOpen)
	w.accepted(t, text, someClient)
	w.accepted(t, text, someClient)
	if w.ring.Load().cache != nil {
		t.Error("there is a cache")
	}
}

func TestVerifyConcurrently(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.CacheBytes = 64 << 10 })
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
	if n := w.ring.Load().cache.Bytes(); n > 64<<10 {
		t.Errorf("%d bytes remembered", n)
	}
}
