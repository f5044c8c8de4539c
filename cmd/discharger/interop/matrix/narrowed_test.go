package matrix

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// narrowing is a way to narrow a token.
type narrowing struct {
	name  string
	flags []string // of discharger attenuate

	readOnly, inRoom bool
}

// narrowings returns the conditions of narrowed tokens, alone and together.
func narrowings(room string) []narrowing {
	limited := []string{"--for", "1h"}
	address := []string{"--ip", "127.0.0.0/8"}
	readOnly := []string{"--read-only"}
	inRoom := []string{"--room", room}
	return []narrowing{
		{"room", inRoom, false, true},
		{"read-only", readOnly, true, false},
		{"time-before", limited, false, false},
		{"client-ip", address, false, false},
		{"room, read-only", slices.Concat(inRoom, readOnly), true, true},
		{"room, time-before", slices.Concat(inRoom, limited), false, true},
		{"read-only, client-ip", slices.Concat(readOnly, address), true, false},
		{"all", slices.Concat(inRoom, readOnly, limited, address), true, true},
	}
}

// TestNarrowed requests every route of the table, and every other route of Synapse,
// with narrowed tokens. Requests that the table allows reach the homeserver, and others
// do not.
func TestNarrowed(t *testing.T) {
	k, table := assemble(t), gatewayTable(t)
	for _, kind := range kinds() {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			testNarrowed(t, k, kind, table)
		})
	}
}

func testNarrowed(t *testing.T, k *kit, kind *homeserverKind, table []tableRoute) {
	h := kind.start(t, k)
	seen := startSeeing(t, h.url)
	d := deploy(t, k, h, settings{ttl: time.Hour, before: seen.url})
	s := &side{site: &d.gateways[0].site, aliases: map[string]string{}}
	s.newCast(t, 1)
	n := &narrowed{table: table, seen: seen, side: s, values: s.cast.values}
	for _, how := range narrowings(n.values["room_id"]) {
		n.tokens = append(n.tokens, narrowedToken{how, attenuated(t, k, s.cast.user.token, how.flags...)})
	}
	t.Run("another room", func(t *testing.T) { n.testOtherRoom(t, k) })
	t.Run("routes", n.testRoutes)
	t.Run("extensions", n.testExtensions)
	s.cast.user.alive(t)
}

// narrowed makes requests with narrowed tokens of one user.
type narrowed struct {
	table     []tableRoute
	seen      *seeing
	side      *side
	values    map[string]string
	tokens    []narrowedToken
	requested int
}

type narrowedToken struct {
	narrowing
	text string
}

// seeing is a proxy before a homeserver that records requests with a token. Requests
// have a number in the query.
type seeing struct {
	url  string
	mu   sync.Mutex
	with map[string]bool // by number
}

