package gateway

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/policy"
)

// eventually waits for a condition that others bring about.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// sessions counts the user's live sessions at the service.
func (w *world) sessions() int {
	w.t.Helper()
	list, err := w.gateway.client.Sessions(context.Background(), "@u:hs")
	must(w.t, err)
	return len(list)
}

// sessionOf is the session of an access token.
func (w *world) sessionOf(token string) caveat.SessionID {
	w.t.Helper()
	id, _, err := w.gateway.verifyAccess(context.Background(), token, homeserver.Request{})
	must(w.t, err)
	return id.Session
}

// Everything that ends sessions at the homeserver ends them at the service, and
// nothing else does.
func TestEndsReachTheService(t *testing.T) {
	t.Parallel()
	auth := anyMap{"type": "m.login.password"}
	for _, c := range []struct {
		name, method, path string
		body               anyMap
		left               []bool // which of the two sessions lives on
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
		{"whoami", "GET", pathWhoami, nil, []bool{true, true}},
	} {
		for _, refresh := range []bool{false, true} {
			w := newWorld(t)
			ins := []answer{w.login(refresh, anyMap{"device_id": "ONE"}), w.login(refresh, anyMap{"device_id": "TWO"})}
			token := ins[0].text("access_token")
			if c.body["auth"] != nil { // what asks for a password first is no end
				a := w.do(c.method, c.path, token, anyMap{"devices": c.body["devices"]})
				if a.status != 401 || a.body["flows"] == nil {
					t.Fatalf("%s: %s", c.name, a.raw)
				}
				if n := w.sessions(); n != 2 {
					t.Fatalf("%s: %d sessions after a 401 that asks for a password", c.name, n)
				}
			}
			var body any
			if c.body != nil {
				body = c.body
			}
			w.want(w.do(c.method, c.path, token, body), 200, "")
			left := 0
			for i, lives := range c.left {
				if lives {
					left++
				}
				a := w.do("GET", pathWhoami, ins[i].text("access_token"), nil)
				if want := map[bool]int{true: 200, false: 401}[lives]; a.status != want || !lives && a.soft() {
					t.Errorf("%s: session %d: %d %s", c.name, i, a.status, a.raw)
				}
				if refresh {
					a := w.refresh(ins[i].text("refresh_token"))
					if want := map[bool]int{true: 200, false: 401}[lives]; a.status != want {
						t.Errorf("%s: refresh of session %d: %d %s", c.name, i, a.status, a.raw)
					}
				}
			}
			if n := w.sessions(); n != left {
				t.Errorf("%s: %d sessions at the service, want %d", c.name, n, left)
			}
		}
	}
}

// A login on a device that had a session before ends that.
func TestLoginAgainOnDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := w.login(true, anyMap{"device_id": "ONE"})
	other := w.login(true, anyMap{"device_id": "TWO"})
	again := w.login(true, anyMap{"device_id": "ONE"})
	w.want(w.refresh(one.text("refresh_token")), 401, codeUnknownToken)
	w.want(w.do("GET", pathWhoami, one.text("access_token"), nil), 401, codeUnknownToken)
	for _, in := range []answer{other, again} {
		w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 200, "")
		w.want(w.refresh(in.text("refresh_token")), 200, "")
	}
	if n := w.sessions(); n != 2 {
		t.Errorf("%d sessions", n)
	}
	w.hs.set(func(s *stub) {
		for _, r := range s.requests { // nobody logs the new token out
			if strings.HasSuffix(r.URI, "/logout") {
				t.Errorf("the homeserver was told to log %s out", r.Token)
			}
		}
	})
}

// A token that the homeserver does not know any more ends the session: softly,
// if that is what it said.
func TestHomeserverEndsSession(t *testing.T) {
	t.Parallel()
	for _, soft := range []bool{false, true} {
		w := newWorld(t)
		in := w.login(true)
		w.hs.set(func(s *stub) {
			if soft {
				s.softly[s.made[0]] = 1
				return
			}
			clear(s.tokens)
		})
		if a := w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 401, codeUnknownToken); a.soft() != soft {
			t.Errorf("soft %v: %s", soft, a.raw)
		}
		if a := w.want(w.refresh(in.text("refresh_token")), 401, codeUnknownToken); a.soft() != soft {
			t.Errorf("soft %v: refresh: %s", soft, a.raw)
		}
		if !soft {
			eventually(t, "the service knows", func() bool { return w.sessions() == 0 })
		}
	}
}

