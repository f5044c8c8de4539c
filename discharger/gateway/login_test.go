package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// A homeserver's token in the response to a login never reaches the client: a success
// of any status has the gateway's token, any other response none.
func TestLoginStatuses(t *testing.T) {
	t.Parallel()
	const text = `{"user_id":"@u:hs","device_id":"D","access_token":"syt_canary"}`
	for _, c := range []struct {
		status int
		body   string
		want   int
		kind   token.Kind
	}{
		{200, text, 200, token.Held}, {201, text, 201, token.Held}, {202, text, 202, token.Held}, {226, text, 226, token.Held},
		{400, text, 502, token.Foreign}, {401, text, 502, token.Foreign}, {302, text, 502, token.Foreign}, {500, text, 502, token.Foreign},
		{400, strings.Replace(text, `{`, `{"access_token":"syt_canary",`, 1), 502, token.Foreign},
		{200, `{"user_id":"@u:hs","refresh_token":"syr_canary"}`, 502, token.Foreign},
		{200, `{"user_id":"@u:hs","access_token":["syt_canary"]}`, 502, token.Foreign},
		{401, `{"flows":[],"session":"s"}`, 401, token.Foreign}, {403, `{"errcode":"M_FORBIDDEN"}`, 403, token.Foreign},
		{502, `<html>`, 502, token.Foreign}, {500, ``, 500, token.Foreign}, {201, ``, 502, token.Foreign},
		{200, `{"user_id":"@u:hs"}`, 200, token.Foreign},
	} {
		for _, path := range []string{pathLogin, pathRegister, "/_synapse/admin/v1/register"} {
			t.Run(fmt.Sprint(c.status, " ", path, " ", c.body), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
					if r.URL.Path != path {
						w.hs.serve(rw, r)
						return
					}
					rw.WriteHeader(c.status)
					_, _ = rw.Write([]byte(c.body))
				}
				a := w.do("POST", path, "", anyMap{}) // do fails if a canary is in the response
				if got := a.text("access_token"); a.status != c.want || (got != "") != (c.kind == token.Held) || token.KindOf(got) != c.kind {
					t.Errorf("%d %s", a.status, a.raw)
				}
			})
		}
	}
}

// The gateway's own responses have the headers of Synapse's.
func TestOwnHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	for name, a := range map[string]answer{
		"refusal":        w.do("GET", upstream.PathWhoami, token.PrefixHeld+"x", nil),
		"refresh":        w.refresh(in.text("refresh_token")),
		"bad request":    w.do("POST", pathRefresh, "", "x"),
		"failed refresh": w.refresh(token.PrefixRefresh),
	} {
		for header, want := range map[string]string{
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
			"Access-Control-Allow-Headers":  "X-Requested-With, Content-Type, Authorization, Date",
			"Access-Control-Expose-Headers": "Synapse-Trace-Id, Server", "Cache-Control": "no-cache, no-store, must-revalidate",
			"Content-Type": "application/json",
		} {
			if got := a.header[header]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
	}
}

// Any unknown refresh token is 401, also where the homeserver has no refresh tokens.
func TestUnknownRefreshTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/refresh") {
			w.hs.serve(rw, r)
			return
		}
		rw.WriteHeader(http.StatusNotFound) // Dendrite
		_, _ = rw.Write([]byte(`{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}`))
	}
	good := in.text("refresh_token")
	damaged := []byte(good)
	damaged[40] ^= 1 // another character, in the alphabet or not
	for name, token := range map[string]string{
		"empty": "", "word": "x", "Synapse's": "syr_dQ_abcdefghijklmnopqr_1gXYZ", "prefix": token.PrefixRefresh, "held": token.PrefixHeld + "x", "access token": in.text("access_token"),
		"no base64": token.PrefixRefresh + "a b", "standard base64": token.PrefixRefresh + "ab+/", "padded": good + "=", "cut": good[:len(good)-1],
		"damaged": string(damaged), "other prefix": "dgx_" + good[4:], "without prefix": good[4:], "line": good + "\n", "long": token.PrefixRefresh + strings.Repeat("A", 1<<16),
		"unicode": "é\x00", "new version": "dga_v2." + good,
	} {
		t.Run(name, func(t *testing.T) {
			if a := w.want(w.refresh(token), 401, matrix.CodeUnknownToken); !a.soft() {
				t.Errorf("%s", a.raw)
			}
		})
	}
	w.want(w.refresh(good), 200, "")
}

