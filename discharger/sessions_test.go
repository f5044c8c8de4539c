package discharger_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/testkit"
)

func alice(homeserver string) store.UserKey {
	return store.UserKey{Homeserver: homeserver, User: "@alice:a.example"}
}

func (w *world) sessions(user store.UserKey) []discharger.SessionInfo {
	w.t.Helper()
	list, err := w.service.Sessions(context.Background(), user)
	testkit.NoError(w.t, err)
	return list
}

func TestSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if got := w.sessions(alice("a.example")); len(got) != 0 {
		t.Errorf("before a login: %+v", got)
	}
	a := w.login(caveat.ModeRotate, func(c *caveat.Condition) { c.Policy = "bots" })
	g := a.must()
	w.later(time.Minute)
	b := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.Device = "LAPTOP" })
	b.must(at(away), client("curl/8"))
	gone := w.login(caveat.ModeOpen)
	gone.must()
	testkit.NoError(t, gone.logout(discharger.ScopeSession))
	got := w.sessions(alice("a.example"))
	if len(got) != 2 || got[0].ID != b.cond.Session || got[1].ID != a.cond.Session {
		t.Fatalf("got %+v", got)
	}
	if s := got[0]; s.Device != "LAPTOP" || s.Mode != caveat.ModeOpen || s.Last.Addr != away || s.Last.Client != "curl" || !s.Created.Equal(w.now) {
		t.Errorf("got %+v", s)
	}
	if s := got[1]; s.Device != "PHONE" || s.Policy != "bots" || s.Epoch != 0 || !s.LastUsed.Equal(w.now.Add(-time.Minute)) {
		t.Errorf("got %+v", s)
	}
	a.must(token(g.RefreshToken), at(away))
	if s := w.sessions(alice("a.example")); s[0].ID != a.cond.Session && s[1].ID != a.cond.Session || s[0].Last.Addr != away {
		t.Errorf("got %+v", s)
	}
	if got := w.sessions(alice("b.example")); len(got) != 0 {
		t.Errorf("another homeserver sees %+v", got)
	}
	w.later(721 * time.Hour)
	if got := w.sessions(alice("a.example")); len(got) != 0 {
		t.Errorf("idle for too long: %+v", got)
	}
}

// TestSessionsOrder tests that uses within one second are ordered in mode rotate.
func TestSessionsOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []*login
	for range 8 {
		all = append(all, w.login(caveat.ModeRotate))
	}
	for _, l := range all {
		g := l.must()
		w.later(time.Millisecond)
		l.must(token(g.RefreshToken))
		w.later(time.Millisecond)
	}
	for i, got := range w.sessions(alice("a.example")) {
		if want := all[len(all)-1-i].cond.Session; got.ID != want {
			t.Errorf("place %d: got %v, want %v", i, got.ID, want)
		}
	}
}

func TestRevokeUserButOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keep, other, unused := w.login(caveat.ModeRotate), w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
	g := keep.must()
	other.must()
	for range 2 { // a repetition changes nothing
		w.later(time.Second)
		testkit.NoError(t, w.revokeUser(alice("a.example"), but(keep)))
		other.refused(session.ReasonSessionEnded)
		unused.refused(session.ReasonSessionEnded)
		g = keep.must(token(g.RefreshToken))
		if got := w.sessions(alice("a.example")); len(got) != 1 || got[0].ID != keep.cond.Session {
			t.Errorf("left: %+v", got)
		}
	}
	w.later(time.Second)
	testkit.NoError(t, w.revokeUser(alice("a.example"), discharger.Order{}))
	keep.refused(session.ReasonSessionEnded, token(g.RefreshToken))
	dead := keep.cond.Session
	testkit.NoError(t, w.revokeUser(alice("a.example"), discharger.Order{Except: dead}))
	keep.refused(session.ReasonSessionEnded, token(g.RefreshToken)) // being excepted does not bring it back
	w.later(time.Second)
	w.login(caveat.ModeOpen).must()
}

func TestRevokeDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old, fresh, laptop := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen, device("PHONE")), w.login(caveat.ModeOpen, device("LAPTOP"))
	fresh.must()
	laptop.must()
	testkit.NoError(t, w.revokeDevice(alice("a.example"), "PHONE", but(fresh)))
	old.over(session.ReasonSessionEnded, false) // not activated
	fresh.must()
	laptop.must()
	testkit.NoError(t, w.revokeDevice(alice("a.example"), "PHONE", discharger.Order{}))
	fresh.refused(session.ReasonSessionEnded)
	laptop.must()
}

func TestRevokeHomeserver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, bob := w.login(caveat.ModeRotate), w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.User = "@bob:a.example" })
	other := w.login(caveat.ModeOpen)
	other.homeserver = "b.example"
	other.seal()
	unused := w.login(caveat.ModeOpen)
	g := a.must()
	bob.must()
	other.must()
	w.later(time.Second)
	testkit.NoError(t, w.service.RevokeHomeserver(context.Background(), "a.example", discharger.Order{}))
	a.refused(session.ReasonSessionEnded, token(g.RefreshToken))
	bob.refused(session.ReasonSessionEnded)
	unused.refused(session.ReasonSessionEnded)
	other.must()
	if got := w.sessions(alice("a.example")); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	w.later(time.Second)
	w.login(caveat.ModeOpen).must()
}

func TestRevocationsUnderFaults(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"not applied": false, "applied": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, f := newFaultyWorld(t)
			l := w.login(caveat.ModeOpen)
			l.must()
			w.later(time.Second)
			f.swap, f.applied = true, applied
			for _, err := range []error{
				w.revokeUser(alice("a.example"), discharger.Order{}),
				w.revokeDevice(alice("a.example"), "PHONE", discharger.Order{}),
				w.login(caveat.ModeOpen).revokeBy(discharger.Order{}),
			} {
				if !errors.Is(err, discharger.ErrUnavailable) {
					t.Errorf("got %v", err)
				}
			}
			f.swap = false
			if err := w.revokeUser(alice("a.example"), discharger.Order{}); err != nil {
				t.Error(err)
			}
			l.refused(session.ReasonSessionEnded)
		})
	}
}