// What an identity server says, and the homeserver passes on, ends nothing.
func TestOthers401(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	w.hs.set(func(s *stub) { s.passOn = true })
	w.want(w.do("POST", "/_matrix/client/v3/account/3pid/bind", token, anyMap{}), 401, codeUnknownToken)
	w.want(w.do("GET", pathWhoami, token, nil), 200, "")
	if w.sessions() != 1 {
		t.Error("the session has ended")
	}
}

// A locked account, and a question for a password, end nothing.
func TestOther401s(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	w.hs.set(func(s *stub) { s.locked = true })
	if a := w.do("GET", pathWhoami, token, nil); a.status != 401 || a.text("errcode") != "M_USER_LOCKED" || !a.soft() {
		t.Fatalf("%s", a.raw)
	}
	w.hs.set(func(s *stub) { s.locked = false })
	w.want(w.do("GET", pathWhoami, token, nil), 200, "")
}

// What was revoked at the service is logged out at the homeserver.
func TestReaping(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	one, two, three := w.login(false, anyMap{"device_id": "ONE"}), w.login(true, anyMap{"device_id": "TWO"}), w.login(false, anyMap{"device_id": "THREE"})
	w.hs.set(func(s *stub) { s.failLogouts = 1 })
	must(t, w.gateway.client.RevokeSession(ctx, "@u:hs", w.sessionOf(one.text("access_token"))))
	eventually(t, "one is logged out", func() bool { return !w.hs.alive("ONE") })
	if a := w.want(w.do("GET", pathWhoami, one.text("access_token"), nil), 401, codeUnknownToken); a.soft() {
		t.Error("an order is a hard logout")
	}
	if !w.hs.alive("TWO") || !w.hs.alive("THREE") {
		t.Fatal("others are logged out")
	}
	must(t, w.gateway.client.RevokeUser(ctx, "@u:hs", w.sessionOf(three.text("access_token"))))
	eventually(t, "two is logged out", func() bool { return !w.hs.alive("TWO") })
	w.want(w.do("GET", pathWhoami, two.text("access_token"), nil), 401, codeUnknownToken)
	w.want(w.do("GET", pathWhoami, three.text("access_token"), nil), 200, "")
	w.forward(time.Second) // what is minted in the same millisecond is not meant
	must(t, w.gateway.client.RevokeAll(ctx))
	eventually(t, "three is logged out", func() bool { return !w.hs.alive("THREE") })
}

// Without the vault, what is over is logged out when its token is presented.
func TestReapingFromToken(t *testing.T) {
	t.Parallel()
	for _, refresh := range []bool{false, true} {
		w := newWorld(t)
		in := w.login(refresh, anyMap{"device_id": "ONE"})
		id := w.sessionOf(in.text("access_token"))
		w.http.Close()
		must(t, w.gateway.Close())
		w.cfg.Registerer = nil
		w.cfg.Vault += ".new"
		w.startGateway()
		must(t, w.gateway.client.RevokeSession(context.Background(), "@u:hs", id))
		if refresh {
			w.want(w.refresh(in.text("refresh_token")), 401, codeUnknownToken)
		} else {
			w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 401, codeUnknownToken)
		}
		eventually(t, "it is logged out", func() bool { return !w.hs.alive("ONE") })
	}
}

// A refusal that is to keep the keys keeps the device too.
func TestSoftRefusalReapsNothing(t *testing.T) {
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
			in = w.want(w.refresh(in.text("refresh_token")), 401, codeUnknownToken)
		} else {
			in = w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 401, codeUnknownToken)
		}
		if !in.soft() || !w.hs.alive("ONE") {
			t.Errorf("refresh %v: %s, alive: %v", refresh, in.raw, w.hs.alive("ONE"))
		}
	}
}

// What the service could not be told, and what the homeserver could not be
// told, is told later, by another process if need be.
func TestDebtsSurvive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.login(true, anyMap{"device_id": "ONE"}), w.login(true, anyMap{"device_id": "TWO"})
	w.down.Store(true)
	w.want(w.do("POST", "/_matrix/client/v3/logout", one.text("access_token"), anyMap{}), 200, "")
	w.hs.set(func(s *stub) { s.failLogouts = 1 << 20 })
	must(t, w.gateway.vault.condemn(w.sessionOf(two.text("access_token")), nil))
	w.http.Close()
	must(t, w.gateway.Close())

	w.down.Store(false)
	w.hs.set(func(s *stub) { s.failLogouts = 0 })
	w.cfg.Registerer = nil
	w.startGateway()
	eventually(t, "the service knows of the logout", func() bool { return w.sessions() == 1 })
	eventually(t, "the homeserver knows of the end", func() bool { return !w.hs.alive("TWO") })
	w.want(w.refresh(one.text("refresh_token")), 401, codeUnknownToken)
}

