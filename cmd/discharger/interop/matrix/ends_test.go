package matrix

import (
	"net/http"
	"testing"
)

// pair logs a user in twice.
func (g *gateway) pair(t *testing.T, name string) (a, b *device) {
	t.Helper()
	u := g.register(t, name)
	return u.login(t, nil), u.login(t, body{"refresh_token": true})
}

// confirmed makes a request with user-interactive authentication by password.
func (d *device) confirmed(t *testing.T, method, path string, in body) {
	t.Helper()
	a := d.call(t, method, path, in)
	if a.status != http.StatusUnauthorized || a.body["flows"] == nil {
		t.Fatalf("no user-interactive authentication: %d %s", a.status, a.raw)
	}
	d.alive(t) // the session goes on
	again := body{"auth": d.user.auth(a.body.text("session"))}
	for k, v := range in {
		again[k] = v
	}
	d.call(t, method, path, again).ok(t)
}

// ended fails the test unless both tokens of the device are refused.
func (d *device) ended(t *testing.T) {
	t.Helper()
	d.dead(t)
	if d.refresh != "" {
		d.refreshed(t).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	}
}

func (g *gateway) testSameDevice(t *testing.T) {
	u := g.register(t, "again")
	first := u.login(t, body{"refresh_token": true})
	second := u.login(t, body{"device_id": first.id})
	if second.id != first.id {
		t.Fatalf("devices %s and %s", first.id, second.id)
	}
	first.replaced(t)
	second.alive(t)
}

func (g *gateway) testLogout(t *testing.T) {
	a, b := g.pair(t, "leaver")
	b.call(t, "POST", "/logout", body{}).ok(t)
	b.ended(t)
	if g.homeserver.has(t, b) {
		t.Error("the homeserver still has the device")
	}
	a.alive(t)
}

func (g *gateway) testLogoutAll(t *testing.T) {
	a, b := g.pair(t, "leaver2")
	a.call(t, "POST", "/logout/all", body{}).ok(t)
	a.ended(t)
	b.ended(t)
	c := a.user.login(t, nil)
	c.alive(t)
}

func (g *gateway) testDeleteDevice(t *testing.T) {
	a, b := g.pair(t, "deleter")
	a.confirmed(t, "DELETE", "/devices/"+b.id, body{})
	b.ended(t)
	a.alive(t)
}

func (g *gateway) testDeleteDevices(t *testing.T) {
	a, b := g.pair(t, "deleter2")
	c := a.user.login(t, nil)
	a.confirmed(t, "POST", "/delete_devices", body{"devices": []string{b.id, c.id}})
	b.ended(t)
	c.ended(t)
	a.alive(t)
}

func (g *gateway) testPassword(t *testing.T) {
	a, b := g.pair(t, "changer")
	a.confirmed(t, "POST", "/account/password", body{"new_password": "a new password", "logout_devices": false})
	a.user.password = "a new password"
	a.alive(t)
	b.alive(t)
	a.confirmed(t, "POST", "/account/password", body{"new_password": "another password"})
	a.alive(t)
	b.ended(t)
}

func (g *gateway) testDeactivate(t *testing.T) {
	a, b := g.pair(t, "quitter")
	a.confirmed(t, "POST", "/account/deactivate", body{})
	a.ended(t)
	b.ended(t)
}

// A session that ends at the homeserver, without the gateway, ends here too, at the
// first request that the homeserver refuses.
func (g *gateway) testKilledUpstream(t *testing.T) {
	a, b := g.pair(t, "behind")
	killer := (&user{&g.homeserver.site, a.user.name, a.user.password}).login(t, nil)
	killer.confirmed(t, "POST", "/delete_devices", body{"devices": []string{a.id, b.id}})
	if g.homeserver.kind.keepsOld {
		a.ended(t)
		b.ended(t)
		return
	}
	// The homeserver answers in the same way, without soft_logout, for a token that a
	// newer login ended. The end of a session as young as these is soft.
	a.asIs(t).over(t)
	b.asIs(t).over(t)
}
