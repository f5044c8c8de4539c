package gateway

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// another returns a second gateway with the same homeserver, keys and service.
func (w *world) another() *world {
	w.t.Helper()
	o := &world{t: w.t, hs: w.hs, service: w.service, log: w.log, cfg: w.cfg, pipes: w.pipes}
	o.cfg.Outbox += ".another"
	o.cfg.Registerer = nil
	o.startGateway()
	return o
}

// hold blocks the next request for a discharge.
func (w *world) hold() *held {
	h := &held{make(chan struct{}), make(chan struct{})}
	w.holding.Store(h)
	return h
}

// onDevice logs in on a device.
func onDevice(device string) anyMap {
	return anyMap{"type": "m.login.password", "user": "@u:hs", "device_id": device, "refresh_token": true}
}

// homeservers runs a test with a homeserver that keeps old tokens of a device alive and
// deletes the device at a logout, and with one that does neither.
func homeservers(t *testing.T, f func(t *testing.T, dendrite bool)) {
	for _, dendrite := range []bool{false, true} {
		t.Run(map[bool]string{false: "synapse", true: "dendrite"}[dendrite], func(t *testing.T) {
			t.Parallel()
			f(t, dendrite)
		})
	}
}

// like selects the homeserver's behavior.
func like(dendrite bool) func(*world) {
	return func(w *world) { w.hs.set(func(s *stub) { s.dendrite = dendrite }) }
}

// settled runs a gateway's background work to completion.
func (w *world) settled() {
	w.t.Helper()
	testkit.NoError(w.t, w.gateway.outbox.Flush(context.Background()))
}

// softlyOver fails unless every request of a session is refused as softly ended.
func (w *world) softlyOver(what string, in answer) {
	w.t.Helper()
	if a := w.do("GET", upstream.PathWhoami, in.text("access_token"), nil); a.status != 401 || a.text("errcode") != matrix.CodeUnknownToken || !a.soft() {
		w.t.Errorf("%s: whoami: %d %s", what, a.status, a.raw)
	}
	if in.text("refresh_token") != "" {
		if a := w.refresh(in.text("refresh_token")); a.status != 401 || a.text("errcode") != matrix.CodeUnknownToken || !a.soft() {
			w.t.Errorf("%s: refresh: %d %s", what, a.status, a.raw)
		}
	}
	if a := w.do("POST", upstream.PathLogout, in.text("access_token"), anyMap{}); a.status != 401 || a.text("errcode") != matrix.CodeUnknownToken || !a.soft() {
		w.t.Errorf("%s: logout: %d %s", what, a.status, a.raw)
	}
}

// works fails unless a session is live.
func (w *world) works(what string, in answer) answer {
	w.t.Helper()
	if a := w.do("GET", upstream.PathWhoami, in.text("access_token"), nil); a.status != 200 {
		w.t.Errorf("%s: whoami: %d %s", what, a.status, a.raw)
	}
	if in.text("refresh_token") == "" {
		return in
	}
	a := w.refresh(in.text("refresh_token"))
	if a.status != 200 {
		w.t.Errorf("%s: refresh: %d %s", what, a.status, a.raw)
	}
	return a
}

