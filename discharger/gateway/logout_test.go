package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
	"github.com/discharger/discharger/policy"
)

// denying makes the service's policy deny while *deny is set.
func denying(deny *bool) func(*world) {
	return func(w *world) {
		w.policy = func(*policy.Input) policy.Decision {
			if *deny {
				return policy.Decision{Effect: policy.EffectDeny, Code: "no", Message: "not now"}
			}
			return policy.Decision{Effect: policy.EffectAllow}
		}
	}
}

// A logout needs no unexpired discharge. In mode rotate the expired token must be of
// the newest epoch or the one before.
func TestLogoutWithExpired(t *testing.T) {
	t.Parallel()
	t.Run("held", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		token := w.login(false, anyMap{"device_id": "ONE"}).text("access_token")
		w.forward(2 * testTTL)
		w.want(w.do("POST", upstream.PathLogout, token, anyMap{}), 200, "")
		if w.hs.alive("ONE") || w.sessions() != 0 {
			t.Error("device is still there")
		}
		if a := w.want(w.do("POST", upstream.PathLogout, token, anyMap{}), 401, matrix.CodeUnknownToken); a.soft() {
			t.Errorf("again: %s", a.raw)
		}
	})
	for behind := range 3 {
		t.Run(fmt.Sprintf("rotate, %d behind", behind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			in := w.login(true, anyMap{"device_id": "ONE"})
			token := in.text("access_token")
			for range behind {
				in = w.works("the session", in)
			}
			w.forward(2 * testTTL)
			a := w.do("POST", upstream.PathLogout, token, anyMap{})
			if behind < 2 {
				w.want(a, 200, "")
				if w.hs.alive("ONE") || w.sessions() != 0 {
					t.Error("device is still there")
				}
				return
			}
			if w.want(a, 401, matrix.CodeUnknownToken); !a.soft() || strings.Contains(string(a.raw), "is over") {
				t.Errorf("old copy: %s", a.raw)
			}
			if w.hs.loggedOut() > 0 {
				t.Error("old copy logged the device out")
			}
			w.works("the session", w.want(w.refresh(in.text("refresh_token")), 200, ""))
		})
	}
}

// During an outage of the service, a logout with an unexpired token succeeds, and the
// device is logged out once the service has decided; one with an expired token is 503.
func TestLogoutWithServiceDown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		refresh, late bool
		status        int
	}{
		{"held", false, false, 200},
		{"held, expired", false, true, 200},
		{"rotate", true, false, 200},
		{"rotate, expired", true, true, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				token := w.login(c.refresh, anyMap{"device_id": "ONE"}).text("access_token")
				if c.late {
					w.forward(2 * testTTL)
				}
				w.down.Store(true)
				a := w.do("POST", upstream.PathLogout, token, anyMap{})
				if a.status != c.status {
					t.Fatalf("%d %s", a.status, a.raw)
				}
				if w.hs.loggedOut() > 0 {
					t.Error("device logged out before the service decided")
				}
				if c.status == 200 {
					w.want(w.do("GET", upstream.PathWhoami, token, nil), 401, matrix.CodeUnknownToken)
				}
				w.down.Store(false)
				if c.status == 503 {
					w.want(w.do("POST", upstream.PathLogout, token, anyMap{}), 200, "")
				}
				w.gateway.outbox.Wake()
				testkit.Eventually(t, "the logout is delivered to service and homeserver", func() bool { return w.sessions() == 0 && !w.hs.alive("ONE") })
			})
		})
	}
}

// A logout that fails at the homeserver is retried.
func TestLogoutFailsUpstream(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		token := w.login(false, anyMap{"device_id": "ONE"}).text("access_token")
		w.hs.set(func(s *stub) { s.failLogouts = 1 })
		w.want(w.do("POST", upstream.PathLogout, token, anyMap{}), 500, matrix.CodeUnknown)
		testkit.Eventually(t, "the device is logged out", func() bool { return !w.hs.alive("ONE") })
		if w.sessions() != 0 {
			t.Error("session is live")
		}
	})
}

