package matrix

import (
	"net/http"
	"strings"
	"testing"
)

// playLogout logs out the last session of a device that had others.
func playLogout(t *testing.T, s *stage) {
	for i := range s.rounds {
		old := s.login(t, i, randomName())
		newest := s.login(t, i+1, old.id)
		newest.uploadKeys(t)
		s.only(t, newest, old)
		newest.call(t, "POST", "/logout", body{}).ok(t)
		s.gone(t, newest)
		for _, g := range s.gateways {
			s.ended(t, newest, g)
			s.over(t, old, g)
		}
	}
}

// ended waits until a gateway refuses a session hard.
func (s *stage) ended(t *testing.T, d *device, g *gateway) {
	t.Helper()
	d.through(&g.site)
	eventually(t, "a session is over", func() bool {
		return decided(t, func() answer { return d.whoami(t) }).status != http.StatusOK
	})
	d.ended(t)
}

// expire waits until the access token has expired.
func (d *device) expire(t *testing.T) {
	t.Helper()
	eventually(t, "the access token runs out", func() bool {
		a := decided(t, func() answer { return d.asIs(t) })
		if a.status == http.StatusOK {
			return false
		}
		a.over(t)
		return true
	})
}

func playLogoutExpired(t *testing.T, s *stage) {
	d := s.login(t, 0, randomName())
	d.uploadKeys(t)
	d.expire(t)
	decided(t, func() answer { return d.logout(t) }).ok(t)
	s.gone(t, d)
	s.ended(t, d, s.gateways[0])
}

func playLogoutAllExpired(t *testing.T, s *stage) {
	d, other := s.login(t, 0, randomName()), s.login(t, 1, randomName())
	d.uploadKeys(t)
	other.uploadKeys(t)
	d.expire(t)
	decided(t, func() answer { return d.user.site.call(t, "POST", clientV3+"/logout/all", d.token, body{}) }).ok(t)
	for _, d := range []*device{d, other} {
		s.gone(t, d)
		for _, g := range s.gateways {
			s.ended(t, d, g)
		}
	}
}

// playAsUser uses a user's account as an administrator. The user cannot end this
// session.
func playAsUser(t *testing.T, s *stage) {
	admin := s.homeserver.registerAdmin(t, "admin"+strings.ToLower(randomName()))
	token := admin.user.at(s.site(0)).login(t, nil).token
	a := s.site(0).call(t, "POST", adminPath("v1", s.user, "/login"), token, body{}).ok(t)
	asUser := &device{user: s.user.at(s.site(0))}
	asUser.take(t, a)
	one, other := s.login(t, 0, randomName()), s.login(t, 1, randomName())
	acts := func() {
		t.Helper()
		if a := decided(t, func() answer { return asUser.asIs(t) }); a.ok(t).body.text("user_id") != s.user.id() {
			t.Fatalf("another user: %s", a.raw)
		}
	}
	acts()
	one.call(t, "POST", "/logout/all", body{}).ok(t)
	s.gone(t, one)
	s.gone(t, other)
	for _, g := range s.gateways {
		s.ended(t, one, g)
		s.ended(t, other, g)
	}
	s.settle(t)
	acts()
}

// playGuest revokes a guest's session. Synapse has no logout for guests: the gateway
// must not repeat it after a refusal.
func playGuest(t *testing.T, s *stage) {
	in := body{}
	if s.rotate {
		in["refresh_token"] = true
	}
	a := s.site(0).call(t, "POST", clientV3+"/register?kind=guest", "", in).ok(t)
	name, _, _ := strings.Cut(strings.TrimPrefix(a.body.text("user_id"), "@"), ":")
	guest := &device{user: &user{site: s.site(0), name: name}, id: a.body.text("device_id")}
	guest.take(t, a)
	if a := guest.whoami(t).ok(t); a.body.text("user_id") != guest.user.id() {
		t.Fatalf("another user: %s", a.raw)
	}
	s.revoke(t, guest.user)
	for _, g := range s.gateways {
		s.ended(t, guest, g)
	}
	s.settle(t)
	s.settle(t)
	if n := s.refused.Load(); n > 1 {
		t.Errorf("the guest's logout was refused %d times, and tried again", n)
	}
}

// playDeleted deletes a device at the homeserver, as an administrator. The gateway
// detects it at the next request that would be granted.
func playDeleted(t *testing.T, s *stage) {
	admin := s.homeserver.registerAdmin(t, "admin"+strings.ToLower(randomName()))
	for i := range s.rounds {
		d := s.login(t, i, randomName())
		s.alive(t, d)
		s.homeserver.call(t, "DELETE", adminPath("v2", s.user, "/devices/"+d.id), admin.token, nil).ok(t)
		if s.rotate {
			decided(t, func() answer { return d.refreshed(t) }).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
		}
		decided(t, func() answer { return d.whoami(t) }).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	}
}