// A login on a device ends its earlier session softly, and the device stays: through
// one gateway or two, after a restart, and for any later request of the old client.
func TestLoginAgainOnDevice(t *testing.T) {
	t.Parallel()
	homeservers(t, func(t *testing.T, dendrite bool) {
		for _, refresh := range []bool{false, true} {
			for _, where := range []string{"one gateway", "two gateways", "restart"} {
				t.Run(fmt.Sprintf("%s, refresh %v", where, refresh), func(t *testing.T) {
					bubble(t, func(t *testing.T, one *world) {
						two := one
						old := one.login(refresh, anyMap{"device_id": "ONE"})
						other := one.login(refresh, anyMap{"device_id": "TWO"})
						switch where {
						case "two gateways":
							two = one.another()
						case "restart":
							one.restart()
						}
						in := two.login(refresh, anyMap{"device_id": "ONE"})
						testkit.Eventually(t, "the first gateway refuses the old token", func() bool { return one.do("GET", upstream.PathWhoami, old.text("access_token"), nil).status == 401 })
						for _, w := range []*world{one, two} {
							w.softlyOver("the old session", old)
							w.settled()
						}
						one.restart()
						one.softlyOver("the old session after a restart", old)
						one.settled()
						in = two.works("the new session", in)
						one.works("the new session at the first gateway", in)
						one.works("the other device", other)
						if n := one.sessions(); n != 2 || one.hs.loggedOut() > 0 {
							t.Errorf("%d sessions, %d logouts at the homeserver", n, one.hs.loggedOut())
						}
					}, like(dendrite))
				})
			}
		}
	})
}

// Of simultaneous logins on one device, one session lives: exactly one through one
// gateway, and at most one through two before a homeserver that revokes older tokens in
// an order of its own.
func TestSimultaneousLogins(t *testing.T) {
	t.Parallel()
	homeservers(t, func(t *testing.T, dendrite bool) {
		for _, n := range []int{2, 3, 12} {
			for _, gateways := range []int{1, 2} {
				t.Run(fmt.Sprintf("%d logins, %d gateways", n, gateways), func(t *testing.T) {
					one := newWorld(t, like(dendrite))
					all := []*world{one}
					if gateways == 2 {
						all = append(all, one.another())
					}
					simultaneously(t, all, n, dendrite && gateways == 2)
				})
			}
		}
	})
}

func simultaneously(t *testing.T, gateways []*world, n int, atMost bool) {
	t.Helper()
	answers := make([]answer, n)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			in := onDevice("ONE")
			if i%3 == 1 { // the user id has several spellings
				delete(in, "user")
				in["identifier"] = anyMap{"type": "m.id.user", "user": "@u:hs"}
			}
			answers[i] = gateways[i%len(gateways)].do("POST", pathLogin, "", in)
		})
	}
	all.Wait()
	alive := 0
	for i, a := range answers {
		w := gateways[i%len(gateways)]
		w.want(a, 200, "")
		// The other gateway's feed may be behind; the service is not.
		refreshed := w.refresh(a.text("refresh_token"))
		if refreshed.status == 200 {
			alive++
			w.works("the one that lives", refreshed)
			continue
		}
		if !refreshed.soft() {
			t.Errorf("login %d: %s", i, refreshed.raw)
		}
		w.softlyOver("another login", a)
	}
	for _, w := range gateways {
		w.settled()
	}
	if alive > 1 || alive == 0 && !atMost || gateways[0].sessions() > 1 {
		t.Errorf("%d are alive, and %d sessions are at the service", alive, gateways[0].sessions())
	}
	if gateways[0].hs.loggedOut() > 0 {
		t.Error("a device was logged out at the homeserver")
	}
}

// The login that reaches the service last has the live session, in any order of the
// homeserver's responses.
func TestServiceDecidesRace(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, one *world) {
		two := one.another()
		h := one.hold()
		first := make(chan answer)
		go func() { first <- one.do("POST", pathLogin, "", onDevice("ONE")) }()
		<-h.arrived
		early := two.want(two.do("POST", pathLogin, "", onDevice("ONE")), 200, "")
		close(h.release)
		late := one.want(<-first, 200, "")
		testkit.Eventually(t, "the other gateway refuses the old token", func() bool {
			return two.do("GET", upstream.PathWhoami, early.text("access_token"), nil).status == 401
		})
		for _, w := range []*world{one, two} {
			w.softlyOver("the early one", early)
			late = w.works("the late one", late)
		}
		if n := one.sessions(); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

// A login waits for another login on its device, but not for one on another device.
func TestLoginsOnDeviceWait(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		h := w.hold()
		first, second := make(chan answer), make(chan answer)
		go func() { first <- w.do("POST", pathLogin, "", onDevice("ONE")) }()
		<-h.arrived
		go func() { second <- w.do("POST", pathLogin, "", onDevice("ONE")) }()
		w.login(true, anyMap{"device_id": "TWO"})
		testkit.Eventually(t, "the second login waits", func() bool {
			return w.gateway.leases.Queue(admission.Device("@u:hs", "ONE")) == 2
		})
		w.hs.set(func(s *stub) {
			if len(s.made) != 2 {
				t.Errorf("the homeserver answered %d logins, want those on two devices", len(s.made))
			}
		})
		close(h.release)
		old := w.want(<-first, 200, "")
		w.works("the second", w.want(<-second, 200, ""))
		w.softlyOver("the first", old)
	})
}

