package matrix

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// round is a user-interactive authentication whose last request has other members than
// its first.
type round struct {
	path        string
	first, last body
}

// rounds returns requests that may end the sessions of a device.
func rounds(id string) map[string]round {
	const password, devices = "/account/password", "/delete_devices"
	list, none := []string{id}, []string{}
	return map[string]round{
		"keep, first only":      {password, body{"new_password": "new", "logout_devices": false}, body{"new_password": "new"}},
		"log out, first only":   {password, body{"new_password": "new", "logout_devices": true}, body{"new_password": "new"}},
		"keep, last only":       {password, body{"new_password": "new"}, body{"new_password": "new", "logout_devices": false}},
		"keep, then log out":    {password, body{"new_password": "new", "logout_devices": false}, body{"new_password": "new", "logout_devices": true}},
		"password, auth alone":  {password, body{"new_password": "new"}, nil},
		"devices, auth alone":   {devices, body{"devices": list}, nil},
		"devices, first only":   {devices, body{"devices": list}, body{"devices": none}},
		"devices, last only":    {devices, body{"devices": none}, body{"devices": list}},
		"one device":            {"/devices/" + url.PathEscape(id), body{}, nil},
		"deactivate, more last": {"/account/deactivate", body{}, body{"erase": false}},
	}
}

// testInteractive plays rounds. The homeserver may grant or refuse each: the other
// device's session has ended if and only if its device is gone.
func (g *gateway) testInteractive(t *testing.T) {
	for name := range rounds("") {
		t.Run(name, func(t *testing.T) {
			a, b := g.pair(t, "round-"+strings.NewReplacer(" ", "-", ",", "").Replace(name))
			r := rounds(b.id)[name]
			method := http.MethodPost
			if strings.HasPrefix(r.path, "/devices/") {
				method = http.MethodDelete
			}
			challenge := a.call(t, method, r.path, r.first)
			if challenge.status != http.StatusUnauthorized || challenge.body["flows"] == nil {
				t.Fatalf("no challenge: %d %s", challenge.status, challenge.raw)
			}
			last := body{"auth": a.user.auth(challenge.body.text("session"))}
			for k, v := range r.last {
				last[k] = v
			}
			answer := a.call(t, method, r.path, last)
			if g.homeserver.has(t, b) && g.homeserver.tokens(t, b) != nil {
				b.alive(t)
				b.refreshed(t).ok(t)
				return
			}
			if answer.status != http.StatusOK {
				t.Fatalf("the device is gone after %d %s", answer.status, answer.raw)
			}
			b.ended(t)
		})
	}
}

// testDeviceNames logs in and out on devices with all kinds of valid names.
func (g *gateway) testDeviceNames(t *testing.T) {
	u := g.register(t, "namer")
	other := u.login(t, nil)
	for name, id := range map[string]string{
		"255": strings.Repeat("D", 255), "256": strings.Repeat("D", 256), "512": strings.Repeat("D", 512), "wide": strings.Repeat("𝕕", 512),
		"control": strings.Repeat("\x01", 512), "newline": "a\nb", "path": "a/b?c#d%2f", "space": " x ",
	} {
		for _, refresh := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				d := u.login(t, body{"device_id": id, "refresh_token": refresh})
				if d.id != id {
					t.Fatalf("device %q", d.id)
				}
				d.alive(t)
				other.confirmed(t, "DELETE", "/devices/"+url.PathEscape(id), body{})
				d.ended(t)
				d = u.login(t, body{"device_id": id, "refresh_token": refresh})
				d.call(t, "POST", "/logout", body{}).ok(t)
				d.ended(t)
				other.alive(t)
			})
		}
	}
	if a, err := u.tryLogin(body{"device_id": strings.Repeat("D", 513)}); err != nil || a.status != http.StatusBadRequest || a.body.text("errcode") != "M_INVALID_PARAM" {
		t.Errorf("%d %s, %v", a.status, a.raw, err)
	}
}
