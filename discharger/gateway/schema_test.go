package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/schema"
)

// The published schema of conditions agrees with the gateway.
func TestSchema(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../deploy/gateway-caveats.yaml")
	testkit.NoError(t, err)
	file, err := schema.Load("gateway-caveats.yaml", data)
	testkit.NoError(t, err)
	checker, err := schema.New(schema.Config{Schema: file})
	testkit.NoError(t, err)
	for _, path := range []string{
		upstream.PathWhoami, "/_matrix/client/versions", "/_matrix/client/v3/rooms/!r:hs/messages", "/_matrix/client/v3/rooms/!q:hs/send/x/1",
		"/_matrix/client/v1/rooms/!r:hs/hierarchy",
		"/_matrix/client/v3/sync", "/_matrix/client/v1/media/download/a/b", "/_matrix/client/v3/createRoom", "/_matrix/client/v3/joined_rooms",
	} {
		for _, method := range []string{"GET", "PUT"} {
			x := &exchange{method: method}
			if f := x.matchRoute(httptest.NewRequest(method, path, nil)); f != nil {
				t.Fatal(f.Message)
			}
			ctx := context.WithValue(context.Background(), exchangeKey{}, x)
			general, room := !x.match.Has("room") && x.match.Allows(matrix.InRoom), ""
			if x.match.Allows(matrix.InRoom) {
				room = x.match.ID("room")
			}
			values := map[string]any{"reads": x.match.Allows(matrix.ReadOnly), "general": general, "room": room}
			for _, condition := range []string{"read-only", "room !r:hs", "room !q:hs", "room", "read-only x", "moon-phase full"} {
				ours := checkCondition(ctx, homeserver.Caveat{Condition: condition})
				theirs := checker.CheckOne(ctx, condition, schema.Request{Values: values})
				if (ours == nil) != (theirs == nil) {
					t.Errorf("%s %s, %s: gateway %v, schema %v", method, path, condition, ours, theirs)
				}
			}
		}
	}
}

// A discharge bound to an address is fetched again when the client has moved, but not
// for two addresses alternately.
func TestClientMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) {
		w.stopped = time.Now()
		w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		w.policy = func(in *policy.Input) policy.Decision {
			return policy.Decision{Effect: policy.EffectAllow, Caveats: []string{"client-ip " + in.Request.IP}}
		}
	})
	token := w.login(false).text("access_token")
	from := func(addr string) int {
		req, err := http.NewRequest("GET", w.http.URL+upstream.PathWhoami, nil)
		testkit.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("X-Forwarded-For", addr)
		return w.send(req).status
	}
	w.forward(service.RebindInterval)
	if status := from("192.0.2.1"); status != 200 {
		t.Errorf("moved: %d", status)
	}
	if status := from("192.0.2.2"); status != 403 {
		t.Errorf("moved again at once: %d", status)
	}
	if status := from("192.0.2.1"); status != 200 {
		t.Errorf("where it is: %d", status)
	}
}

// A policy can narrow a session in both modes.
func TestPolicyNarrows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) {
		w.policy = func(*policy.Input) policy.Decision {
			return policy.Decision{Effect: policy.EffectAllow, Caveats: []string{token.CondReadOnly}}
		}
	})
	for _, refresh := range []bool{false, true} {
		token := w.login(refresh).text("access_token")
		w.want(w.do("GET", "/_matrix/client/v3/joined_rooms", token, nil), 200, "")
		w.want(w.do("POST", "/_matrix/client/v3/createRoom", token, anyMap{}), 403, matrix.CodeForbidden)
		w.want(w.do("POST", "/_matrix/client/v3/logout", token, anyMap{}), 200, "")
	}
}