// What the service is still to be told of a user's old sessions does not end
// their new one.
func TestOldOrdersSpareNewSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.login(true)
	w.down.Store(true)
	w.want(w.do("POST", "/_matrix/client/v3/logout/all", old.text("access_token"), anyMap{}), 200, "")
	eventually(t, "it was tried again", func() bool { return strings.Contains(w.log.String(), "is still to be passed on") })
	w.down.Store(false)
	in := w.login(true)
	w.gateway.wake()
	must(t, w.gateway.settleOrders(context.Background()))
	w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 200, "")
	w.want(w.refresh(in.text("refresh_token")), 200, "")
	w.want(w.refresh(old.text("refresh_token")), 401, codeUnknownToken)
	if n := w.sessions(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// What the service has not listed for long is reaped, and not
// if that were nearly everybody.
func TestReconcile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	one, two := w.login(false, anyMap{"device_id": "ONE"}), w.login(false, anyMap{"device_id": "TWO"})
	lost := w.sessionOf(one.text("access_token"))
	w.forward(reconcileYoung)
	// As if the event had been missed: the vault is told nothing.
	w.gateway.cancel()
	w.gateway.background.Wait()
	must(t, w.gateway.client.RevokeSession(ctx, "@u:hs", lost))
	w.want(w.do("GET", pathWhoami, two.text("access_token"), nil), 200, "")
	for pass := range 2 {
		if !w.gateway.vault.has(lost) {
			t.Fatalf("reaped before pass %d", pass)
		}
		must(t, w.gateway.reconcile(ctx, 0))
		w.forward(reconcileAfter)
		w.want(w.do("GET", pathWhoami, two.text("access_token"), nil), 200, "")
	}
	must(t, w.gateway.reap(ctx))
	if w.hs.alive("ONE") || !w.hs.alive("TWO") {
		t.Error("the wrong one was reaped, or none")
	}
	for range reconcileFew + 10 {
		w.login(false)
	}
	w.forward(reconcileYoung)
	must(t, w.gateway.client.RevokeAll(ctx))
	must(t, w.gateway.reconcile(ctx, 0))
	w.forward(reconcileAfter)
	if err := w.gateway.reconcile(ctx, 0); err == nil || !strings.Contains(err.Error(), "not believed") {
		t.Errorf("everybody was logged out: %v", err)
	}
}

// Logging out needs no discharge: neither one that has not run out, nor a
// service to fetch it from.
func TestLogoutWithExpired(t *testing.T) {
	t.Parallel()
	for _, refresh := range []bool{false, true} {
		w := newWorld(t)
		token := w.login(refresh, anyMap{"device_id": "ONE"}).text("access_token")
		w.forward(2 * testTTL)
		w.down.Store(true)
		w.want(w.do("POST", "/_matrix/client/v3/logout", token, anyMap{}), 200, "")
		if w.hs.alive("ONE") {
			t.Error("still there")
		}
		w.down.Store(false)
		w.gateway.wake()
		eventually(t, "the service knows", func() bool { return w.sessions() == 0 })
	}
}

// The prior refresh token works until the new access token was used, whatever
// process the report has reached.
func TestOldRefreshTokenUntilUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	old := in.text("refresh_token")
	w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 200, "")
	first := w.want(w.refresh(old), 200, "")
	w.forward(time.Minute)
	second := w.want(w.refresh(old), 200, "")
	if first.text("refresh_token") != second.text("refresh_token") {
		t.Error("an answer that was lost comes with another token")
	}
	w.want(w.do("GET", pathWhoami, second.text("access_token"), nil), 200, "")
	w.forward(time.Minute)
	if a := w.refresh(old); a.status != 401 || a.text("errcode") != codeUnknownToken {
		t.Errorf("the old token still works: %d %s", a.status, a.raw)
	}
}

// Final refusals are told from others.
func TestReusedTokenEndsSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true, anyMap{"device_id": "ONE"})
	stolen := in.text("refresh_token")
	for range 2 {
		in = w.want(w.refresh(in.text("refresh_token")), 200, "")
		w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 200, "")
		w.forward(time.Minute)
	}
	w.want(w.refresh(stolen), 401, codeUnknownToken)
	w.want(w.refresh(in.text("refresh_token")), 401, codeUnknownToken)
	eventually(t, "the device is logged out", func() bool { return !w.hs.alive("ONE") })
	w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 401, codeUnknownToken)
}
