package gateway

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// stub is a homeserver with Synapse's relevant behavior: old tokens of a device stay
// alive after a login, and a logout deletes the device with all of its tokens. Every
// password is "secret", except in failing logins.
type stub struct {
	*httptest.Server
	mu       sync.Mutex
	tokens   map[string]stubDevice // by access token
	made     []string              // every token ever issued
	requests []stubRequest
	devices  int

	nextDevice string // of the next login without a device_id; empty: a new one

	inspected  chan struct{} // signals an answered request for the login flows
	delegating bool          // the flows name an authentication service

	dendrite bool             // Dendrite's behavior: a device has one token, and a 401 has no soft_logout
	logouts  []string         // logged out by POST /logout
	lastSeen map[string]int64 // of devices, Unix ms
	guests   bool             // POST /logout is forbidden

	gzip         bool           // compress every response
	softly       map[string]int // tokens that have expired: 401 with soft_logout
	locked       bool
	expiresMS    int64             // lifetime in responses to logins; 0: none
	failLogouts  int               // number of logouts to answer 500
	failVersions bool              // versions is 500
	failWhoami   bool              // whoami is 500
	wellKnown    bool              // in responses to logins
	passOn       bool              // third-party routes return an identity server's response
	interactions map[string]anyMap // sessions of users, by name: parameters
	noDevices    bool              // GET devices is empty
	questions    map[string]anyMap // sessions of registrations, by name: parameters; nil: none needed
	rooms        any               // response to GET below rooms; nil: {}
	handler      http.HandlerFunc
	away         atomic.Bool // closes every connection
}

type stubDevice struct{ user, device string }

// stubRequest is a received request.
type stubRequest struct {
	Method, URI, Token, Body string
	Header                   http.Header
}

func newStub(t testing.TB, p *testkit.Pipes) *stub {
	s := &stub{tokens: make(map[string]stubDevice), softly: make(map[string]int), inspected: make(chan struct{}, 1)}
	s.Server = p.Serve(s)
	t.Cleanup(s.Close)
	return s
}

// last returns the latest request.
func (s *stub) last(t testing.TB) stubRequest {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == 0 {
		t.Fatal("homeserver received no request")
	}
	return s.requests[len(s.requests)-1]
}

func (s *stub) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// loggedOut returns the number of logouts of devices.
func (s *stub) loggedOut() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.logouts)
}

// alive reports whether a device has a token.
func (s *stub) alive(device string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.tokens {
		if d.device == device {
			return true
		}
	}
	return false
}

func (s *stub) set(f func(*stub)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// leave stops all responses. The address stays taken, so that no other test's server
// gets it.
func (s *stub) leave() { s.away.Store(true) }

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.away.Load() {
		panic(http.ErrAbortHandler)
	}
	if s.handler != nil {
		s.handler(w, r)
		return
	}
	s.serve(w, r)
}

