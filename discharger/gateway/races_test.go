package gateway

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// another is a second gateway to the same homeserver, with the same keys and the
// same service.
func (w *world) another() *world {
	w.t.Helper()
	o := &world{t: w.t, hs: w.hs, service: w.service, log: w.log, cfg: w.cfg}
	o.cfg.Vault += ".another"
	o.cfg.Registerer = nil
	o.startGateway()
	return o
}

// hold makes the next discharge that anybody asks for wait.
func (w *world) hold() *held {
	h := &held{make(chan struct{}), make(chan struct{})}
	w.holding.Store(h)
	return h
}

// onDevice is a login on a device.
func onDevice(device string) anyMap {
	return anyMap{"type": "m.login.password", "user": "@u:hs", "device_id": device, "refresh_token": true}
}

// Two logins on one device come through two gateways, and the one that the
// homeserver answered first comes to the service last. The session that is left
// is the one whose token the homeserver knows.
func TestLoginsRace(t *testing.T) {
	t.Parallel()
	one := newWorld(t)
	two := one.another()
	h := one.hold()
	first := make(chan answer)
	go func() { first <- one.do("POST", pathLogin, "", onDevice("ONE")) }()
	<-h.arrived
	last := two.want(two.do("POST", pathLogin, "", onDevice("ONE")), 200, "")
	close(h.release)
	dead := one.want(<-first, 200, "")
	for _, w := range []*world{one, two} {
		w.want(w.do("GET", pathWhoami, last.text("access_token"), nil), 200, "")
	}
	one.want(one.do("GET", pathWhoami, dead.text("access_token"), nil), 401, codeUnknownToken)
	one.want(one.refresh(dead.text("refresh_token")), 401, codeUnknownToken)
	last = two.want(two.refresh(last.text("refresh_token")), 200, "")
	two.want(two.do("GET", pathWhoami, last.text("access_token"), nil), 200, "")
	if n := one.sessions(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	// One after the other, the first is over at both.
	next := one.want(one.do("POST", pathLogin, "", onDevice("ONE")), 200, "")
	eventually(t, "the other gateway knows", func() bool {
		return two.do("GET", pathWhoami, last.text("access_token"), nil).status == 401
	})
	two.want(two.refresh(last.text("refresh_token")), 401, codeUnknownToken)
	two.want(two.do("GET", pathWhoami, next.text("access_token"), nil), 200, "")
}

// However many race, one session is left, and its token is alive.
func TestManyLoginsRace(t *testing.T) {
	t.Parallel()
	one := newWorld(t)
	gateways := []*world{one, one.another()}
	other := one.login(true, anyMap{"device_id": "TWO"})
	for round := range 3 {
		answers := make([]answer, 8)
		var all sync.WaitGroup
		for i := range answers {
			all.Go(func() { answers[i] = gateways[i%2].do("POST", pathLogin, "", onDevice("ONE")) })
		}
		all.Wait()
		alive := 0
		for i, a := range answers {
			one.want(a, 200, "")
			refreshed := gateways[i%2].refresh(a.text("refresh_token"))
			who := gateways[i%2].do("GET", pathWhoami, a.text("access_token"), nil)
			if who.status != refreshed.status {
				t.Errorf("round %d, login %d: whoami %d, refresh %d", round, i, who.status, refreshed.status)
			}
			if who.status == 200 {
				alive++
			}
		}
		if n := one.sessions(); alive != 1 || n != 2 {
			t.Errorf("round %d: %d are alive, and %d sessions are at the service", round, alive, n)
		}
	}
	one.want(one.do("GET", pathWhoami, other.text("access_token"), nil), 200, "")
}

// What one gateway is still to tell the service does not end what has begun
// through another since.
func TestLateOrdersSpareOthersSessions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path string
		body         anyMap
	}{
		{"POST", "/_matrix/client/v3/logout/all", anyMap{}},
		{"POST", "/_matrix/client/v3/account/password", anyMap{"auth": anyMap{}}},
		{"DELETE", "/_matrix/client/v3/devices/ONE", anyMap{"auth": anyMap{}}},
	} {
		one := newWorld(t)
		two := one.another()
		own, old := one.login(true, anyMap{"device_id": "TWO"}), one.login(true, anyMap{"device_id": "ONE"})
		one.forward(time.Minute)
		one.down.Store(true)
		one.want(one.do(c.method, c.path, own.text("access_token"), c.body), 200, "")
		one.forward(time.Minute)
		one.down.Store(false)
		in := two.want(two.do("POST", pathLogin, "", onDevice("ONE")), 200, "")
		must(t, one.gateway.settleOrders(context.Background()))
		what := fmt.Sprint(c.method, " ", c.path)
		if a := two.do("GET", pathWhoami, in.text("access_token"), nil); a.status != 200 {
			t.Errorf("%s: the new session: %d %s", what, a.status, a.raw)
		}
		if a := two.refresh(in.text("refresh_token")); a.status != 200 {
			t.Errorf("%s: refresh of the new session: %d %s", what, a.status, a.raw)
		}
		if a := two.refresh(old.text("refresh_token")); a.status != 401 {
			t.Errorf("%s: refresh of the old session: %d %s", what, a.status, a.raw)
		}
		if n := len(one.gatewayOrders()); n != 0 {
			t.Errorf("%s: %d orders are left", what, n)
		}
	}
}

// gatewayOrders are those that are kept.
func (w *world) gatewayOrders() (kept []order) {
	w.t.Helper()
	if key, o, err := w.gateway.vault.firstOrder(""); err != nil || key != nil {
		must(w.t, err)
		kept = append(kept, o)
	}
	return kept
}

// If the homeserver does not say whose token is alive, nobody's session ends
// until it does.
func TestOlderWaitsForTheHomeserver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.login(true, anyMap{"device_id": "ONE"})
	w.hs.set(func(s *stub) { s.failWhoami = true })
	in := w.login(true, anyMap{"device_id": "ONE"})
	w.want(w.refresh(in.text("refresh_token")), 200, "")
	old = w.want(w.refresh(old.text("refresh_token")), 200, "")
	if n := len(w.gatewayOrders()); n != 1 {
		t.Fatalf("%d orders are kept", n)
	}
	w.hs.set(func(s *stub) { s.failWhoami = false })
	w.gateway.wake()
	eventually(t, "the old session ends", func() bool { return w.sessions() == 1 })
	w.want(w.refresh(old.text("refresh_token")), 401, codeUnknownToken)
	w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 200, "")
}
