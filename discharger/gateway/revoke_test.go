package gateway

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
	"github.com/discharger/discharger/policy"
)

// sessions returns the number of the user's live sessions at the service.
func (w *world) sessions() int {
	w.t.Helper()
	list, err := w.gateway.client.Sessions(context.Background(), "@u:hs")
	testkit.NoError(w.t, err)
	return len(list)
}

// revoke ends a session of the user at the service.
func (w *world) revoke(id caveat.SessionID, o wire.RevokeOptions) {
	w.t.Helper()
	_, err := w.gateway.client.RevokeSession(context.Background(), "@u:hs", id, o)
	testkit.NoError(w.t, err)
}

// sessionOf returns the session of an access token.
func (w *world) sessionOf(token string) caveat.SessionID {
	w.t.Helper()
	p, err := w.gateway.verifyAccess(context.Background(), token, homeserver.Request{})
	testkit.NoError(w.t, err)
	return p.Identity.Session
}

// Requests that end sessions at the homeserver end them at the service; other requests
// do not.
func TestRevocationsReachService(t *testing.T) {
	t.Parallel()
	auth := anyMap{"type": "m.login.password"}
	for _, c := range []struct {
		name, method, path string
		body               anyMap
		left               []bool // whether each of the two sessions is live afterwards
	}{
		{"logout", "POST", "/_matrix/client/v3/logout", anyMap{}, []bool{false, true}},
		{"logout r0", "POST", "/_matrix/client/r0/logout", nil, []bool{false, true}},
		{"logout all", "POST", "/_matrix/client/v3/logout/all", anyMap{}, []bool{false, false}},
		{"password", "POST", "/_matrix/client/v3/account/password", anyMap{"auth": auth}, []bool{true, false}},
		{"password, keeping devices", "POST", "/_matrix/client/v3/account/password", anyMap{"auth": auth, "logout_devices": false}, []bool{true, true}},
		{"deactivate", "POST", "/_matrix/client/v3/account/deactivate", anyMap{"auth": auth}, []bool{false, false}},
		{"delete other device", "DELETE", "/_matrix/client/v3/devices/TWO", anyMap{"auth": auth}, []bool{true, false}},
		{"delete own device", "DELETE", "/_matrix/client/v3/devices/ONE", anyMap{"auth": auth}, []bool{false, true}},
		{"delete devices", "POST", "/_matrix/client/v3/delete_devices", anyMap{"auth": auth, "devices": []string{"TWO", "X"}}, []bool{true, false}},
		{"whoami", "GET", upstream.PathWhoami, nil, []bool{true, true}},
	} {
		for _, refresh := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, refresh %v", c.name, refresh), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				ins := []answer{w.login(refresh, anyMap{"device_id": "ONE"}), w.login(refresh, anyMap{"device_id": "TWO"})}
				token := ins[0].text("access_token")
				if c.body["auth"] != nil { // a challenge for a password ends nothing
					a := w.do(c.method, c.path, token, anyMap{"devices": c.body["devices"]})
					if a.status != 401 || a.body["flows"] == nil {
						t.Fatalf("%s", a.raw)
					}
					if n := w.sessions(); n != 2 {
						t.Fatalf("%d sessions after a challenge for a password", n)
					}
				}
				var body any
				if c.body != nil {
					body = c.body
				}
				w.want(w.do(c.method, c.path, token, body), 200, "")
				w.left(ins, refresh, c.left)
			})
		}
	}
}

// left fails unless exactly some of the sessions are live, and the others ended hard.
func (w *world) left(ins []answer, refresh bool, lives []bool) {
	w.t.Helper()
	n := 0
	for i, lives := range lives {
		want := 401
		if lives {
			n++
			want = 200
		}
		a := w.do("GET", upstream.PathWhoami, ins[i].text("access_token"), nil)
		if a.status != want || !lives && a.soft() {
			w.t.Errorf("session %d: %d %s", i, a.status, a.raw)
		}
		if !refresh {
			continue
		}
		if a := w.refresh(ins[i].text("refresh_token")); a.status != want || !lives && a.soft() {
			w.t.Errorf("refresh of session %d: %d %s", i, a.status, a.raw)
		}
	}
	if got := w.sessions(); got != n {
		w.t.Errorf("%d sessions at the service, want %d", got, n)
	}
}

