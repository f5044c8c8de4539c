package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/testkit"
)

// A narrowed token is accepted on the routes that its conditions allow.
func TestNarrowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	whole := w.login(false).text("access_token")
	const client = "/_matrix/client/v3/"
	const room = "rooms/%21r%3Ahs"
	soon := rawmacaroon.TimeBefore(w.now().Add(time.Hour))
	for _, c := range []struct {
		conditions []string
		method     string
		path       string
		want       int
	}{
		{[]string{soon}, "GET", client + "sync", 200},
		{[]string{soon}, "PUT", client + room + "/send/m.room.message/1", 200},
		{[]string{soon}, "POST", client + "logout", 403},
		{[]string{soon}, "POST", client + "logout/all", 403},
		{[]string{soon}, "POST", client + "account/password", 403},
		{[]string{soon}, "POST", client + "account/deactivate", 403},
		{[]string{soon}, "POST", client + "account/3pid/add", 403},
		{[]string{soon}, "GET", client + "account/whoami", 200},
		{[]string{soon}, "GET", client + "devices", 403},
		{[]string{soon}, "DELETE", client + "devices/X", 403},
		{[]string{soon}, "POST", client + "delete_devices", 403},
		{[]string{soon}, "POST", "/_matrix/client/v1/login/get_token", 403},
		{[]string{soon}, "POST", client + "%6Cogout", 404},
		{[]string{soon}, "POST", client + "keys/upload", 403},
		{[]string{soon}, "POST", client + "keys/query", 200},
		{[]string{soon}, "POST", client + "user/@u:hs/openid/request_token", 403},
		{[]string{soon}, "GET", "/_synapse/admin/v1/server_version", 403},
		{[]string{soon}, "GET", "/_matrix/client/v3/../x", 400},
		{[]string{soon}, "GET", "/_matrix/media/v3/config", 200},
		{[]string{soon}, "GET", client + "pushrules/", 200},
		{[]string{soon}, "PUT", client + "pushrules/global/content/x", 403},
		{[]string{soon}, "PUT", client + "profile/@u:hs/displayname", 403},
		{[]string{soon}, "PUT", client + "user/@u:hs/account_data/x", 403},
		{[]string{soon}, "GET", client + room + "/state/m.room.topic/", 200},
		{[]string{soon}, "GET", client + "unknown", 403},
		{[]string{soon}, "POST", client + "user/@u:hs%2Fopenid%2Frequest_token%3F/filter", 403},

		{[]string{token.CondReadOnly}, "GET", client + room + "/messages?limit=1", 200},
		{[]string{token.CondReadOnly}, "HEAD", client + "joined_rooms", 200},
		{[]string{token.CondReadOnly}, "PUT", client + room + "/send/m.room.message/1", 403},
		{[]string{token.CondReadOnly}, "POST", client + "search", 403},
		{[]string{token.CondReadOnly}, "GET", client + "sync", 403},
		{[]string{token.CondReadOnly}, "GET", client + "events", 403},
		{[]string{token.CondReadOnly}, "GET", client + "room_keys/keys", 403},
		{[]string{token.CondReadOnly}, "GET", "/_matrix/client/v1/media/download/hs/x", 200},
		{[]string{token.CondReadOnly}, "GET", "/_matrix/media/v3/download/hs/x", 200},
		{[]string{token.CondReadOnly}, "POST", "/_matrix/media/v3/upload", 403},
		{[]string{token.CondReadOnly}, "GET", "/_matrix/client/versions", 200},

		{[]string{"room !r:hs"}, "PUT", client + room + "/send/m.room.message/1", 200},
		{[]string{"room !r:hs"}, "GET", client + "rooms/!r:hs/state", 200},
		{[]string{"room !r:hs"}, "GET", client + "rooms/!q:hs/state", 403},
		{[]string{"room !r:hs"}, "GET", client + "rooms/!r:hs%2F..%2F!q:hs/state", 400},
		{[]string{"room !r:hs"}, "GET", client + "rooms/!r:hs/../!q:hs/state", 400},
		{[]string{"room !r:hs"}, "POST", client + room + "/upgrade", 403},
		{[]string{"room !r:hs"}, "POST", client + "createRoom", 403},
		{[]string{"room !r:hs"}, "GET", client + "sync", 403},
		{[]string{"room !r:hs"}, "GET", "/_matrix/client/v1/" + room + "/hierarchy", 403},
		{[]string{"room !r:hs", token.CondReadOnly}, "PUT", client + room + "/send/m.room.message/1", 403},
		{[]string{"room !r:hs", token.CondReadOnly}, "GET", client + room + "/messages", 200},
		{[]string{"room !r:hs", "room !q:hs"}, "GET", client + room + "/messages", 403},

		{[]string{"client-ip 127.0.0.1"}, "GET", upstream.PathWhoami, 200},
		{[]string{"client-ip 192.0.2.0/24"}, "GET", upstream.PathWhoami, 403},
		{[]string{rawmacaroon.TimeBefore(w.now())}, "GET", upstream.PathWhoami, 401},
	} {
		t.Run(fmt.Sprintf("%q %s %s", c.conditions, c.method, c.path), func(t *testing.T) {
			token, err := token.Attenuate(whole, c.conditions...)
			testkit.NoError(t, err)
			before := w.hs.count()
			a := w.do(c.method, c.path, token, nil)
			if a.status != c.want {
				t.Errorf("%d %s", a.status, a.raw)
			}
			if (w.hs.count() > before) != (c.want == 200) {
				t.Errorf("%d requests forwarded", w.hs.count()-before)
			}
		})
	}
	w.want(w.do("GET", upstream.PathWhoami, whole, nil), 200, "")

	// An expired narrowed token fetches nothing and does not keep its session alive.
	short, err := token.Attenuate(whole, rawmacaroon.TimeBefore(w.now().Add(time.Minute)))
	testkit.NoError(t, err)
	w.want(w.do("GET", upstream.PathWhoami, short, nil), 200, "")
	w.forward(2 * testTTL)
	asked := w.asked.Load()
	w.want(w.do("GET", upstream.PathWhoami, short, nil), 401, matrix.CodeUnknownToken)
	if w.asked.Load() != asked {
		t.Error("discharge was fetched")
	}
}