func startSeeing(t *testing.T, homeserver string) *seeing {
	t.Helper()
	target, err := url.Parse(homeserver)
	if err != nil {
		t.Fatal(err)
	}
	s := &seeing{with: map[string]bool{}}
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.with[r.URL.Query().Get("n")] = r.Header.Get("Authorization") != ""
		s.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// request makes a request and reports whether it reached the homeserver, and with a
// token.
func (n *narrowed) request(t *testing.T, method, path, token string) (a answer, reached, withToken bool) {
	t.Helper()
	n.requested++
	number := fmt.Sprint(n.requested)
	var in any
	if hasBody(method) {
		in = sampleOf(method, path).body(n.side.cast)
	}
	a = n.side.call(t, method, path+"?timeout=0&n="+number, token, in)
	n.seen.mu.Lock()
	defer n.seen.mu.Unlock()
	withToken, reached = n.seen.with[number]
	return a, reached, withToken
}

// testRoutes requests the routes of the table.
func (n *narrowed) testRoutes(t *testing.T) {
	whole := os.Getenv(wholeVariable) != ""
	for i, r := range n.table {
		path, method := n.fill(r.Pattern), r.method()
		for j, token := range n.tokens {
			if !whole && (i+j)%4 != 0 {
				continue
			}
			a, reached, withToken := n.request(t, method, path, token.text)
			switch allowed := r.allows(token.narrowing); {
			case r.Opaque: // the token passes unread
			case allowed && !reached:
				t.Errorf("%s %s, token narrowed by %s: got %d %s", method, path, token.name, a.status, a.raw)
			case !allowed && withToken:
				t.Errorf("%s %s, token narrowed by %s: reached the homeserver", method, path, token.name)
			case !allowed && !r.Public:
				n.wantForbidden(t, method, path, token, a)
			}
		}
	}
}

// wantForbidden fails the test unless an answer refuses a request, and not the
// session.
func (n *narrowed) wantForbidden(t *testing.T, method, path string, token narrowedToken, a answer) {
	t.Helper()
	if method != http.MethodHead && (a.status != http.StatusForbidden || a.body.text("errcode") != "M_FORBIDDEN") {
		t.Errorf("%s %s, token narrowed by %s: got %d %s", method, path, token.name, a.status, a.raw)
	}
}

// testExtensions requests paths outside of the table.
func (n *narrowed) testExtensions(t *testing.T) {
	count := 0
	for i, p := range knownPatterns(t) {
		path := p.path(t, n.values, i)
		for _, method := range p.methods {
			if holds(n.table, method, path) {
				continue
			}
			count++
			for _, token := range n.tokens {
				if a, reached, _ := n.request(t, method, path, token.text); reached {
					t.Errorf("%s %s, token narrowed by %s: reached the homeserver and got %d", method, path, token.name, a.status)
				}
			}
		}
	}
	if count == 0 {
		t.Error("the table holds every route")
	}
}

// fill returns a path of a pattern in the table.
func (n *narrowed) fill(pattern string) string {
	names := map[string]string{
		"room": "room_id", "event": "event_id", "user": "user_id", "device": "device_id", "media": "media_id", "server": "server_name",
		"filter": "filter_id", "alias": "room_alias", "target": "room_id",
	}
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		name, isName := strings.CutPrefix(s, "{")
		switch name = strings.TrimSuffix(name, "}"); {
		case s == "**":
			segments[i] = "below"
		case isName && names[name] != "":
			segments[i] = url.PathEscape(n.values[names[name]])
		case isName:
			segments[i] = "none"
		}
	}
	return strings.Join(segments, "/")
}

// secret is in every event of the room that a token is not narrowed to.
const secret = "a secret of another room"

// testOtherRoom requests events of a room of a space with a token narrowed to the
// space, which must not read them.
func (n *narrowed) testOtherRoom(t *testing.T, k *kit) {
	user := n.side.cast.user
	create := func(in body) string { return user.call(t, "POST", "/createRoom", in).ok(t).body.text("room_id") }
	other := create(body{"preset": "private_chat", "name": secret, "topic": secret})
	send := func(txn string, in body) string {
		return user.call(t, "PUT", "/rooms/"+url.PathEscape(other)+"/send/m.room.message/"+txn, in).ok(t).body.text("event_id")
	}
	event := send("secret1", body{"msgtype": "m.text", "body": secret})
	send("secret2", body{"msgtype": "m.text", "body": secret, "m.relates_to": body{"rel_type": "m.thread", "event_id": event}})
	space := create(body{"preset": "private_chat", "creation_content": body{"type": "m.space"}})
	user.call(t, "PUT", "/rooms/"+url.PathEscape(space)+"/state/m.space.child/"+url.PathEscape(other), body{"via": []string{"localhost"}}).ok(t)
	token := attenuated(t, k, user.token, "--room", space)
	own := n.values
	n.values = union(own, map[string]string{"room_id": space, "event_id": event})
	defer func() { n.values = own }()
	plain := 0
	for _, r := range n.table {
		if r.Method != http.MethodGet || r.Opaque || strings.Contains(r.Pattern, "/r0/") || strings.Contains(r.Pattern, "/api/v1/") {
			continue // old versions are other names of v3
		}
		path := n.fill(r.Pattern)
		if a, _, _ := n.request(t, r.Method, path, token); strings.Contains(a.raw, secret) {
			t.Errorf("GET %s: a token narrowed to another room got %s", path, a.raw)
		}
		if a, _, _ := n.request(t, r.Method, path, user.token); strings.Contains(a.raw, secret) {
			plain++
		}
	}
	if plain == 0 {
		t.Error("there is no secret to find")
	}
}