// serve answers like a homeserver.
func (s *stub) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "" {
		token = r.URL.Query().Get("access_token")
	}
	if form, err := url.ParseQuery(string(body)); token == "" && err == nil && strings.Contains(r.Header.Get("Content-Type"), "form") {
		token = form.Get("access_token")
	}
	inspects := r.Method == http.MethodGet && r.RequestURI == upstream.PathLoginFlows // once per start of the gateway
	if inspects {
		defer func() { // when the stub is no longer read
			select {
			case s.inspected <- struct{}{}:
			default:
			}
		}()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !inspects {
		s.requests = append(s.requests, stubRequest{r.Method, r.RequestURI, token, string(body), r.Header.Clone()})
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	if r.Method == http.MethodOptions {
		return
	}
	status, answer := s.answer(r, token, body)
	data, _ := json.Marshal(answer)
	h.Set("Content-Type", "application/json")
	if s.gzip || strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(data)
		_ = z.Close()
		data = b.Bytes()
		h.Set("Content-Encoding", "gzip")
	}
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

type anyMap = map[string]any

func (s *stub) answer(r *http.Request, token string, body []byte) (int, any) {
	var in anyMap
	_ = json.Unmarshal(body, &in)
	path := r.URL.EscapedPath()
	switch {
	case s.failVersions && path == upstream.PathVersions:
		return 500, anyMap{"errcode": "M_UNKNOWN"}
	case path == upstream.PathVersions:
		return 200, anyMap{"versions": []string{"r0.6.1", "v1.1", "v1.2"}, "unstable_features": anyMap{"x": true}}
	case path == "/.well-known/matrix/client":
		return 200, anyMap{"m.homeserver": anyMap{"base_url": s.URL, "x": 1}, "m.identity_server": anyMap{"base_url": "https://is.example"}}
	case strings.HasSuffix(path, "/login") && r.Method == "GET":
		return 200, anyMap{"flows": []anyMap{{"type": "m.login.sso", "oauth_aware_preferred": s.delegating}}}
	case strings.HasPrefix(path, "/_synapse/admin/v1/users/") && strings.HasSuffix(path, "/login"):
		if d, ok := s.tokens[token]; !ok || d.user != "@admin:hs" {
			return 403, anyMap{"errcode": "M_FORBIDDEN"}
		}
		user := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/_synapse/admin/v1/users/"), "/login")
		return 200, anyMap{"access_token": s.make(user, "")}
	case strings.HasSuffix(path, "/login"), strings.HasSuffix(path, "/register"):
		return s.login(r, in)
	case strings.HasSuffix(path, "/refresh"):
		return 200, anyMap{"access_token": "syt_fresh", "refresh_token": "syr_fresh", "expires_in_ms": 300000}
	case strings.HasSuffix(path, "/openid/request_token"):
		return 200, anyMap{"access_token": "openid-token", "expires_in": 3600}
	case strings.HasPrefix(path, "/_matrix/federation/"), strings.HasPrefix(path, "/_synapse/client/"):
		return 200, anyMap{"sub": "@u:hs"}
	}
	d, ok := s.tokens[token]
	switch {
	case token == "":
		return 401, anyMap{"errcode": "M_MISSING_TOKEN", "error": "Missing access token"}
	case s.softly[token] > 0:
		return 401, anyMap{"errcode": "M_UNKNOWN_TOKEN", "error": "expired", "soft_logout": true}
	case !ok && strings.HasPrefix(token, "as_"):
		return 200, anyMap{"user_id": r.URL.Query().Get("user_id")}
	case !ok && s.dendrite:
		return 401, anyMap{"errcode": "M_UNKNOWN_TOKEN", "error": "Unknown token"}
	case !ok:
		return 401, anyMap{"errcode": "M_UNKNOWN_TOKEN", "error": "Unrecognised access token", "soft_logout": false}
	}
	return s.authed(r, token, d, in)
}

func (s *stub) make(user, device string) string {
	s.devices++
	token := fmt.Sprintf("syt_%s_canary%d", strings.Trim(user, "@:hs"), s.devices)
	s.tokens[token] = stubDevice{user, device}
	s.made = append(s.made, token)
	return token
}

func (s *stub) login(r *http.Request, in anyMap) (int, any) {
	if strings.HasSuffix(r.URL.Path, "/register") && s.questions != nil {
		var more bool
		if in, more = s.question(in); more {
			return 401, anyMap{"flows": []anyMap{{"stages": []string{"m.login.dummy", "m.login.terms"}}}, "session": in["session"]}
		}
	}
	if in["password"] == "wrong" {
		return 403, anyMap{"errcode": "M_FORBIDDEN", "error": "Invalid password"}
	}
	if in["inhibit_login"] == true {
		return 200, anyMap{"user_id": "@u:hs"}
	}
	user, _ := in["user"].(string)
	device, _ := in["device_id"].(string)
	if r.URL.Query().Get("kind") == "guest" {
		user = "@guest:hs"
	}
	if user == "" {
		user = "@u:hs"
	}
	for t, d := range s.tokens {
		if s.dendrite && device != "" && d == (stubDevice{user, device}) {
			delete(s.tokens, t)
		}
	}
	if device == "" {
		device, s.nextDevice = s.nextDevice, ""
	}
	if device == "" {
		device = fmt.Sprintf("DEV%d", s.devices+1)
	}
	out := anyMap{"user_id": user, "device_id": device, "access_token": s.make(user, device), "home_server": "hs", "x.unknown": []int{1, 2}}
	if s.expiresMS > 0 {
		out["expires_in_ms"] = s.expiresMS
	}
	if in["refresh_token"] == true {
		out["refresh_token"] = "syr_never"
		out["expires_in_ms"] = 300000
	}
	if s.wellKnown {
		out["well_known"] = anyMap{"m.homeserver": anyMap{"base_url": s.URL}}
	}
	return 200, out
}

// question requires two stages before a registration. Their session has a name, and
// keeps the members of the first request.
func (s *stub) question(in anyMap) (anyMap, bool) {
	auth, _ := in["auth"].(anyMap)
	name, _ := auth["session"].(string)
	first, known := s.questions[name]
	if !known {
		name = fmt.Sprintf("questions%d", len(s.questions))
		s.questions[name] = in
		return anyMap{"session": name}, true
	}
	for k, v := range in {
		first[k] = v
	}
	if auth["type"] == "m.login.dummy" {
		return anyMap{"session": name}, true
	}
	return first, false
}

// interactive begins or completes a session of user-interactive authentication. As in
// Synapse, a request with only auth has the members of the first.
func (s *stub) interactive(in anyMap) (anyMap, bool) {
	auth, ok := in["auth"].(anyMap)
	if !ok {
		if s.interactions == nil {
			s.interactions = make(map[string]anyMap)
		}
		name := fmt.Sprintf("interaction%d", len(s.interactions))
		s.interactions[name] = in
		return anyMap{"session": name}, true
	}
	name, _ := auth["session"].(string)
	if first := s.interactions[name]; first != nil && len(in) == 1 && !s.dendrite {
		return first, false
	}
	return in, false
}

// authed answers routes that need a token.
func (s *stub) authed(r *http.Request, token string, d stubDevice, in anyMap) (int, any) {
	_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/_matrix/client/"), "/")
	drop := func(match func(string, stubDevice) bool) {
		for t, o := range s.tokens {
			if o.user == d.user && match(t, o) {
				delete(s.tokens, t)
			}
		}
	}
	locked := s.locked && !strings.HasPrefix(rest, "logout")
	uia := false
	if rest == "account/password" || rest == "account/deactivate" || rest == "delete_devices" || strings.HasPrefix(rest, "devices/") && r.Method == "DELETE" {
		in, uia = s.interactive(in)
	}
	switch {
	case locked:
		return 401, anyMap{"errcode": "M_USER_LOCKED", "error": "locked", "soft_logout": true}
	case s.failWhoami && rest == "account/whoami":
		return 500, anyMap{"errcode": "M_UNKNOWN"}
	case uia:
		return 401, anyMap{"flows": []anyMap{{"stages": []string{"m.login.password"}}}, "session": in["session"], "errcode": "M_FORBIDDEN"}
	case rest == "devices" && r.Method == "GET" && !s.noDevices:
		list := []anyMap{}
		for _, o := range s.tokens {
			if o.user == d.user && o.device != "" {
				list = append(list, anyMap{"device_id": o.device})
			}
		}
		return 200, anyMap{"devices": list}
	case s.passOn && strings.HasPrefix(rest, "account/3pid"):
		return 401, anyMap{"errcode": "M_UNKNOWN_TOKEN", "error": "says the identity server"}
	case s.rooms != nil && strings.HasPrefix(rest, "rooms/"):
		return 200, s.rooms
	case rest == "logout" && s.failLogouts > 0:
		s.failLogouts--
		return 500, anyMap{"errcode": "M_UNKNOWN"}
	case rest == "logout" && s.guests:
		return 403, anyMap{"errcode": matrix.CodeGuest, "error": "Guest access not allowed"}
	case rest == "logout":
		s.logouts = append(s.logouts, d.device)
		drop(func(t string, o stubDevice) bool {
			return t == token || !s.dendrite && d.device != "" && o.device == d.device
		})
	case strings.HasPrefix(rest, "devices/") && r.Method == "GET":
		return 200, anyMap{"device_id": d.device, "last_seen_ts": s.lastSeen[d.device]}
	case rest == "logout/all":
		drop(func(_ string, o stubDevice) bool { return o.device != "" })
	case rest == "account/deactivate":
		drop(func(string, stubDevice) bool { return true })
	case rest == "account/password":
		if in["logout_devices"] != false {
			drop(func(t string, o stubDevice) bool { return t != token && o.device != "" })
		}
	case strings.HasPrefix(rest, "devices/") && r.Method == "DELETE":
		id := strings.TrimPrefix(r.URL.Path[strings.LastIndex(r.URL.Path, "/devices/"):], "/devices/")
		drop(func(_ string, o stubDevice) bool { return o.device == id })
	case rest == "delete_devices":
		list, _ := in["devices"].([]any)
		drop(func(_ string, o stubDevice) bool {
			for _, id := range list {
				if o.device == id {
					return true
				}
			}
			return s.dendrite && len(list) == 0
		})
	default:
		return 200, anyMap{"user_id": d.user, "device_id": d.device, "query": r.URL.RawQuery}
	}
	return 200, anyMap{}
}