// POST /logout/all accepts an expired token unless it is an old copy.
func TestLogoutAllWithExpired(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		refresh bool
		behind  int // later refreshes
		used    bool
		status  int
	}{
		{"held", false, 0, false, 200},
		{"rotate", true, 0, false, 200},
		{"rotate, last response lost", true, 1, false, 200},
		{"rotate, old copy", true, 2, true, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			other := w.login(true, anyMap{"device_id": "TWO"})
			in := w.login(c.refresh, anyMap{"device_id": "ONE"})
			token := in.text("access_token")
			w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
			for range c.behind {
				in = w.want(w.refresh(in.text("refresh_token")), 200, "")
				if c.used {
					w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
				}
			}
			w.forward(2 * testTTL)
			a := w.do("POST", "/_matrix/client/v3/logout/all", token, anyMap{})
			if a.status != c.status {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			if c.status == 401 {
				if !a.soft() || strings.Contains(string(a.raw), "session is over") || w.sessions() != 2 {
					t.Errorf("%s, %d sessions", a.raw, w.sessions())
				}
				return
			}
			if n := w.sessions(); n != 0 || w.hs.alive("ONE") || w.hs.alive("TWO") {
				t.Errorf("%d sessions are left", n)
			}
			if a := w.want(w.refresh(other.text("refresh_token")), 401, matrix.CodeUnknownToken); a.soft() {
				t.Errorf("logout/all ended softly: %s", a.raw)
			}
		})
	}
}

// A session that ended by time logs out its own device, but not one that another
// session has. If the service has no record of the session, a token in mode rotate may
// be an old copy, and the device stays.
func TestLogoutOfExpiredSession(t *testing.T) {
	t.Parallel()
	for _, refresh := range []bool{false, true} {
		for _, away := range []time.Duration{65 * time.Minute, 4 * time.Hour} {
			for _, noticed := range []bool{false, true} {
				for _, again := range []bool{false, true} {
					t.Run(fmt.Sprintf("refresh %v, away %v, noticed %v, login since %v", refresh, away, noticed, again), func(t *testing.T) {
						t.Parallel()
						w := newWorld(t, func(w *world) { w.limits = session.Limits{Idle: time.Hour} })
						w.leaveOverByTime(refresh, away, noticed, again)
					})
				}
			}
		}
	}
}

func (w *world) leaveOverByTime(refresh bool, away time.Duration, noticed, again bool) {
	w.t.Helper()
	in := w.login(refresh, anyMap{"device_id": "ONE"})
	w.forward(away)
	switch {
	case noticed && refresh:
		w.want(w.refresh(in.text("refresh_token")), 401, matrix.CodeUnknownToken)
	case noticed:
		w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken)
	}
	var since answer
	if again {
		since = w.login(true, anyMap{"device_id": "ONE"})
	}
	a := w.do("POST", upstream.PathLogout, in.text("access_token"), anyMap{})
	if again || refresh && away > 2*time.Hour {
		if w.want(a, 401, matrix.CodeUnknownToken); !a.soft() || w.hs.loggedOut() > 0 {
			w.t.Errorf("%s, %d logouts", a.raw, w.hs.loggedOut())
		}
		if again {
			w.works("the new session", since)
		}
		return
	}
	if w.want(a, 200, ""); w.hs.alive("ONE") {
		w.t.Error("device is still there")
	}
}

// An old copy of an expired session's token logs no device out.
func TestLogoutOfExpiredSessionOldCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.limits = session.Limits{Idle: time.Hour} })
	in := w.login(true, anyMap{"device_id": "ONE"})
	copied := in.text("access_token")
	for range 3 {
		in = w.works("the session", in)
	}
	w.forward(65 * time.Minute)
	w.want(w.refresh(in.text("refresh_token")), 401, matrix.CodeUnknownToken)
	if a := w.want(w.do("POST", upstream.PathLogout, copied, anyMap{}), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("%s", a.raw)
	}
	if w.hs.loggedOut() > 0 {
		t.Error("device was logged out")
	}
	w.want(w.do("POST", upstream.PathLogout, in.text("access_token"), anyMap{}), 200, "")
}

