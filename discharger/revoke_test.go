package discharger_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/testkit"
)

// TestRevokeSoftly revokes sessions softly. A later hard revocation does not change
// their end.
func TestRevokeSoftly(t *testing.T) {
	t.Parallel()
	soft := discharger.Order{Soft: true}
	for name, revoke := range map[string]func(*world, *login, discharger.Order) error{
		"session": func(_ *world, l *login, o discharger.Order) error { return l.revokeBy(o) },
		"device":  func(w *world, l *login, o discharger.Order) error { return w.revokeDevice(l.user(), l.cond.Device, o) },
		"user":    func(w *world, l *login, o discharger.Order) error { return w.revokeUser(l.user(), o) },
		"homeserver": func(w *world, _ *login, o discharger.Order) error {
			err := w.service.RevokeHomeserver(context.Background(), "a.example", o)
			w.later(2 * time.Second) // a cached record is too old now
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, w *world) {
				l := w.login(caveat.ModeOpen)
				l.must()
				testkit.NoError(t, revoke(w, l, soft))
				l.over(session.ReasonSessionEnded, true)
				testkit.NoError(t, revoke(w, l, discharger.Order{}))
				l.over(session.ReasonSessionEnded, true)
				if name == "session" {
					return
				}
				w.pastMarks()
				l = w.login(caveat.ModeOpen)
				l.must()
				testkit.NoError(t, revoke(w, l, discharger.Order{}))
				l.over(session.ReasonSessionEnded, false)
			})
		})
	}
}

// TestRevokedCounts tests the result of a revocation: that of an unknown name must not
// look like a success.
func TestRevokedCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, user := context.Background(), alice("a.example")
	phone, laptop := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen, device("LAPTOP"))
	phone.must()
	laptop.must()
	stranger := store.UserKey{Homeserver: "a.example", User: "@Alice:a.example"}
	check := func(what string, got discharger.Revoked, err error, want discharger.Revoked) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	got, err := w.service.RevokeUser(ctx, stranger, discharger.Order{})
	check("unknown user", got, err, discharger.Revoked{Marked: true})
	got, err = w.service.RevokeDevice(ctx, user, "phone", discharger.Order{})
	check("unknown device", got, err, discharger.Revoked{Marked: true})
	got, err = w.service.Revoke(ctx, user, caveat.SessionID{9}, discharger.Order{})
	check("unknown session", got, err, discharger.Revoked{Marked: true})
	got, err = w.service.RevokeDevice(ctx, user, "PHONE", discharger.Order{})
	check("device", got, err, discharger.Revoked{Ended: 1, Known: true, Marked: true})
	got, err = w.service.Revoke(ctx, user, laptop.cond.Session, discharger.Order{})
	check("session", got, err, discharger.Revoked{Ended: 1, Known: true})
	got, err = w.service.Revoke(ctx, user, laptop.cond.Session, discharger.Order{})
	check("session again", got, err, discharger.Revoked{Known: true})
	got, err = w.service.RevokeUser(ctx, user, discharger.Order{})
	check("user without live sessions", got, err, discharger.Revoked{Known: true, Marked: true})
	for name, err := range map[string]error{
		"no device":  w.revokeDevice(user, "", discharger.Order{}),
		"no session": errOf(w.service.Revoke(ctx, user, caveat.SessionID{}, discharger.Order{})),
	} {
		t.Run(name, func(t *testing.T) {
			if !errors.Is(err, discharger.ErrBadRequest) {
				t.Error(err)
			}
		})
	}
}

func errOf(_ discharger.Revoked, err error) error { return err }