// A homeserver reports a token revoked by a later login like that of a deleted device.
// After a login the end is soft, also if the service refused that login.
func TestKilledTokenIsSoft(t *testing.T) {
	t.Parallel()
	deny := false
	w := newWorld(t, like(true), denying(&deny))
	old := w.login(true, anyMap{"device_id": "ONE"})
	deny = true
	w.want(w.do("POST", pathLogin, "", onDevice("ONE")), 403, matrix.CodeForbidden)
	if w.hs.loggedOut() > 0 || !w.hs.alive("ONE") {
		t.Fatal("a device that the client named was logged out")
	}
	w.softlyOver("the old session", old)
	w.settled()
	if n := w.sessions(); n != 0 || w.hs.loggedOut() > 0 {
		t.Errorf("%d sessions, %d logouts", n, w.hs.loggedOut())
	}
}

// A pending revocation of one gateway does not end sessions begun later through
// another.
func TestPendingRevocationSparesLaterSessions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, method, path string
		body               anyMap
	}{
		{"logout everywhere", "POST", "/_matrix/client/v3/logout/all", anyMap{}},
		{"password", "POST", "/_matrix/client/v3/account/password", anyMap{"auth": anyMap{}}},
		{"device", "DELETE", "/_matrix/client/v3/devices/ONE", anyMap{"auth": anyMap{}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			one := newWorld(t)
			two := one.another()
			own, old := one.login(true, anyMap{"device_id": "TWO"}), one.login(true, anyMap{"device_id": "ONE"})
			foreign := two.login(true, anyMap{"device_id": "THREE"})
			one.forward(time.Minute)
			one.gateway.cancel() // no revocation is sent yet
			one.gateway.background.Wait()
			one.gateway.outbox.Stop()
			one.down.Store(true)
			one.want(one.do(c.method, c.path, own.text("access_token"), c.body), 200, "")
			one.forward(time.Minute)
			one.down.Store(false)
			in := two.want(two.do("POST", pathLogin, "", onDevice("ONE")), 200, "")
			testkit.NoError(t, one.gateway.outbox.Flush(context.Background()))
			two.works("the new session", in)
			if a := two.refresh(old.text("refresh_token")); a.status != 401 {
				t.Errorf("refresh of the old session: %d %s", a.status, a.raw)
			}
			if a := two.refresh(foreign.text("refresh_token")); (a.status == 200) != (c.name == "device") {
				t.Errorf("refresh of another gateway's old session: %d %s", a.status, a.raw)
			}
			if one.unsent() {
				t.Error("revocations are pending")
			}
		})
	}
}

// unsent reports whether calls of the outbox to the service are pending.
func (w *world) unsent() bool {
	w.down.Store(true)
	defer w.down.Store(false)
	return w.gateway.outbox.Flush(context.Background()) != nil
}