// A token that an administrator got by "log in as user" survives the user's
// revocations, except deactivation of the account.
func TestLoginAsUserOutlives(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path string
		body       anyMap
		lives      bool
	}{
		{"logout everywhere", "/_matrix/client/v3/logout/all", anyMap{}, true},
		{"password", "/_matrix/client/v3/account/password", anyMap{"auth": anyMap{}}, true},
		{"deactivate", "/_matrix/client/v3/account/deactivate", anyMap{"auth": anyMap{}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			admin := w.want(w.do("POST", pathLogin, "", anyMap{"type": "m.login.password", "user": "@admin:hs"}), 200, "")
			as := w.want(w.do("POST", "/_synapse/admin/v1/users/@u:hs/login", admin.text("access_token"), anyMap{}), 200, "")
			own := w.login(false, anyMap{"device_id": "ONE"})
			w.login(false, anyMap{"device_id": "TWO"})
			w.want(w.do("POST", c.path, own.text("access_token"), c.body), 200, "")
			if a := w.do("GET", upstream.PathWhoami, as.text("access_token"), nil); (a.status == 200) != c.lives {
				t.Errorf("login as user: %d %s", a.status, a.raw)
			}
			w.restart()
			if a := w.do("GET", upstream.PathWhoami, as.text("access_token"), nil); (a.status == 200) != c.lives {
				t.Errorf("login as user, after a restart: %d %s", a.status, a.raw)
			}
		})
	}
}

// A logout that the homeserver forbids to a guest is completed.
func TestGuestLogoutSettles(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		in := w.login(false, anyMap{"device_id": "ONE"})
		w.hs.set(func(s *stub) { s.guests = true })
		w.revoke(w.sessionOf(in.text("access_token")), wire.RevokeOptions{})
		testkit.Eventually(t, "the gateway refuses the token", func() bool {
			return w.do("GET", upstream.PathWhoami, in.text("access_token"), nil).status == 401
		})
		testkit.Eventually(t, "no logout is pending", func() bool { return w.pending() == 0 })
		own := w.login(false)
		w.want(w.do("POST", upstream.PathLogout, own.text("access_token"), anyMap{}), 403, matrix.CodeGuest)
		if n := w.pending(); n != 0 || w.sessions() != 0 {
			t.Errorf("%d are pending, %d sessions", n, w.sessions())
		}
	})
}

// A logout interrupted by the end of the process is completed by the next.
func TestLogoutSurvivesRestart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		text := w.login(false, anyMap{"device_id": "ONE"}).text("access_token")
		x := &exchange{route: matrix.Logout}
		testkit.NoError(t, w.gateway.verifyLogout(t.Context(), x, token.Credential{Text: text, Kind: token.Held}, homeserver.Request{}))
		if pass, f := w.gateway.decideLogout(t.Context(), x); !pass || f != nil {
			t.Fatalf("logout is not forwarded: %+v", f)
		}
		x.releaseLeases()
		w.restart()
		testkit.Eventually(t, "the device is logged out", func() bool { return !w.hs.alive("ONE") })
	})
}

// A device is logged out once, also if its client returns afterwards.
func TestLoggedOutOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.offline()
	in := w.login(false, anyMap{"device_id": "ONE"})
	w.hs.set(func(s *stub) { s.guests = true })
	w.revoke(w.sessionOf(in.text("access_token")), wire.RevokeOptions{})
	w.reconciled()
	w.forward(2 * testTTL)
	w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken)
	if n := w.pending(); n != 0 {
		t.Errorf("%d are pending", n)
	}
}
