package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/uia"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

const pathRegister = "/_matrix/client/v3/register"

// beginRegistration begins a registration and returns its session's name.
func (w *world) beginRegistration(in anyMap) string {
	w.t.Helper()
	a := w.do("POST", pathRegister, "", in)
	name := a.text("session")
	if a.status != 401 || a.body["flows"] == nil || name == "" {
		w.t.Fatalf("%d %s", a.status, a.raw)
	}
	return name
}

// answered completes both stages, the last with additional members.
func (w *world) answered(name string, last anyMap) answer {
	w.t.Helper()
	a := w.do("POST", pathRegister, "", anyMap{"auth": anyMap{"type": "m.login.dummy", "session": name}})
	if a.status != 401 || a.text("session") != name {
		w.t.Fatalf("%d %s", a.status, a.raw)
	}
	in := anyMap{"auth": anyMap{"type": "m.login.terms", "session": name}}
	for k, v := range last {
		in[k] = v
	}
	return w.want(w.do("POST", pathRegister, "", in), 200, "")
}

// refresh_token in the first request of a registration applies to the last, unless that
// has another value.
func TestRegistrationWithUIA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hs.questions = make(map[string]anyMap)
	for _, gzip := range []bool{false, true} {
		w.hs.set(func(s *stub) { s.gzip = gzip })
		for _, c := range []struct {
			name        string
			first, last anyMap
			want        token.Kind
		}{
			{"first", anyMap{"refresh_token": true}, nil, token.Rotate},
			{"first, old name", anyMap{memberRefreshOld: true}, nil, token.Rotate},
			{"last", anyMap{}, anyMap{"refresh_token": true}, token.Rotate},
			{"both", anyMap{"refresh_token": true}, anyMap{"refresh_token": true}, token.Rotate},
			{"withdrawn", anyMap{"refresh_token": true}, anyMap{"refresh_token": false}, token.Held},
			{"never", anyMap{"device_id": "D"}, nil, token.Held},
		} {
			t.Run(fmt.Sprintf("%s, gzip %v", c.name, gzip), func(t *testing.T) {
				a := w.answered(w.beginRegistration(c.first), c.last)
				if got := token.KindOf(a.text("access_token")); got != c.want || (a.text("refresh_token") != "") != (c.want == token.Rotate) {
					t.Errorf("%s", a.raw)
				}
				w.want(w.do("GET", upstream.PathWhoami, a.text("access_token"), nil), 200, "")
			})
		}
	}
	w.hs.set(func(s *stub) {
		for _, r := range s.requests {
			if strings.Contains(r.Body, "refresh_token\":true") {
				t.Errorf("refresh token requested of the homeserver: %s", r.Body)
			}
		}
	})
}

// Concurrent registrations have separate parameters, which expire. Another gateway has
// none of them: there the mode is held.
func TestUIASessionsAreSeparate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hs.questions = make(map[string]anyMap)
	rotate, held := w.beginRegistration(anyMap{"refresh_token": true}), w.beginRegistration(anyMap{})
	if a := w.answered(held, nil); token.KindOf(a.text("access_token")) != token.Held {
		t.Errorf("%s", a.raw)
	}
	if a := w.answered(rotate, nil); token.KindOf(a.text("access_token")) != token.Rotate {
		t.Errorf("%s", a.raw)
	}
	late := w.beginRegistration(anyMap{"refresh_token": true})
	w.forward(uia.Life + time.Second)
	if a := w.answered(late, nil); token.KindOf(a.text("access_token")) != token.Held {
		t.Errorf("%s", a.raw)
	}
	elsewhere := w.beginRegistration(anyMap{"refresh_token": true})
	w.http.Close()
	testkit.NoError(t, w.gateway.Close())
	w.cfg.Registerer = nil
	w.startGateway()
	a := w.answered(elsewhere, nil)
	if token.KindOf(a.text("access_token")) != token.Held || a.text("refresh_token") != "" {
		t.Errorf("%s", a.raw)
	}
	w.want(w.do("GET", upstream.PathWhoami, a.text("access_token"), nil), 200, "")
}

// interaction is a case of TestInteractiveAuthentication.
type interaction struct {
	path        string
	first, last anyMap
	ended       bool // the other session has ended
}