// Routes without authentication accept requests with a gateway token in any state, and
// the homeserver does not receive it.
func TestStaleTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	over := w.login(false).text("access_token")
	w.want(w.do("POST", upstream.PathLogout, over, anyMap{}), 200, "")
	expired := w.login(true).text("access_token")
	w.forward(2 * testTTL)
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.URL.Query().Has("access_token") {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}
	for name, token := range map[string]string{
		"over": over, "expired": expired, "nonsense": token.PrefixHeld + "x", "refresh token": token.PrefixRefresh + "x", "good": w.loginAround(false),
	} {
		for _, target := range []string{
			"GET /_matrix/client/v3/login", "GET /_matrix/client/r0/login", "GET /_matrix/client/v3/register/available?username=a",
			"GET /_matrix/client/v1/register/m.login.registration_token/validity?token=a", "GET /.well-known/matrix/client", "GET /.well-known/matrix/support",
			"GET /_matrix/client/v3/directory/room/%23a%3Ahs", "GET /_matrix/client/v3/login/sso/redirect?redirectUrl=x", "GET /_matrix/client/v3/auth/m.login.terms/fallback/web?session=x",
			"POST /_matrix/client/v3/auth/m.login.terms/fallback/web", "POST /_matrix/client/v3/account/password/email/requestToken", "POST /_matrix/client/v3/register/email/requestToken",
			"GET /_matrix/client/v1/auth_metadata", "GET /_matrix/client/v3/password_policy",
		} {
			t.Run(name+" "+target, func(t *testing.T) {
				method, path, _ := strings.Cut(target, " ")
				w.want(w.do(method, path, token, nil), 200, "")
				separator := "?"
				if strings.Contains(path, "?") {
					separator = "&"
				}
				w.want(w.do(method, path+separator+"access_token="+token, "", nil), 200, "")
			})
		}
	}
	for _, target := range []string{
		"GET " + upstream.PathWhoami, "PUT /_matrix/client/v3/directory/room/%23a%3Ahs", "GET /_matrix/client/v3/directory/room", "POST /_matrix/client/v3/account/password",
		"GET /_matrix/client/v3/profile/@u:hs", "GET /_matrix/client/versions",
	} {
		method, path, _ := strings.Cut(target, " ")
		w.want(w.do(method, path, over, nil), 401, matrix.CodeUnknownToken)
	}
}

// loginAround logs in while the homeserver has another handler.
func (w *world) loginAround(refresh bool) string {
	handler := w.hs.handler
	w.hs.handler = nil
	defer func() { w.hs.handler = handler }()
	return w.login(refresh).text("access_token")
}

// The homeserver receives the scheme of the public URL.
func TestPublicScheme(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ public, header, want string }{
		{"https://matrix.example", "", "https"}, {"https://matrix.example", "http", "https"}, {"http://matrix.example", "https", "http"},
		{"HTTPS://matrix.example/", "", "https"}, {"", "", "http"},
	} {
		t.Run(c.public+" "+c.header, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) { w.cfg.PublicURL = c.public })
			req := w.request("GET", "/_matrix/client/v3/login/sso/redirect", "", nil)
			if c.header != "" {
				req.Header.Set("X-Forwarded-Proto", c.header)
			}
			w.send(req)
			if got := w.hs.last(t).Header["X-Forwarded-Proto"]; len(got) != 1 || got[0] != c.want {
				t.Errorf("homeserver received %q", got)
			}
		})
	}
}

// The gateway's requests for a client have its address and name, and others an address
// that Synapse ignores.
func TestOwnRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.offline()
	as := func(req *http.Request) *http.Request {
		req.Header.Set("User-Agent", "Element/1")
		return req
	}
	in := w.login(true, anyMap{"device_id": "ONE"})
	w.want(w.send(as(w.request("POST", pathRefresh, "", anyMap{"refresh_token": in.text("refresh_token")}))), 200, "")
	if r := w.hs.last(t); r.URI != upstream.PathWhoami || r.Header.Get("User-Agent") != "Element/1" || r.Header.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("refresh requested %s as %v", r.URI, r.Header)
	}
	x := &exchange{client: netip.MustParseAddr("192.0.2.1")}
	w.gateway.abandon(t.Context(), x, upstreamLogin{token: w.hs.make("@u:hs", "TWO"), userAgent: "Element/1"}, &client.RefusedError{})
	if r := w.hs.last(t); r.URI != upstream.PathLogout || r.Header.Get("User-Agent") != "Element/1" || r.Header.Get("X-Forwarded-For") != "192.0.2.1" {
		t.Errorf("failed login was followed by %s as %v", r.URI, r.Header)
	}
	testkit.NoError(t, w.gateway.homeserver.Logout(t.Context(), w.hs.make("@u:hs", "TWO"), upstream.Origin{}))
	r := w.hs.last(t)
	if got := r.Header["X-Forwarded-For"]; r.URI != upstream.PathLogout || len(got) != 1 || got[0] != "" || r.Header.Get("User-Agent") != upstream.UserAgent || r.Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("%s as %v", r.URI, r.Header)
	}
	w.hs.set(func(s *stub) {
		for _, r := range s.requests {
			if strings.Contains(r.Header.Get("User-Agent"), "Go-http-client/1.1") && r.URI == upstream.PathWhoami {
				t.Errorf("%s %s as %v", r.Method, r.URI, r.Header)
			}
		}
	})
}