// Attenuate refuses malformed conditions, and a narrowed token cannot be widened.
func TestAttenuateRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held, rotate := w.login(false).text("access_token"), w.login(true)
	for _, c := range []struct{ token, condition string }{
		{held, "moon-phase full"}, {held, "room"}, {held, "room x"}, {held, "read-only yes"}, {held, "time-before tomorrow"}, {held, ""},
		{held, "client-ip nowhere"}, {held, "declared epoch 3"},
		{rotate.text("access_token"), token.CondReadOnly}, {rotate.text("refresh_token"), token.CondReadOnly}, {"syt_x", token.CondReadOnly},
		{held[:len(held)-2], token.CondReadOnly},
	} {
		t.Run(fmt.Sprintf("%.4s %q", c.token, c.condition), func(t *testing.T) {
			if got, err := token.Attenuate(c.token, c.condition); err == nil || got != "" {
				t.Errorf("result %q, error %v", got, err)
			}
		})
	}
	b, err := token.ParseAccess(held)
	testkit.NoError(t, err)
	m, err := token.AccessOf(b)
	testkit.NoError(t, err)
	testkit.NoError(t, m.AddFirstPartyCaveat([]byte("moon-phase full")))
	odd, err := token.EncodeHeld(m)
	testkit.NoError(t, err)
	before := w.hs.count()
	if a := w.want(w.do("GET", upstream.PathWhoami, odd, nil), 401, matrix.CodeUnknownToken); !a.soft() || w.hs.count() > before {
		t.Errorf("%s", a.raw)
	}
}
