package discharger_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/testkit"
)

func (l *login) own(opts ...option) (caveat.SessionID, []discharger.SessionInfo, error) {
	return l.w.service.OwnSessions(context.Background(), l.request(opts...))
}

func (l *login) revoke(other *login, opts ...option) error {
	return l.w.service.RevokeOwn(context.Background(), l.request(opts...), other.cond.Session)
}

// TestOwnSessions lists and ends sessions with a good refresh token, which stays good.
func TestOwnSessions(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, w *world) {
		a := w.login(caveat.ModeRotate)
		tok := a.must().RefreshToken
		tok = a.must(token(tok)).RefreshToken
		b, stranger := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.User = "@bob:a.example" })
		b.must()
		stranger.must()
		a.unchanged(func() {
			for range 3 {
				id, list, err := a.own(token(tok))
				if err != nil || id != a.cond.Session || len(list) != 2 {
					t.Fatalf("%v: %v, %+v", err, id, list)
				}
			}
		})
		n := w.published(0)
		testkit.NoError(t, a.revoke(stranger, token(tok)))
		w.published(n)
		stranger.must()
		testkit.NoError(t, a.revoke(w.login(caveat.ModeOpen), token(tok)))
		w.published(n)
		for range 2 {
			testkit.NoError(t, a.revoke(b, token(tok)))
			w.published(n, b.ended(revocation.CauseLogout, false))
		}
		b.refused(session.ReasonSessionEnded)
		tok = a.must(token(tok)).RefreshToken
		testkit.NoError(t, a.revoke(a, token(tok)))
		w.published(n, b.ended(revocation.CauseLogout, false), a.ended(revocation.CauseLogout, false))
		a.refused(session.ReasonSessionEnded, token(tok))
		testkit.NoError(t, a.revoke(a, token(tok))) // again
		if _, _, err := a.own(token(tok)); !isRefusal(err, session.ReasonSessionEnded) {
			t.Errorf("after the end: %v", err)
		}
		if err := a.revoke(stranger, token(tok)); !isRefusal(err, session.ReasonSessionEnded) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func isRefusal(err error, want session.Reason) bool {
	var r *discharger.Refusal
	return errors.As(err, &r) && r.Reason == want && !errors.Is(err, discharger.ErrUnavailable)
}

// TestOwnSessionsNeedProof presents credentials, sufficient and not. None of them changes
// a session.
func TestOwnSessionsNeedProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rotating, held := w.login(caveat.ModeRotate), w.login(caveat.ModeHeld)
	first := rotating.must().RefreshToken
	live := rotating.must(token(rotating.must(token(first)).RefreshToken)).RefreshToken
	held.must(homeserver("a.example"))
	w.later(time.Hour)
	for name, c := range map[string]struct {
		login *login
		opts  []option
		want  session.Reason // "": sufficient
	}{
		"no token":            {rotating, nil, session.ReasonTokenRequired},
		"a forged token":      {rotating, []option{token(append([]byte(nil), first[:len(first)-1]...))}, ""},
		"an old token":        {rotating, []option{token(first)}, session.ReasonTokenSuperseded},
		"one from elsewhere":  {rotating, []option{token(first), at(away)}, session.ReasonTokenSuperseded},
		"the live token":      {rotating, []option{token(live)}, ""},
		"held, from a client": {held, nil, session.ReasonHomeserverRequired},
		"held, another's key": {held, []option{homeserver("b.example")}, session.ReasonHomeserverRequired},
		"held, with the key":  {held, []option{homeserver("a.example")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.login.unchanged(func() {
				_, list, err := c.login.own(c.opts...)
				switch {
				case name == "a forged token":
					if err == nil || len(list) > 0 {
						t.Errorf("%v, %d sessions", err, len(list))
					}
				case c.want == "" && (err != nil || len(list) != 2):
					t.Errorf("%v, %d sessions", err, len(list))
				case c.want != "" && (!isRefusal(err, c.want) || len(list) > 0):
					t.Errorf("%v, %d sessions", err, len(list))
				}
				if err := c.login.revoke(w.login(caveat.ModeOpen), c.opts...); (err == nil) != (c.want == "" && name != "a forged token") {
					t.Errorf("revoke: %v", err)
				}
			})
		})
	}
	w.published(0)
	rotating.must(token(live))
}

// TestOwnSessionNotActivated ends a session before its first discharge.
func TestOwnSessionNotActivated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeOpen)
	if _, _, err := l.own(); !isRefusal(err, session.ReasonHomeserverRequired) {
		t.Errorf("the caveat alone: %v", err)
	}
	if _, list, err := l.own(homeserver("a.example")); err != nil || len(list) != 0 {
		t.Errorf("%v, %d sessions", err, len(list))
	}
	testkit.NoError(t, l.revoke(l))
	l.refused(session.ReasonSessionEnded)
	w.published(0, l.ended(revocation.CauseLogout, false))
}