// A login on a device cancels its pending logout, also through another gateway.
func TestLoginCancelsLogout(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"here", "elsewhere"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			one := newWorld(t)
			two := one
			if where == "elsewhere" {
				two = one.another()
			}
			old := one.login(true, anyMap{"device_id": "ONE"})
			one.hs.set(func(s *stub) { s.failLogouts = 1 << 20 })
			one.revoke(one.sessionOf(old.text("access_token")), wire.RevokeOptions{})
			testkit.Eventually(t, "the logout is pending", func() bool { return one.pending() == 1 })
			in := two.login(true, anyMap{"device_id": "ONE"})
			if where == "here" && one.pending() != 0 {
				t.Error("the logout was not cancelled")
			}
			one.hs.set(func(s *stub) { s.failLogouts = 0 })
			one.restart()
			one.settled()
			two.settled()
			if n := one.pending(); n != 0 || one.hs.loggedOut() > 0 {
				t.Errorf("%d logouts pending, %d done", n, one.hs.loggedOut())
			}
			two.works("the new session", in)
			if a := one.refresh(old.text("refresh_token")); a.status != 401 || a.soft() {
				t.Errorf("the old session: %d %s", a.status, a.raw)
			}
		})
	}
}

// A device deleted at the homeserver is not refreshed. Every gateway returns the same
// refusal, and no device is logged out.
func TestDeletedAtHomeserver(t *testing.T) {
	t.Parallel()
	for _, soft := range []bool{false, true} {
		for _, first := range []string{"refresh", "request"} {
			t.Run(fmt.Sprintf("soft %v, %s first", soft, first), func(t *testing.T) {
				t.Parallel()
				one := newWorld(t)
				two := one.another()
				in := one.works("the session", one.login(true, anyMap{"device_id": "ONE"}))
				one.hs.set(func(s *stub) {
					if soft {
						s.softly[s.made[0]] = 1
						return
					}
					clear(s.tokens)
				})
				ask := []func(*world) answer{
					func(w *world) answer { return w.refresh(in.text("refresh_token")) },
					func(w *world) answer { return w.do("GET", upstream.PathWhoami, in.text("access_token"), nil) },
				}
				if first == "request" {
					ask[0], ask[1] = ask[1], ask[0]
				}
				for _, w := range []*world{one, two} {
					for i, f := range ask {
						if a := w.want(f(w), 401, matrix.CodeUnknownToken); a.soft() != soft {
							t.Errorf("answer %d: %s", i, a.raw)
						}
					}
					w.settled()
				}
				if n := one.sessions(); n != 0 || one.hs.loggedOut() > 0 {
					t.Errorf("%d sessions, %d logouts", n, one.hs.loggedOut())
				}
			})
		}
	}
}

// A logout still pending long after its session ended hard is dropped if a later
// session, ended by then, used the device.
func TestLateLogoutSparesLaterSession(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		since func(one, two *world)
		gone  bool
	}{
		{"nothing since", func(*world, *world) {}, true},
		{"soft end since", func(one, two *world) {
			in := two.login(false, anyMap{"device_id": "ONE"})
			one.forward(2 * time.Second)
			two.revoke(two.sessionOf(in.text("access_token")), wire.RevokeOptions{Soft: true})
		}, false},
		{"seen since", func(one, _ *world) {
			one.hs.set(func(s *stub) { s.lastSeen = map[string]int64{"ONE": one.now().Add(time.Hour).UnixMilli()} })
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			one := newWorld(t)
			two := one.another()
			one.offline()
			old := one.login(false, anyMap{"device_id": "ONE"})
			one.revoke(one.sessionOf(old.text("access_token")), wire.RevokeOptions{})
			one.forward(2 * time.Second)
			c.since(one, two)
			two.offline()
			one.forward(30 * time.Minute)
			one.hs.set(func(s *stub) { s.failLogouts = 1 })
			for range 3 { // the first fails
				_ = one.gateway.outbox.Reconcile(t.Context(), 0)
				_ = one.gateway.outbox.Flush(t.Context())
			}
			if gone := !one.hs.alive("ONE"); gone != c.gone || one.pending() != 0 {
				t.Errorf("gone: %v, %d are pending", gone, one.pending())
			}
		})
	}
}