// A token unknown to the homeserver ends the session, softly if the response had
// soft_logout.
func TestHomeserverEndsSession(t *testing.T) {
	t.Parallel()
	for _, soft := range []bool{false, true} {
		t.Run(fmt.Sprintf("soft %v", soft), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				in := w.login(true)
				w.hs.set(func(s *stub) {
					if soft {
						s.softly[s.made[0]] = 1
						return
					}
					clear(s.tokens)
				})
				if a := w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken); a.soft() != soft {
					t.Errorf("soft %v: %s", soft, a.raw)
				}
				if a := w.want(w.refresh(in.text("refresh_token")), 401, matrix.CodeUnknownToken); a.soft() != soft {
					t.Errorf("soft %v: refresh: %s", soft, a.raw)
				}
				if !soft {
					testkit.Eventually(t, "the service has ended the session", func() bool { return w.sessions() == 0 })
				}
			})
		})
	}
}

// A 401 of an identity server, forwarded by the homeserver, ends nothing.
func TestIdentityServer401(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	w.hs.set(func(s *stub) { s.passOn = true })
	w.want(w.do("POST", "/_matrix/client/v3/account/3pid/bind", token, anyMap{}), 401, matrix.CodeUnknownToken)
	w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
	if w.sessions() != 1 {
		t.Error("the session has ended")
	}
}

// A locked account, and a challenge for a password, end nothing.
func TestOther401s(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	w.hs.set(func(s *stub) { s.locked = true })
	if a := w.do("GET", upstream.PathWhoami, token, nil); a.status != 401 || a.text("errcode") != "M_USER_LOCKED" || !a.soft() {
		t.Fatalf("%s", a.raw)
	}
	w.hs.set(func(s *stub) { s.locked = false })
	w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
}

// A session revoked at the service is logged out at the homeserver.
func TestLogoutAfterRevocation(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		one, two, three := w.login(false, anyMap{"device_id": "ONE"}), w.login(true, anyMap{"device_id": "TWO"}), w.login(false, anyMap{"device_id": "THREE"})
		w.hs.set(func(s *stub) { s.failLogouts = 1 })
		w.revoke(w.sessionOf(one.text("access_token")), wire.RevokeOptions{})
		testkit.Eventually(t, "ONE is logged out", func() bool { return !w.hs.alive("ONE") })
		if a := w.want(w.do("GET", upstream.PathWhoami, one.text("access_token"), nil), 401, matrix.CodeUnknownToken); a.soft() {
			t.Error("revocation ended softly")
		}
		if !w.hs.alive("TWO") || !w.hs.alive("THREE") {
			t.Fatal("other sessions are logged out")
		}
		_, err := w.gateway.client.RevokeUser(ctx, "@u:hs", wire.RevokeOptions{Except: w.sessionOf(three.text("access_token"))})
		testkit.NoError(t, err)
		testkit.Eventually(t, "TWO is logged out", func() bool { return !w.hs.alive("TWO") })
		w.want(w.do("GET", upstream.PathWhoami, two.text("access_token"), nil), 401, matrix.CodeUnknownToken)
		w.want(w.do("GET", upstream.PathWhoami, three.text("access_token"), nil), 200, "")
		w.forward(time.Second) // sessions of the same millisecond are spared
		testkit.NoError(t, w.gateway.client.RevokeHomeserver(ctx, wire.RevokeOptions{}))
		testkit.Eventually(t, "THREE is logged out", func() bool { return !w.hs.alive("THREE") })
	})
}