// TestRevokeSpares tests the sessions that an order spares.
func TestRevokeSpares(t *testing.T) {
	t.Parallel()
	type sessions struct{ old, young, none *login }
	setUp := func(t *testing.T) (*world, sessions) {
		w := newWorld(t)
		s := sessions{w.login(caveat.ModeOpen), nil, w.login(caveat.ModeOpen, device(""))}
		s.old.must()
		s.none.must()
		w.later(10 * time.Minute)
		s.young = w.login(caveat.ModeOpen, device("YOUNG"))
		s.young.must()
		w.later(10 * time.Second)
		return w, s
	}
	user := alice("a.example")
	for name, c := range map[string]struct {
		order      func(s sessions) discharger.Order
		old, young bool // live on
		none       bool
	}{
		"nothing":              {func(sessions) discharger.Order { return discharger.Order{} }, false, false, false},
		"one session":          {func(s sessions) discharger.Order { return but(s.old) }, true, false, false},
		"one device":           {func(sessions) discharger.Order { return discharger.Order{ExceptDevice: "YOUNG"} }, false, true, false},
		"sessions without one": {func(sessions) discharger.Order { return discharger.Order{Devices: true} }, false, false, true},
		"later sessions":       {func(sessions) discharger.Order { return discharger.Order{Age: time.Minute} }, false, true, false},
		"all by age":           {func(sessions) discharger.Order { return discharger.Order{Age: time.Hour} }, true, true, true},
	} {
		t.Run("user/"+name, func(t *testing.T) {
			t.Parallel()
			w, s := setUp(t)
			testkit.NoError(t, w.revokeUser(user, c.order(s)))
			for _, x := range []struct {
				l    *login
				live bool
			}{{s.old, c.old}, {s.young, c.young}, {s.none, c.none}} {
				if x.live {
					x.l.must()
				} else {
					x.l.over(session.ReasonSessionEnded, false)
				}
			}
		})
	}
	t.Run("device/later sessions", func(t *testing.T) {
		t.Parallel()
		w, s := setUp(t)
		testkit.NoError(t, w.revokeDevice(user, "YOUNG", discharger.Order{Age: time.Minute}))
		s.young.must()
		testkit.NoError(t, w.revokeDevice(user, "YOUNG", discharger.Order{}))
		s.young.over(session.ReasonSessionEnded, false)
		s.old.must()
	})
	t.Run("a session whose record was lost", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		kept := w.login(caveat.ModeRotate)
		tok := kept.must().RefreshToken
		kept.lose()
		w.later(time.Second)
		testkit.NoError(t, w.revokeUser(user, but(kept)))
		kept.must(token(tok))
		testkit.NoError(t, w.revokeDevice(user, "PHONE", but(kept)))
	})
}

// TestRevokeWithEpoch tests that a revocation with an epoch requires the newest one or
// the one before.
func TestRevokeWithEpoch(t *testing.T) {
	t.Parallel()
	for epoch, want := range map[uint64]bool{1: false, 2: false, 3: true, 4: true, 9: true} {
		t.Run(fmt.Sprint("epoch ", epoch), func(t *testing.T) {
			w := newWorld(t)
			l := w.login(caveat.ModeRotate)
			tok := l.must().RefreshToken
			for range 3 {
				tok = l.must(token(tok)).RefreshToken
			}
			err := l.revokeBy(discharger.Order{Epoch: epoch})
			if ok := err == nil; ok != want || !ok && !isRefusal(err, session.ReasonTokenSuperseded) {
				t.Error(err)
			}
			if want {
				l.over(session.ReasonSessionEnded, false, token(tok))
			} else {
				l.must(token(tok))
			}
		})
	}
}

// TestEndByTimeIsStored presents a session that has just expired to list and end the
// user's: the refusal reports an end, which stays after the clock is set back.
func TestEndByTimeIsStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, call := range map[string]func(*login, []byte) error{
		"list": func(l *login, tok []byte) error { _, _, err := l.own(token(tok)); return err },
		"end":  func(l *login, tok []byte) error { return l.revoke(w.login(caveat.ModeOpen), token(tok)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := w.login(caveat.ModeRotate, func(c *caveat.Condition) { c.Expires = c.Minted + time.Hour.Milliseconds() })
			tok := l.must().RefreshToken
			w.later(time.Hour)
			if err := call(l, tok); !isRefusal(err, session.ReasonSessionExpired) {
				t.Error(err)
			}
			w.later(-30 * time.Minute)
			l.over(session.ReasonSessionExpired, true, token(tok))
		})
	}
}
