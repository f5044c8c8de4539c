package discharger_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

var errFault = errors.New("connection reset by peer")

// faulty is a store whose operations fail, before or after they took effect.
type faulty struct {
	store.Store
	load, swap bool   // fail
	applied    bool   // a failing swap has taken effect
	race       func() // called once, after a load
}

func (f *faulty) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, d revocation.DeviceTag) (store.View, error) {
	if f.load {
		return store.View{}, errFault
	}
	v, err := f.Store.Load(ctx, u, id, d)
	if race := f.race; race != nil {
		f.race = nil
		race()
	}
	return v, err
}

func (f *faulty) Swap(ctx context.Context, w store.Write) (bool, error) {
	if f.swap && !f.applied {
		return false, errFault
	}
	ok, err := f.Store.Swap(ctx, w)
	if f.swap {
		return false, errFault
	}
	return ok, err
}

func newFaultyWorld(t *testing.T) (*world, *faulty) {
	f := &faulty{}
	w := newWorld(t, func(c *discharger.Config) { f.Store, c.Store = c.Store, f })
	return w, f
}

func TestStoreFaultsAreUndecided(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"not applied": false, "applied": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, f := newFaultyWorld(t)
			f.applied = applied
			l := w.login(caveat.ModeRotate)
			fail := func(do func()) {
				f.swap = true
				do()
				f.swap = false
				w.later(time.Minute) // after the grace period only the request id identifies a retry
			}
			fail(func() { l.undecided(requestID("login")) })
			tok := l.must(requestID("login")).RefreshToken
			fail(func() { l.undecided(token(tok), requestID("a")) })
			next := l.must(token(tok), requestID("a")).RefreshToken
			next = l.must(token(next), requestID("b")).RefreshToken
			f.load = true
			l.undecided(token(next), requestID("c"))
			if err := l.logout(discharger.ScopeSession, token(next)); !errors.Is(err, discharger.ErrUnavailable) {
				t.Errorf("logout: %v", err)
			}
			f.load = false
			next = l.must(token(next), requestID("c")).RefreshToken
			fail(func() {
				if err := l.logout(discharger.ScopeSession, token(next)); !errors.Is(err, discharger.ErrUnavailable) {
					t.Errorf("logout: %v", err)
				}
			})
			if err := l.logout(discharger.ScopeSession, token(next)); err != nil {
				t.Errorf("logout again: %v", err)
			}
			l.refused(session.ReasonSessionEnded, token(next))
		})
	}
}

// TestRepeatedLogoutIsDurable tests that a revocation of an ended session succeeds only
// with a successful write: the tombstone that was read may not be durable.
func TestRepeatedLogoutIsDurable(t *testing.T) {
	t.Parallel()
	w, f := newFaultyWorld(t)
	f.applied = true
	for name, revoke := range map[string]func(*login, []byte) error{
		"logout":     func(l *login, tok []byte) error { return l.logout(discharger.ScopeSession, token(tok)) },
		"logout all": func(l *login, tok []byte) error { return l.logout(discharger.ScopeUser, token(tok)) },
		"revoke":     func(l *login, _ []byte) error { return l.revokeBy(discharger.Order{}) },
		"device": func(l *login, _ []byte) error {
			return w.revokeDevice(store.UserKey{Homeserver: l.homeserver, User: l.cond.User}, l.cond.Device, discharger.Order{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.later(time.Minute)
			l := w.login(caveat.ModeRotate)
			tok := l.must().RefreshToken
			f.swap = true
			for i := range 3 {
				if err := revoke(l, tok); !errors.Is(err, discharger.ErrUnavailable) {
					t.Errorf("attempt %d: %v", i, err)
				}
			}
			f.swap = false
			for range 2 {
				if err := revoke(l, tok); err != nil {
					t.Error(err)
				}
			}
			l.refused(session.ReasonSessionEnded, token(tok))
		})
	}
}

// TestLastUseMayBeLost tests that a session gets a discharge even if its last use cannot
// be stored.
func TestLastUseMayBeLost(t *testing.T) {
	t.Parallel()
	w, f := newFaultyWorld(t)
	l := w.login(caveat.ModeOpen)
	l.must()
	w.later(2 * time.Hour)
	f.swap = true
	l.unchanged(func() { l.must() })
	f.swap = false
	before := string(l.stored())
	l.must()
	if string(l.stored()) == before {
		t.Error("the last use was not stored")
	}
}

// TestLostRaceStartsOver runs another request between the load and the swap.
func TestLostRaceStartsOver(t *testing.T) {
	t.Parallel()
	w, f := newFaultyWorld(t)
	l := w.login(caveat.ModeRotate)
	tok := l.must().RefreshToken
	var other *discharger.Grant
	f.race = func() { other = l.must(token(tok), requestID("other")) }
	mine := l.must(token(tok), requestID("mine"))
	if string(mine.RefreshToken) != string(other.RefreshToken) {
		t.Error("the loser of the race got another successor")
	}
	f.race = func() {
		if err := l.logout(discharger.ScopeSession, token(mine.RefreshToken)); err != nil {
			t.Error(err)
		}
	}
	l.refused(session.ReasonSessionEnded, token(mine.RefreshToken))
}

// TestLogoutIsNotOutrun refreshes each time between the load and the swap of a logout,
// more often than a discharge would start over.
func TestLogoutIsNotOutrun(t *testing.T) {
	t.Parallel()
	w, f := newFaultyWorld(t)
	for name, end := range map[string]func(*login, []byte) error{
		"logout": func(l *login, tok []byte) error { return l.logout(discharger.ScopeSession, token(tok)) },
		"revoke": func(l *login, _ []byte) error { return l.revokeBy(discharger.Order{}) },
	} {
		t.Run(name, func(t *testing.T) {
			l := w.login(caveat.ModeRotate)
			first := l.must().RefreshToken
			left := 100
			var refresh func()
			refresh = func() { // each gets another successor
				l.must(token(first), at(netip.AddrFrom4([4]byte{203, 0, 113, byte(left)})))
				if left--; left > 0 {
					f.race = refresh
				}
			}
			f.race = refresh
			if err := end(l, first); err != nil || left != 0 {
				t.Errorf("%v, with %d refreshes left", err, left)
			}
			l.over(session.ReasonSessionEnded, false, token(first))
		})
	}
}

// TestCorruptRecordIsUndecided tests that an unreadable record is not taken for none.
func TestCorruptRecordIsUndecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeOpen)
	user := store.UserKey{Homeserver: l.homeserver, User: l.cond.User}
	ok, err := w.store.Swap(context.Background(), store.Write{User: user, Changes: []store.Change{
		{Session: l.cond.Session, New: []byte{0xff, 1, 2, 3}},
	}})
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	l.unchanged(func() { l.undecided() })
}