// Without the outbox, an ended session is logged out when its token is presented.
func TestLogoutFromToken(t *testing.T) {
	t.Parallel()
	for _, refresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("refresh %v", refresh), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				in := w.login(refresh, anyMap{"device_id": "ONE"})
				id := w.sessionOf(in.text("access_token"))
				w.http.Close()
				testkit.NoError(t, w.gateway.Close())
				w.cfg.Registerer = nil
				w.cfg.Outbox += ".new"
				w.startGateway()
				w.revoke(id, wire.RevokeOptions{})
				if refresh {
					w.want(w.refresh(in.text("refresh_token")), 401, matrix.CodeUnknownToken)
				} else {
					w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken)
				}
				testkit.Eventually(t, "the device is logged out", func() bool { return !w.hs.alive("ONE") })
			})
		})
	}
}

// A soft refusal leaves the device at the homeserver.
func TestSoftRefusalKeepsDevice(t *testing.T) {
	t.Parallel()
	reauth := false
	w := newWorld(t, func(w *world) {
		w.policy = func(in *policy.Input) policy.Decision {
			if reauth && in.Action != policy.ActionActivate {
				return policy.Decision{Effect: policy.EffectReauth}
			}
			return policy.Decision{Effect: policy.EffectAllow}
		}
	})
	for _, refresh := range []bool{false, true} {
		reauth = false
		in := w.login(refresh, anyMap{"device_id": "ONE"})
		reauth = true
		w.forward(testTTL)
		if refresh {
			in = w.want(w.refresh(in.text("refresh_token")), 401, matrix.CodeUnknownToken)
		} else {
			in = w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken)
		}
		if !in.soft() || !w.hs.alive("ONE") {
			t.Errorf("refresh %v: %s, alive: %v", refresh, in.raw, w.hs.alive("ONE"))
		}
	}
}

// Pending revocations and logouts survive a restart and are sent later.
func TestPendingCallsSurvive(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		one, two := w.login(true, anyMap{"device_id": "ONE"}), w.login(true, anyMap{"device_id": "TWO"})
		w.hs.set(func(s *stub) { s.failLogouts = 1 << 20 })
		w.revoke(w.sessionOf(two.text("access_token")), wire.RevokeOptions{})
		testkit.Eventually(t, "the logout is pending", func() bool { return w.pending() == 1 })
		w.down.Store(true)
		w.want(w.do("POST", "/_matrix/client/v3/logout", one.text("access_token"), anyMap{}), 200, "")
		w.want(w.do("GET", upstream.PathWhoami, one.text("access_token"), nil), 401, matrix.CodeUnknownToken)
		w.http.Close()
		testkit.NoError(t, w.gateway.Close())
		if !w.hs.alive("ONE") || !w.hs.alive("TWO") {
			t.Fatal("device logged out before the service decided")
		}

		w.down.Store(false)
		w.hs.set(func(s *stub) { s.failLogouts = 0 })
		w.cfg.Registerer = nil
		w.startGateway()
		testkit.Eventually(t, "the service has ended the sessions", func() bool { return w.sessions() == 0 })
		testkit.Eventually(t, "both devices are logged out", func() bool { return !w.hs.alive("ONE") && !w.hs.alive("TWO") })
		w.want(w.refresh(one.text("refresh_token")), 401, matrix.CodeUnknownToken)
	})
}

// kept reports whether a session is in the outbox.
func (w *world) kept(id caveat.SessionID) (kept bool) {
	w.t.Helper()
	_, kept, err := w.gateway.outbox.Store.Session(id)
	testkit.NoError(w.t, err)
	return kept
}

// pending returns the number of pending logouts.
func (w *world) pending() int {
	w.t.Helper()
	ids, err := w.gateway.outbox.Store.Logouts()
	testkit.NoError(w.t, err)
	return len(ids)
}

