package discharger_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/testkit"
)

func TestOpenSession(t *testing.T) {
	t.Parallel()
	for _, version := range []caveat.Version{caveat.V1, caveat.V2, caveat.V3} {
		t.Run(fmt.Sprint("V", version), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			l := w.login(caveat.ModeOpen)
			l.version = version
			l.seal()
			g := l.must()
			if g.ExpiresIn != 5*time.Minute || !g.Expires.Equal(w.now.Add(5*time.Minute)) || g.RefreshToken != nil {
				t.Errorf("got %+v", g)
			}
			if got, want := l.check(g), []string{"time-before " + w.now.Add(5*time.Minute).Format(time.RFC3339)}; !slices.Equal(got, want) {
				t.Errorf("conditions %q, want %q", got, want)
			}
			l.must(identifier("a short id"))
			w.later(time.Hour)
			l.must()
			testkit.NoError(t, l.logout(discharger.ScopeSession))
			l.over(session.ReasonSessionEnded, false)
			if err := l.logout(discharger.ScopeSession); err != nil {
				t.Errorf("repeated: %v", err)
			}
			w.later(89 * 24 * time.Hour)
			l.over(session.ReasonSessionEnded, false)
			w.later(2 * 24 * time.Hour) // the tombstone is gone
			l.over(session.ReasonSessionEnded, true)
			if err := l.logout(discharger.ScopeSession); err != nil {
				t.Errorf("repeated late: %v", err)
			}
		})
	}
}

func TestRotatingSession(t *testing.T) {
	t.Parallel()
	eachStore(t, rotatingSession)
}

func rotatingSession(t *testing.T, w *world) {
	l := w.login(caveat.ModeRotate)
	g := l.must(requestID("1"))
	if g.Epoch != 1 || g.RefreshToken == nil {
		t.Fatalf("got %+v", g)
	}
	if got := l.check(g); len(got) != 2 || got[1] != "declared epoch 1" {
		t.Errorf("conditions %q", got)
	}
	first := g.RefreshToken
	for n := uint64(2); n < 5; n++ {
		w.later(4 * time.Minute)
		g = l.must(token(g.RefreshToken))
		if g.Epoch != n {
			t.Fatalf("epoch %d, want %d", g.Epoch, n)
		}
	}
	l.alive(session.ReasonTokenRequired)
	l.alive(session.ReasonTokenSuperseded, token(first))
	g = l.must(token(g.RefreshToken))
	l.over(session.ReasonTokenReused, true, token(first), at(away))
	l.over(session.ReasonTokenReused, true, token(g.RefreshToken))
}

func TestHeldSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeHeld)
	l.alive(session.ReasonHomeserverRequired)
	l.alive(session.ReasonHomeserverRequired, homeserver("b.example"))
	l.must(homeserver("a.example"))
	l.unchanged(func() {
		if err := l.logout(discharger.ScopeSession, homeserver("b.example")); err == nil {
			t.Error("another homeserver logged the session out")
		}
	})
	testkit.NoError(t, l.logout(discharger.ScopeSession, homeserver("a.example")))
	l.refused(session.ReasonSessionEnded, homeserver("a.example"))
}

// TestHomeserversAreSeparate has the same user and session at two homeservers.
func TestHomeserversAreSeparate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.login(caveat.ModeRotate)
	b := w.login(caveat.ModeRotate, func(c *caveat.Condition) { *c = a.cond })
	b.homeserver = "b.example"
	b.seal()
	ga, gb := a.must(), b.must()
	b.unchanged(func() {
		b.refused(session.ReasonTokenInvalid, token(ga.RefreshToken))
		testkit.NoError(t, a.logout(discharger.ScopeUser, token(ga.RefreshToken)))
	})
	a.refused(session.ReasonSessionEnded, token(ga.RefreshToken))
	b.must(token(gb.RefreshToken))
}

func TestLogoutEverywhere(t *testing.T) {
	t.Parallel()
	eachStore(t, logoutEverywhere)
}

func logoutEverywhere(t *testing.T, w *world) {
	a, b, unused := w.login(caveat.ModeOpen), w.login(caveat.ModeRotate), w.login(caveat.ModeOpen)
	other := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.User = "@bob:a.example" })
	a.must()
	gb := b.must()
	other.must()
	w.later(time.Second)
	if err := a.logout(discharger.ScopeUser); !isRefusal(err, session.ReasonHomeserverRequired) {
		t.Fatalf("the caveat alone ended the user's sessions: %v", err)
	}
	if err := b.logout(discharger.ScopeUser); !isRefusal(err, session.ReasonTokenRequired) {
		t.Fatalf("the caveat alone ended the user's sessions: %v", err)
	}
	a.must()
	testkit.NoError(t, b.logout(discharger.ScopeUser, token(gb.RefreshToken)))
	a.over(session.ReasonSessionEnded, false)
	b.over(session.ReasonSessionEnded, false, token(gb.RefreshToken))
	unused.over(session.ReasonSessionEnded, false)
	other.must()
	w.pastMarks()
	again := w.login(caveat.ModeOpen)
	again.must()
	if err := b.logout(discharger.ScopeUser, token(gb.RefreshToken)); err != nil {
		t.Errorf("repeated: %v", err)
	}
	again.must() // the repetition ended no later session
}

func TestTTLIsWithinAllLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	short := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.MaxTTL = 30 * time.Second })
	if g := short.must(); g.ExpiresIn != 30*time.Second {
		t.Errorf("max_ttl: %v", g.ExpiresIn)
	}
	ending := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.Expires = c.Minted + 90_000 })
	if g := ending.must(); g.ExpiresIn != 90*time.Second {
		t.Errorf("expires: %v", g.ExpiresIn)
	}
	w.later(90 * time.Second)
	ending.over(session.ReasonSessionExpired, true)
	l := w.login(caveat.ModeRotate)
	narrow := attenuate(t, l.must().RefreshToken, "time-before "+w.now.Add(time.Minute).Format(time.RFC3339))
	if g := l.must(token(narrow)); g.ExpiresIn > time.Minute {
		t.Errorf("token's time-before: %v", g.ExpiresIn)
	}
}

// attenuate adds caveats to a refresh token.
func attenuate(t testing.TB, b []byte, caveats ...string) []byte {
	t.Helper()
	var m macaroon.Macaroon
	testkit.NoError(t, m.UnmarshalBinary(b))
	for _, c := range caveats {
		testkit.NoError(t, m.AddFirstPartyCaveat([]byte(c)))
	}
	out, err := m.MarshalBinary()
	testkit.NoError(t, err)
	return out
}

func TestRefreshTokenRestrictions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeRotate)
	first := l.must().RefreshToken
	soon := w.now.Add(time.Hour).Format(time.RFC3339Nano)
	for name, caveats := range map[string][]string{
		"expired":           {"time-before " + w.now.Format(time.RFC3339Nano)},
		"not a time":        {"time-before tomorrow"},
		"elsewhere":         {"client-ip 192.0.2.1"},
		"other network":     {"client-ip 192.0.2.0/24"},
		"not an address":    {"client-ip here"},
		"unknown":           {"room !x:example.org"},
		"empty":             {""},
		"another epoch":     {"epoch 7"},
		"another session":   {"session AAAAAAAAAAAAAAAAAAAAAA"},
		"one good, one bad": {"time-before " + soon, "client-ip 192.0.2.1"},
		"too many":          slices.Repeat([]string{"time-before " + soon}, 40),
	} {
		t.Run(name, func(t *testing.T) {
			l.unchanged(func() {
				g, err := l.discharge(token(attenuate(t, first, caveats...)))
				if g != nil || err == nil || errors.Is(err, discharger.ErrUnavailable) {
					t.Errorf("got %v, %v", g, err)
				}
			})
		})
	}
	narrow := attenuate(t, first, "time-before "+soon, "client-ip 203.0.113.0/24")
	next := l.must(token(narrow)).RefreshToken
	l.alive(session.ReasonTokenInvalid, token(next), at(away))
	w.later(time.Hour)
	l.alive(session.ReasonTokenInvalid, token(next)) // the successor has the same caveats
}

func TestForgedRefreshTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, other := w.login(caveat.ModeRotate), w.login(caveat.ModeRotate)
	good := l.must().RefreshToken
	foreign := other.must().RefreshToken
	l.unchanged(func() {
		l.alive(session.ReasonTokenInvalid, token(foreign))
		for i := range good {
			for bit := range 8 {
				bad := slices.Clone(good)
				bad[i] ^= 1 << bit
				if g, err := l.discharge(token(bad)); g != nil || err == nil {
					t.Fatalf("bit %d of byte %d flipped: accepted", bit, i)
				}
			}
			if g, err := l.discharge(token(good[:i])); i > 0 && (g != nil || !errors.Is(err, discharger.ErrBadRequest)) {
				t.Fatalf("first %d bytes: %v, %v", i, g, err)
			}
		}
		if _, err := l.discharge(token([]byte(strings.Repeat("x", 1<<20)))); !errors.Is(err, discharger.ErrBadRequest) {
			t.Errorf("huge: %v", err)
		}
	})
	l.must(token(good))
}

// TestUnknownTokenKeyIsUndecided presents a token with an unknown key, which another
// process may have, and one with a retired key, whose session is over.
func TestUnknownTokenKeyIsUndecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeRotate)
	good := l.must().RefreshToken
	fresh, err := discharger.NewRefreshKey(nil)
	testkit.NoError(t, err)
	l.unchanged(func() { l.undecided(token(swapKeyID(good, fresh))) })
	aware := newWorld(t, func(c *discharger.Config) { c.RetiredKeys = [][4]byte{fresh.ID()} })
	l = aware.login(caveat.ModeRotate)
	good = l.must().RefreshToken
	l.unchanged(func() { l.over(session.ReasonSessionEnded, true, token(swapKeyID(good, fresh))) })
	l.must(token(good))
}

