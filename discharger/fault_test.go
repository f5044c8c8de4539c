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

// faulty is a store whose next operations fail, before or after they took
// effect.
type faulty struct {
	store.Store
	load, swap bool // fail
	applied    bool // swap fails, but has taken effect
	race       func()
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
				w.later(time.Minute) // well past grace: only the request-id ties the attempts together
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

// TestRepeatedLogoutIsNoShortcut: that a session is seen to be over does not
// say that it will stay so. Only a write that succeeds does.
func TestRepeatedLogoutIsNoShortcut(t *testing.T) {
	t.Parallel()
	w, f := newFaultyWorld(t)
	f.applied = true
	for what, revoke := range map[string]func(*login, []byte) error{
		"logout":     func(l *login, tok []byte) error { return l.logout(discharger.ScopeSession, token(tok)) },
		"logout all": func(l *login, tok []byte) error { return l.logout(discharger.ScopeUser, token(tok)) },
		"revoke": func(l *login, _ []byte) error {
			return l.revokeBy(discharger.Order{})
		},
		"device": func(l *login, _ []byte) error {
			return w.revokeDevice(store.UserKey{Homeserver: l.homeserver, User: l.cond.User}, l.cond.Device, discharger.Order{})
		},
	} {
		w.later(time.Minute)
		l := w.login(caveat.ModeRotate)
		tok := l.must().RefreshToken
		f.swap = true
		for i := range 3 {
			if err := revoke(l, tok); !errors.Is(err, discharger.ErrUnavailable) {
				t.Errorf("%s, attempt %d: %v", what, i, err)
			}
		}
		f.swap = false
		for range 2 {
			if err := revoke(l, tok); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		l.refused(session.ReasonSessionEnded, token(tok))
	}
}

// TestLastUseIsNotWorthARefusal: a session in order is served even when the
// note of its use cannot be written.
func TestLastUseIsNotWorthARefusal(t *testing.T) {
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
		t.Error("the last use was not noted")
	}
}

// TestLostRaceStartsOver lets another request in between reading and writing.
func TestLostRaceStartsOver(t *testing.T) {
	t.Parallel()
	w, f := newFaultyWorld(t)
	l := w.login(caveat.ModeRotate)
	tok := l.must().RefreshToken
	var other *discharger.Grant
	f.race = func() { other = l.must(token(tok), requestID("other")) }
	mine := l.must(token(tok), requestID("mine"))
	if string(mine.RefreshToken) != string(other.RefreshToken) {
		t.Error("the loser of the race was given a successor of its own")
	}
	f.race = func() {
		if err := l.logout(discharger.ScopeSession, token(mine.RefreshToken)); err != nil {
			t.Error(err)
		}
	}
	l.refused(session.ReasonSessionEnded, token(mine.RefreshToken))
}

// TestLogoutIsNotOutrun has somebody refresh each time that the logout has read
// and not yet written, more often than a discharge would start over.
func TestLogoutIsNotOutrun(t *testing.T) {
	t.Parallel()
	w, f := newFaultyWorld(t)
	for what, end := range map[string]func(*login, []byte) error{
		"logout": func(l *login, tok []byte) error { return l.logout(discharger.ScopeSession, token(tok)) },
		"revoke": func(l *login, _ []byte) error {
			return l.revokeBy(discharger.Order{})
		},
	} {
		l := w.login(caveat.ModeRotate)
		first := l.must().RefreshToken
		left := 100
		var refresh func()
		refresh = func() { // each has a successor of its own
			l.must(token(first), at(netip.AddrFrom4([4]byte{203, 0, 113, byte(left)})))
			if left--; left > 0 {
				f.race = refresh
			}
		}
		f.race = refresh
		if err := end(l, first); err != nil || left != 0 {
			t.Errorf("%s: %v, with %d refreshes left", what, err, left)
		}
		l.over(session.ReasonSessionEnded, false, token(first))
	}
}

// TestCorruptRecordIsUndecided: what cannot be read is not "no session".
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