func interactions(device string) map[string]interaction {
	const password, deletion = "/_matrix/client/v3/account/password", "/_matrix/client/v3/delete_devices"
	devices := []string{device}
	return map[string]interaction{
		"password, complete":      {password, anyMap{"new_password": "n", "logout_devices": false}, anyMap{"new_password": "n", "logout_devices": false}, false},
		"password, keep":          {password, anyMap{"new_password": "n", "logout_devices": false}, nil, false},
		"password, log out":       {password, anyMap{"new_password": "n", "logout_devices": true}, nil, true},
		"password, default":       {password, anyMap{"new_password": "n"}, nil, true},
		"password, withdrawn":     {password, anyMap{"logout_devices": true}, anyMap{"new_password": "n", "logout_devices": false}, false},
		"devices, complete":       {deletion, anyMap{"devices": devices}, anyMap{"devices": devices}, true},
		"devices":                 {deletion, anyMap{"devices": devices}, nil, true},
		"devices, others before":  {deletion, anyMap{"devices": devices}, anyMap{"devices": []string{"NONE"}}, false},
		"devices, others later":   {deletion, anyMap{"devices": []string{"NONE"}}, anyMap{"devices": devices}, true},
		"devices, none":           {deletion, anyMap{"devices": []string{}}, nil, false},
		"one device":              {"/_matrix/client/v3/devices/" + device, anyMap{}, nil, true},
		"deactivation":            {"/_matrix/client/v3/account/deactivate", anyMap{}, nil, true},
		"deactivation, with more": {"/_matrix/client/v3/account/deactivate", anyMap{"erase": true}, anyMap{"erase": true}, true},
	}
}

// After user-interactive authentication exactly the sessions end whose devices the
// homeserver has deleted: also if the last request has only auth, and after a restart
// in between.
func TestInteractiveAuthentication(t *testing.T) {
	t.Parallel()
	for name := range interactions("") {
		for how, change := range map[string]struct {
			dendrite, restart, noDevices bool
		}{
			"": {}, " restarted": {restart: true}, " at a Dendrite": {dendrite: true}, " at a Dendrite restarted": {dendrite: true, restart: true},
			" without a list": {noDevices: true}, " without a list restarted": {noDevices: true, restart: true},
		} {
			t.Run(name+how, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.hs.set(func(s *stub) { s.dendrite, s.noDevices = change.dendrite, change.noDevices })
				mine, other := w.login(false).text("access_token"), w.login(true)
				c := interactions(other.text("device_id"))[name]
				method := "POST"
				if strings.Contains(c.path, "/devices/") {
					method = "DELETE"
				}
				a := w.do(method, c.path, mine, c.first)
				session := a.text("session")
				if a.status != 401 || session == "" {
					t.Fatalf("%d %s", a.status, a.raw)
				}
				if change.restart {
					w.restart()
				}
				last := anyMap{"auth": anyMap{"type": "m.login.password", "session": session}}
				for k, v := range c.last {
					last[k] = v
				}
				w.want(w.do(method, c.path, mine, last), 200, "")
				alive := w.hs.alive(other.text("device_id"))
				if alive == c.ended && !change.dendrite {
					t.Fatalf("device alive at the homeserver: %v", alive)
				}
				live, err := w.gateway.client.Sessions(t.Context(), "@u:hs")
				testkit.NoError(t, err)
				atService := false
				for _, s := range live {
					atService = atService || s.Device == other.text("device_id")
				}
				if atService != alive {
					t.Errorf("alive at the homeserver: %v, at the service: %v", alive, atService)
				}
				if got := w.refresh(other.text("refresh_token")); (got.status == 200) != alive {
					t.Errorf("alive: %v, but %d %s", alive, got.status, got.raw)
				}
			})
		}
	}
}

// A request is refused if the homeserver might parse its body differently.
func TestAmbiguousBodies(t *testing.T) {
	t.Parallel()
	const password, deletion = "/_matrix/client/v3/account/password", "/_matrix/client/v3/delete_devices"
	for _, c := range []struct {
		name, path, body string
		want             int
		code             string
	}{
		{"flag twice", password, `{"logout_devices":true,"logout_devices":false,"new_password":"n"}`, 400, matrix.CodeBadJSON},
		{"half a character", password, `{"logout_devices":false,"new_password":"\ud800"}`, 400, matrix.CodeBadJSON},
		{"devices twice", deletion, `{"devices":["ONE"],"devices":["TWO"]}`, 400, matrix.CodeBadJSON},
		{"list", deletion, `["ONE"]`, 400, matrix.CodeBadJSON},
		{"no JSON", deletion, "{", 401, matrix.CodeForbidden}, // Synapse takes it for {}
		{"empty", deletion, "", 401, matrix.CodeForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			mine, other := w.login(false).text("access_token"), w.login(false).text("access_token")
			before := w.hs.count()
			a := w.want(w.do("POST", c.path, mine, c.body), c.want, c.code)
			if passed := w.hs.count() > before; passed != (c.want == 401) {
				t.Errorf("forwarded: %v", passed)
			}
			if c.want == 401 && a.text("session") == "" {
				t.Errorf("%s", a.raw)
			}
			w.want(w.do("GET", upstream.PathWhoami, other, nil), 200, "")
		})
	}
}

// Requests without a gateway token add nothing to the UIA sessions of users.
func TestStrangersHaveNoUIASessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hs.handler = func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(rw, `{"session":"s","flows":[]}`)
	}
	w.do("POST", "/_matrix/client/v3/account/password", "", anyMap{"new_password": "n"})
	w.do("POST", "/_matrix/client/v3/account/password", "syt_old", anyMap{"new_password": "n"})
	if n := w.gateway.uiaUsers.Len(); n != 0 {
		t.Errorf("%d sessions are kept", n)
	}
}
