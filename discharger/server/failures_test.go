package server_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/wire"
)

// failureLimit is how many failures a client may have in a window.
const failureLimit = 200

// stopped has a clock that stands still, so that all failures are in one window.
func stopped(c *server.Config) {
	now := time.UnixMilli(1_790_000_000_000)
	*c = c.WithClock(func() time.Time { return now })
}

// TestEndsForManyClients has a homeserver ask for more clients than may fail,
// whose sessions are over. It is answered so for each of them, and no other
// request is held up.
func TestEndsForManyClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stopped)
	key := []string{"Authorization", "Bearer " + apiKey}
	good, ended := form("id64", b64(w.mint(caveat.ModeOpen))), form("id64", b64(w.mint(caveat.ModeOpen)))
	if a := w.post(wire.PathLogout, ended); a.status != http.StatusOK {
		t.Fatalf("logout: %d %s", a.status, a.body)
	}
	for n := range failureLimit + 50 {
		for name, who := range map[string]string{"one address": "192.0.2.1", "an address each": fmt.Sprint("198.51.100.", n), "no address": ""} {
			ended.Set("client-ip", who)
			if a := w.post(wire.PathDischarge, ended, key...); a.status != http.StatusUnauthorized || !a.error(t).Info.Ended {
				t.Fatalf("client %d, %s: %d %s", n, name, a.status, a.body)
			}
		}
	}
	w.post(wire.PathDischarge, good, key...).discharge(t)
	if a := w.post(wire.PathDischarge, form("id", "x")); a.status != http.StatusBadRequest {
		t.Errorf("another client at the homeserver's address: %d %s", a.status, a.body)
	}
}

// TestFailuresThroughHomeserver has one client of a homeserver fail too often.
// Only that client is put off: not the homeserver, none of its other clients,
// none that claims the same address elsewhere, and no end of a session.
func TestFailuresThroughHomeserver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stopped, withStranger)
	post := func(key, who string, more ...string) int {
		return w.post(wire.PathDischarge, form(append([]string{"id", "x", "client-ip", who}, more...)...), "Authorization", "Bearer "+key).status
	}
	for n := range failureLimit {
		if got := post(apiKey, "2001:db8::1"); got != http.StatusBadRequest {
			t.Fatalf("failure %d: %d", n, got)
		}
	}
	ended := b64(w.mint(caveat.ModeOpen))
	if a := w.post(wire.PathLogout, form("id64", ended)); a.status != http.StatusOK {
		t.Fatalf("logout: %d %s", a.status, a.body)
	}
	live := b64(w.mint(caveat.ModeHeld))
	for _, c := range []struct {
		name string
		got  int
		want int
	}{
		{"the client", post(apiKey, "2001:db8::1"), http.StatusTooManyRequests},
		{"its neighbour in the /64", post(apiKey, "2001:db8::2"), http.StatusTooManyRequests},
		{"another client", post(apiKey, "2001:db8:0:1::1"), http.StatusBadRequest},
		{"the homeserver itself", post(apiKey, ""), http.StatusBadRequest},
		{"the same address at another homeserver", post(strangersKey, "2001:db8::1"), http.StatusBadRequest},
		{"a client at the homeserver's address", w.post(wire.PathDischarge, form("id", "x")).status, http.StatusBadRequest},
		{"the client, in order", w.post(wire.PathDischarge, form("id64", live, "client-ip", "2001:db8::1"), "Authorization", "Bearer "+apiKey).status, http.StatusOK},
		{"the client, whose session is over", w.post(wire.PathDischarge, form("id64", ended, "client-ip", "2001:db8::1"), "Authorization", "Bearer "+apiKey).status, http.StatusUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.got != c.want {
				t.Errorf("got %d, want %d", c.got, c.want)
			}
		})
	}
	list := w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions?kind=x", "", "Authorization", "Bearer "+apiKey)
	for range failureLimit + 1 {
		if a := w.do(list); a.status != http.StatusBadRequest {
			t.Fatalf("request of the homeserver's own: %d %s", a.status, a.body)
		}
	}
}