func swapKeyID(b []byte, k discharger.RefreshKey) []byte {
	out := slices.Clone(b)
	id := k.ID()
	i := slices.Index(out, 0x01) // the identifier's version byte
	copy(out[i+1:], id[:])
	return out
}

// TestOneTokenManyClients refreshes 64 times at once with one token: all requests get
// the same successor.
func TestOneTokenManyClients(t *testing.T) {
	t.Parallel()
	eachStore(t, oneTokenManyClients)
}

func oneTokenManyClients(t *testing.T, w *world) {
	const clients = 64
	for round := range 5 {
		l := w.login(caveat.ModeRotate)
		first := l.must().RefreshToken
		grants := make([]*discharger.Grant, clients)
		errs := make([]error, clients)
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() { grants[i], errs[i] = l.discharge(token(first), requestID(fmt.Sprint(i))) })
		}
		wg.Wait()
		for i := range clients {
			if errs[i] != nil {
				t.Fatalf("round %d, client %d: %v", round, i, errs[i])
			}
			if string(grants[i].RefreshToken) != string(grants[0].RefreshToken) {
				t.Fatalf("round %d: client %d got another successor", round, i)
			}
		}
		l.must(token(grants[0].RefreshToken))
	}
}

// TestLogoutWinsRace tests that no refresh succeeds after a logout was acknowledged.
func TestLogoutWinsRace(t *testing.T) {
	t.Parallel()
	eachStore(t, logoutWinsRace)
}

func logoutWinsRace(t *testing.T, w *world) {
	for range 50 {
		l := w.login(caveat.ModeRotate)
		tok := l.must().RefreshToken
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			defer close(done)
			if err := l.logout(discharger.ScopeSession, token(tok)); err != nil {
				t.Error(err)
			}
		})
		for i := range 4 {
			from := at(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})) // each gets another successor
			wg.Go(func() {
				for {
					over := false
					select {
					case <-done:
						over = true
					default:
					}
					_, err := l.discharge(token(tok), from)
					if over {
						if err == nil {
							t.Error("refreshed after the logout was acknowledged")
						}
						return
					}
					if err != nil {
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestBadCaveats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeOpen)
	for name, r := range map[string]*discharger.Request{
		"nothing":          {},
		"empty caveat":     {CaveatID: []byte("x"), Caveat: []byte{}},
		"garbage":          {CaveatID: []byte("garbage")},
		"truncated":        {CaveatID: l.caveat[:len(l.caveat)-1]},
		"not a session":    {CaveatID: sealText(w, "is-authenticated-user")},
		"broken condition": {CaveatID: sealText(w, `session {"id":1}`)},
		"huge identifier":  {CaveatID: make([]byte, 1<<20), Caveat: l.caveat},
		"no identifier":    {Caveat: l.caveat},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := w.service.Discharge(context.Background(), r)
			if g != nil || !errors.Is(err, discharger.ErrBadRequest) {
				t.Errorf("got %v, %v", g, err)
			}
		})
	}
	if l.stored() != nil {
		t.Error("a bad request made a record")
	}
}

func sealText(w *world, condition string) []byte {
	b, err := caveat.Seal(caveat.SealParams{
		Version: caveat.V2, Homeserver: w.hs["a.example"], Discharger: w.keys.Public,
		RootKey: []byte(rootKey), Condition: condition,
	})
	testkit.NoError(w.t, err)
	return b
}

func TestCaveatFromTheFutureIsUndecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.Minted += time.Hour.Milliseconds() })
	l.undecided()
	if l.stored() != nil {
		t.Error("an undecided request made a record")
	}
	w.later(time.Hour)
	l.must()
}

func TestSeenAndRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeRotate)
	user := store.UserKey{Homeserver: l.homeserver, User: l.cond.User}
	ctx := context.Background()
	first := l.must()
	testkit.NoError(t, w.service.Seen(ctx, user, l.cond.Session, 1))
	l.refused(session.ReasonTokenRequired)
	second := l.must(token(first.RefreshToken))
	for _, stale := range []uint64{0, 1, 99} {
		l.unchanged(func() {
			testkit.NoError(t, w.service.Seen(ctx, user, l.cond.Session, stale))
		})
	}
	testkit.NoError(t, l.revokeBy(discharger.Order{}))
	l.refused(session.ReasonSessionEnded, token(second.RefreshToken))
	unused := w.login(caveat.ModeOpen)
	testkit.NoError(t, unused.revokeBy(discharger.Order{}))
	unused.refused(session.ReasonSessionEnded)
}