// Pending revocations of a user's old sessions do not end a new one.
func TestPendingRevocationSparesNewSession(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		old := w.login(true)
		w.down.Store(true)
		w.want(w.do("POST", "/_matrix/client/v3/logout/all", old.text("access_token"), anyMap{}), 200, "")
		testkit.Eventually(t, "the revocation was retried", func() bool { return strings.Contains(w.log.String(), "failed, retrying") })
		w.down.Store(false)
		in := w.login(true)
		w.gateway.outbox.Wake()
		testkit.NoError(t, w.gateway.outbox.Flush(context.Background()))
		w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
		w.want(w.refresh(in.text("refresh_token")), 200, "")
		w.want(w.refresh(old.text("refresh_token")), 401, matrix.CodeUnknownToken)
		if n := w.sessions(); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

// The prior refresh token works for its own party until a newer one is used, and for
// other parties until a while after the first use of the new access token.
func TestOldRefreshTokenUntilUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	old := in.text("refresh_token")
	w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
	first := w.want(w.refresh(old), 200, "")
	w.forward(time.Minute)
	second := w.want(w.refresh(old), 200, "")
	if first.text("refresh_token") != second.text("refresh_token") {
		t.Error("repeated refresh returned another token")
	}
	w.want(w.do("GET", upstream.PathWhoami, second.text("access_token"), nil), 200, "")
	w.gateway.service.Epochs.Flush(t.Context())
	if a := w.refresh(old); a.status != 401 || a.text("errcode") != matrix.CodeUnknownToken || !a.soft() {
		t.Errorf("old token was accepted: %d %s", a.status, a.raw)
	}
	w.want(w.do("GET", upstream.PathWhoami, second.text("access_token"), nil), 200, "") // the replay ended nothing
	w.forward(4 * time.Minute)                                                          // longer than the replay window
	req := w.request("POST", pathRefresh, "", anyMap{"refresh_token": old})
	req.Header.Set("User-Agent", "another party")
	if a := w.want(w.send(req), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("the old token, elsewhere: %s", a.raw)
	}
}

// A replaced token is refused. From the session's own party it ends nothing; from
// another party it ends the session softly.
func TestReusedToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true, anyMap{"device_id": "ONE"})
	stolen := in.text("refresh_token")
	for range 2 {
		in = w.want(w.refresh(in.text("refresh_token")), 200, "")
		w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
		w.forward(time.Minute)
	}
	if a := w.want(w.refresh(stolen), 401, matrix.CodeUnknownToken); !a.soft() || strings.Contains(string(a.raw), "session is over") {
		t.Errorf("a replaced token: %s", a.raw)
	}
	in = w.want(w.refresh(in.text("refresh_token")), 200, "")
	w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
	req := w.request("POST", pathRefresh, "", anyMap{"refresh_token": stolen})
	req.Header.Set("User-Agent", "another client")
	if a := w.want(w.send(req), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("the thief: %s", a.raw)
	}
	if a := w.want(w.refresh(in.text("refresh_token")), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("the owner: %s", a.raw)
	}
	if a := w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("the owner's access token: %s", a.raw)
	}
	testkit.NoError(t, w.gateway.outbox.Flush(t.Context()))
	if !w.hs.alive("ONE") || w.hs.loggedOut() > 0 {
		t.Error("the device was logged out")
	}
}

// A revocation of all sessions of a user or device does not change a session that had
// ended softly while this process missed it: the response is the same as to any other.
func TestEndedStaysEnded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path string
		body         anyMap
	}{
		{"POST", "/_matrix/client/v3/logout/all", anyMap{}}, {"POST", "/_matrix/client/v3/account/password", anyMap{"auth": anyMap{}}},
		{"DELETE", "/_matrix/client/v3/devices/OLD", anyMap{"auth": anyMap{}}},
	} {
		for _, refresh := range []bool{false, true} {
			t.Run(fmt.Sprint(c.path, " ", refresh), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.offline()
				old := w.login(refresh, anyMap{"device_id": "OLD"}).text("access_token")
				other := w.login(false).text("access_token")
				w.revoke(w.sessionOf(old), wire.RevokeOptions{Soft: true})
				w.want(w.do(c.method, c.path, other, c.body), 200, "")
				a := w.want(w.do("GET", upstream.PathWhoami, old, nil), 401, matrix.CodeUnknownToken)
				if !a.soft() || strings.Contains(string(a.raw), "logged out") {
					t.Errorf("%s", a.raw)
				}
			})
		}
	}
}