// A lifetime of the homeserver's tokens that ends refreshing sessions is logged once
// and counted.
func TestContradictingLifetime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hs.set(func(s *stub) { s.expiresMS = time.Hour.Milliseconds() })
	const setting = "nonrefreshable_access_token_lifetime"
	w.login(false)
	if !w.exposes("discharger_gateway_short_logins_total 0") || strings.Contains(w.log.String(), setting) {
		t.Error("login without a refresh token was counted")
	}
	w.login(true)
	w.login(true)
	if lines := strings.Count(w.log.String(), setting); !w.exposes("discharger_gateway_short_logins_total 2") || lines != 1 {
		t.Errorf("want two logins and one line, got %d lines", lines)
	}
}

// exposes reports whether the metrics have a line.
func (w *world) exposes(line string) bool {
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(w.reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return strings.Contains(rec.Body.String(), line+"\n")
}

// Device ids up to the longest, with any characters, work on every route; longer ones
// are refused before the homeserver receives the request.
func TestDeviceNames(t *testing.T) {
	t.Parallel()
	for name, device := range map[string]string{
		"256": strings.Repeat("D", 256), "512": strings.Repeat("D", 512), "wide": strings.Repeat("𝕕", 512), "control": strings.Repeat("\x01", 512), "newline": "a\nb\x7f\u0085",
		"path": "../a/b?c#d%2f;e", "dots": "..", "space": " ", "quotes": strings.Repeat(`"\`, 256),
	} {
		for _, refresh := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", refresh), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				in := w.login(refresh, anyMap{"device_id": device})
				token := in.text("access_token")
				if a := w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, ""); a.text("device_id") != device || in.text("device_id") != device {
					t.Errorf("%s", a.raw)
				}
				if refresh {
					token = w.want(w.refresh(in.text("refresh_token")), 200, "").text("access_token")
				}
				w.restart()
				w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
				other := w.login(false, anyMap{"device_id": "OTHER"}).text("access_token")
				if name == "path" || name == "dots" { // proxies resolve such a path
					w.want(w.do("DELETE", "/_matrix/client/v3/devices/"+url.PathEscape(device), other, anyMap{"auth": anyMap{}}), 400, matrix.CodeUnrecognized)
					w.want(w.do("POST", "/_matrix/client/v3/delete_devices", other, anyMap{"auth": anyMap{}, "devices": []string{device}}), 200, "")
				} else {
					w.want(w.do("DELETE", "/_matrix/client/v3/devices/"+url.PathEscape(device), other, anyMap{"auth": anyMap{}}), 200, "")
				}
				if a := w.want(w.do("GET", upstream.PathWhoami, token, nil), 401, matrix.CodeUnknownToken); a.soft() || w.hs.alive(device) || w.sessions() != 1 {
					t.Errorf("%s, alive: %v, %d sessions", a.raw, w.hs.alive(device), w.sessions())
				}
				w.login(refresh, anyMap{"device_id": device})
				w.want(w.do("POST", "/_matrix/client/v3/delete_devices", other, anyMap{"auth": anyMap{}, "devices": []string{device}}), 200, "")
				if w.hs.alive(device) || w.sessions() != 1 {
					t.Errorf("alive: %v, %d sessions", w.hs.alive(device), w.sessions())
				}
				again := w.login(refresh, anyMap{"device_id": device}).text("access_token")
				w.want(w.do("POST", upstream.PathLogout, again, anyMap{}), 200, "")
				if w.hs.alive(device) || w.sessions() != 1 {
					t.Errorf("alive: %v, %d sessions", w.hs.alive(device), w.sessions())
				}
			})
		}
	}
	w := newWorld(t)
	before := w.hs.count()
	for _, body := range []any{
		anyMap{"device_id": strings.Repeat("D", caveat.MaxDevice+1)}, anyMap{"device_id": strings.Repeat("𝕕", caveat.MaxDevice+1)},
	} {
		for _, path := range []string{pathLogin, pathRegister} {
			w.want(w.do("POST", path, "", body), 400, matrix.CodeInvalidParam)
		}
	}
	if w.hs.count() != before {
		t.Error("login was forwarded")
	}
}
