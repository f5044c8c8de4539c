package gateway

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// Every response with a homeserver's token is rewritten, on every path.
func TestTokensAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := anyMap{"type": "m.login.password", "user": "@u:hs", "password": "secret"}
	for _, path := range []string{
		"/_matrix/client/v3/login", "/_matrix/client/r0/login", "/_matrix/client/unstable/login", "/_matrix/client/api/v1/login",
		"/_matrix/client/v3/register", "/_matrix/client/r0/register", "/_matrix/client/v3/register?kind=guest", "/_synapse/admin/v1/register",
	} {
		a := w.want(w.do("POST", path, "", in), 200, "")
		text := a.text("access_token")
		if token.KindOf(text) != token.Held {
			t.Fatalf("%s: %s", path, a.raw)
		}
		w.want(w.do("GET", upstream.PathWhoami, text, nil), 200, "")
		var sent anyMap
		if i := w.hs.count() - 2; json.Unmarshal([]byte(w.hs.requests[i].Body), &sent) != nil || sent["refresh_token"] != nil {
			t.Errorf("%s: homeserver received %s", path, w.hs.requests[i].Body)
		}
		if a := w.want(w.do("POST", path, "", anyMap{"user": "@u:hs", "refresh_token": true}), 200, ""); token.KindOf(a.text("access_token")) != token.Rotate || !strings.Contains(w.hs.last(t).Body, `"refresh_token":false`) {
			t.Errorf("%s with refresh_token: %s; homeserver received %s", path, a.raw, w.hs.last(t).Body)
		}
	}
	if a := w.want(w.do("POST", "/_matrix/client/v3/register", "", anyMap{"inhibit_login": true}), 200, ""); a.body["access_token"] != nil {
		t.Errorf("%s", a.raw)
	}
	if a := w.want(w.do("POST", pathLogin, "", anyMap{"org.matrix.msc2918.refresh_token": true}), 200, ""); token.KindOf(a.text("access_token")) != token.Rotate {
		t.Errorf("%s", a.raw)
	}
	admin := w.want(w.do("POST", pathLogin, "", anyMap{"user": "@admin:hs"}), 200, "").text("access_token")
	a := w.want(w.do("POST", "/_synapse/admin/v1/users/%40u%3Ahs/login", admin, anyMap{}), 200, "")
	who := w.want(w.do("GET", upstream.PathWhoami, a.text("access_token"), nil), 200, "")
	if token.KindOf(a.text("access_token")) != token.Held || who.text("user_id") != "@u:hs" {
		t.Errorf("%s, %s", a.raw, who.raw)
	}
}

// A refresh is answered on every path that clients use, with any access token.
func TestRefreshPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	w.forward(testTTL)
	for _, path := range []string{"v3", "r0", "v1", "unstable", "unstable/org.matrix.msc2918"} {
		a := w.want(w.do("POST", "/_matrix/client/"+path+"/refresh", in.text("access_token"), anyMap{"refresh_token": in.text("refresh_token")}), 200, "")
		if token.KindOf(a.text("access_token")) != token.Rotate || token.KindOf(a.text("refresh_token")) != token.Refresh || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	before := w.hs.count()
	for body, code := range map[string]string{
		"": matrix.CodeNotJSON, "x": matrix.CodeNotJSON, "[]": matrix.CodeBadJSON, `{"a":1,"a":2}`: matrix.CodeBadJSON, "{}": matrix.CodeMissingParam, `{"refresh_token":1}`: matrix.CodeInvalidParam,
	} {
		t.Run("body "+body, func(t *testing.T) {
			w.want(w.do("POST", pathRefresh, "", body), 400, code)
		})
	}
	if w.hs.count() != before {
		t.Error("refresh was forwarded")
	}
}

// Requests and responses with strings that only resemble tokens are unchanged.
func TestLookAlikes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.Legacy.Reject = true })
	token := w.login(false).text("access_token")
	a := w.want(w.do("POST", "/_matrix/client/v3/user/@u:hs/openid/request_token", token, anyMap{}), 200, "")
	if a.text("access_token") != "openid-token" {
		t.Fatalf("%s", a.raw)
	}
	for _, uri := range []string{
		"/_matrix/federation/v1/openid/userinfo?access_token=openid-token", "/_synapse/client/unsubscribe?access_token=abc&app_id=x",
		"/_matrix/app/v1/transactions/1?access_token=hs", "/_matrix/key/v2/server",
	} {
		req, err := http.NewRequest("GET", w.http.URL+uri, nil)
		testkit.NoError(t, err)
		req.Header.Set("Authorization", `X-Matrix origin="a",key="k",sig="s"`)
		w.send(req)
		if last := w.hs.last(t); last.URI != uri || last.Header.Get("Authorization") != `X-Matrix origin="a",key="k",sig="s"` {
			t.Errorf("%s arrived as %s with %q", uri, last.URI, last.Header.Get("Authorization"))
		}
	}
	body := `{"access_token":"x","content":{"access_token":"` + token + `"},"id_access_token":"y"}`
	w.do("POST", "/_matrix/client/v3/account/3pid/add", token, body)
	if last := w.hs.last(t); last.Body != body {
		t.Errorf("body was changed: %s", last.Body)
	}
}

// The guest's token in the body of a registration is replaced.
func TestGuestUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	guest := w.want(w.do("POST", "/_matrix/client/v3/register?kind=guest", "", anyMap{}), 200, "").text("access_token")
	w.want(w.do("POST", "/_matrix/client/v3/register", "", anyMap{"user": "@u:hs", "guest_access_token": guest}), 200, "")
	var sent anyMap
	testkit.NoError(t, json.Unmarshal([]byte(w.hs.last(t).Body), &sent))
	if sent["guest_access_token"] != w.hs.made[0] {
		t.Errorf("homeserver received %v", sent)
	}
	before, end := w.hs.count(), "AAAA"
	if strings.HasSuffix(guest, end) {
		end = "BBBB"
	}
	w.want(w.do("POST", "/_matrix/client/v3/register", "", anyMap{"guest_access_token": guest[:len(guest)-4] + end}), 401, matrix.CodeUnknownToken)
	if w.hs.count() != before {
		t.Error("malformed token was forwarded")
	}
}

// A token is accepted once, in the header or the query.
func TestCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text := w.login(false).text("access_token")
	canary := w.hs.made[0]
	for _, c := range []struct {
		name, query string
		header      []string
		status      int
		code, uri   string // forwarded; empty: nothing
	}{
		{"header", "", []string{"Bearer " + text}, 200, "", "?"},
		{"query", "?access_token=" + text, nil, 200, "", "?"},
		{"query first", "?access_token=" + text + "&a=%41&b", nil, 200, "", "?a=%41&b"},
		{"query last", "?a=1;b=2&&access_token=" + text, nil, 200, "", "?a=1;b=2&"},
		{"query encoded", "?access%5Ftoken=" + text, nil, 200, "", "?"},
		{"query after semicolon", "?a=1;access_token=" + text, nil, 200, "", "?a=1"},
		{"both", "?access_token=" + text, []string{"Bearer " + text}, 401, matrix.CodeMissingToken, ""},
		{"both, one foreign", "?access_token=x", []string{"Bearer " + text}, 401, matrix.CodeMissingToken, ""},
		{"twice in the query", "?access_token=" + text + "&access_token=" + text, nil, 401, matrix.CodeMissingToken, ""},
		{"two headers", "", []string{"Bearer " + text, "Bearer " + text}, 401, matrix.CodeMissingToken, ""},
		{"lower case", "", []string{"bearer " + text}, 401, matrix.CodeMissingToken, ""},
		{"none", "", nil, 401, matrix.CodeMissingToken, "?"},
		{"refresh token", "", []string{"Bearer " + token.PrefixRefresh + "abc"}, 401, matrix.CodeUnknownToken, ""},
		{"foreign", "", []string{"Bearer something"}, 401, matrix.CodeUnknownToken, "?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.hs.count()
			req, err := http.NewRequest("GET", w.http.URL+upstream.PathWhoami+c.query, nil)
			testkit.NoError(t, err)
			if c.header != nil {
				req.Header["Authorization"] = c.header
			}
			a := w.send(req)
			if a.status != c.status || a.text("errcode") != c.code || a.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%d %s", a.status, a.raw)
			}
			if (w.hs.count() > before) != (c.uri != "") {
				t.Errorf("%d requests forwarded", w.hs.count()-before)
			}
			if last := w.hs.last(t); c.status == 200 && (last.URI != upstream.PathWhoami+strings.TrimSuffix(c.uri, "?") && last.URI != upstream.PathWhoami+c.uri || last.Token != canary) {
				t.Errorf("homeserver received %s with %q", last.URI, last.Token)
			}
		})
	}
	w.want(w.do("POST", pathLogin, text, anyMap{"user": "@u:hs"}), 200, "")
	if last := w.hs.last(t); last.Token != "" {
		t.Error("login was forwarded with an old token")
	}
	w.want(w.do("POST", pathLogin, "as_token", anyMap{"user": "@u:hs"}), 200, "")
	if last := w.hs.last(t); last.Token != "as_token" {
		t.Error("login of an application service was forwarded without its token")
	}
	req, err := http.NewRequest("OPTIONS", w.http.URL+upstream.PathWhoami+"?access_token="+text, nil)
	testkit.NoError(t, err)
	if a := w.send(req); a.status != 200 || strings.Contains(w.hs.last(t).URI, "dga_") || len(a.header["Access-Control-Allow-Origin"]) != 1 {
		t.Errorf("OPTIONS: %d, %v, %s", a.status, a.header, w.hs.last(t).URI)
	}
}

// A token with any byte changed is refused by the gateway itself.
func TestTampering(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held, rotate := w.login(false), w.login(true)
	refresh := rotate.text("refresh_token")
	before, asked := w.hs.count(), w.asked.Load()
	for _, text := range []string{held.text("access_token"), rotate.text("access_token"), refresh} {
		for at := range text {
			b := []byte(text)
			if b[at] ^= []byte{1, 2, 0x10}[at%3]; b[at] < '!' || b[at] > '~' {
				b[at] = 'A'
			}
			var a answer
			if text == refresh {
				a = w.refresh(string(b))
			} else {
				a = w.do("GET", upstream.PathWhoami, string(b), nil)
			}
			if id := keyIDOf(string(b)); id != "" && id != keyIDOf(text) && token.KindOf(string(b)) == token.KindOf(text) { // it may be newer than the gateway's key ring
				if a.status != 503 {
					t.Fatalf("byte %d, another key id: %d %s", at, a.status, a.raw)
				}
				continue
			}
			if string(b) != text && (a.status != 401 || a.text("errcode") != matrix.CodeUnknownToken || !a.soft()) {
				t.Fatalf("byte %d: %d %s", at, a.status, a.raw)
			}
		}
		for _, other := range []string{text + "A", text[:len(text)-1], "x" + text, text[token.PrefixSize:], text + "="} {
			if text == refresh {
				w.want(w.refresh(other), 401, matrix.CodeUnknownToken)
			} else {
				w.want(w.do("GET", upstream.PathWhoami, other, nil), 401, matrix.CodeUnknownToken)
			}
		}
	}
	if n := w.hs.count() - before; n > 0 {
		t.Errorf("%d requests forwarded: %+v", n, w.hs.last(t))
	}
	if n := w.asked.Load() - asked; n > 0 {
		t.Errorf("%d requests to the service", n)
	}
}

// keyIDOf returns the master key's id in a well-formed token.
func keyIDOf(text string) string {
	if box, err := wire.DecodeBase64(strings.TrimPrefix(text, token.PrefixRefresh)); token.KindOf(text) == token.Refresh && err == nil &&
		len(box) > token.KeyIDSize && !strings.ContainsAny(text, "+/=") {
		return hex.EncodeToString(box[:token.KeyIDSize])
	}
	if _, err := token.ParseAccess(text); err != nil {
		return ""
	}
	in, err := homeserver.Inspect(text[token.PrefixSize:])
	if err != nil {
		return ""
	}
	return in.KeyID
}

// No discharge is fetched for a token of mode rotate whose discharge was cut off.
func TestModesAreNotMixed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rotate := w.login(true).text("access_token")
	b, err := token.ParseAccess(rotate)
	testkit.NoError(t, err)
	m, err := token.AccessOf(b)
	testkit.NoError(t, err)
	cut, err := token.EncodeHeld(m)
	testkit.NoError(t, err)
	asked, before := w.asked.Load(), w.hs.count()
	w.want(w.do("GET", upstream.PathWhoami, cut, nil), 401, matrix.CodeUnknownToken)
	w.want(w.do("POST", "/_matrix/client/v3/logout", cut, anyMap{}), 401, matrix.CodeUnknownToken)
	if w.asked.Load() != asked || w.hs.count() != before {
		t.Error("discharge was fetched, or request forwarded")
	}
	w.want(w.do("GET", upstream.PathWhoami, rotate, nil), 200, "")
}

// The expiry of the homeserver's token bounds the session.
func TestHomeserverTokenExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hs.expiresMS = time.Hour.Milliseconds()
	in := w.login(false)
	if in.body["expires_in_ms"] == nil {
		t.Errorf("%s", in.raw)
	}
	rotate := w.login(true)
	w.forward(time.Hour - time.Minute)
	a := w.want(w.refresh(rotate.text("refresh_token")), 200, "")
	if ms := a.body["expires_in_ms"].(float64); ms > 60_000 {
		t.Errorf("%s", a.raw)
	}
	w.forward(2 * time.Minute)
	if a := w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("%s", a.raw)
	}
	if a := w.want(w.refresh(a.text("refresh_token")), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("%s", a.raw)
	}
}

// Failed logins leave no device behind, and their responses have the reason.
func TestLoginFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.want(w.do("POST", pathLogin, "", anyMap{"password": "wrong"}), 403, matrix.CodeForbidden)
		w.want(w.do("POST", pathLogin, "", "x"), 400, matrix.CodeNotJSON)
		w.want(w.do("POST", pathLogin, "", `{"refresh_token":"yes"}`), 400, matrix.CodeUnknown)
		w.want(w.do("POST", pathLogin, "", strings.Repeat(" ", jsonbody.MaxSize+1)), 413, matrix.CodeTooLarge)
		w.down.Store(true) // after the service confirmed that it can decide
		a := w.want(w.do("POST", pathLogin, "", anyMap{}), 503, matrix.CodeUnknown)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%v", a.header)
		}
		w.want(w.do("POST", pathLogin, "", anyMap{"device_id": "MINE"}), 503, matrix.CodeUnknown)
		if !w.hs.alive("MINE") {
			t.Error("device named by the client was deleted")
		}
		w.forward(service.ReadyFor)
		before := w.hs.count()
		w.want(w.do("POST", pathLogin, "", anyMap{}), 503, matrix.CodeUnknown)
		w.want(w.do("POST", "/_matrix/client/v3/register", "", anyMap{"username": "new"}), 503, matrix.CodeUnknown)
		if w.hs.count() != before {
			t.Error("login was forwarded")
		}
		w.down.Store(false)
		w.gateway.outbox.Wake()
		testkit.Eventually(t, "the device of the failed login is gone", func() bool { return !w.hs.alive("DEV1") })
		if !w.hs.alive("MINE") {
			t.Error("device named by the client was deleted")
		}
	}, func(w *world) { w.stopped = time.Now() })
}

// Compressed responses are parsed where the gateway changes them.
func TestGzip(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.PublicURL = "https://matrix.example" })
	w.hs.gzip, w.hs.wellKnown = true, true
	in := w.login(true)
	if well, ok := in.body["well_known"].(anyMap); !ok || well["m.homeserver"].(anyMap)["base_url"] != "https://matrix.example" {
		t.Errorf("%s", in.raw)
	}
	a := w.want(w.do("GET", "/_matrix/client/versions", "", nil), 200, "")
	if v, _ := json.Marshal(a.body["versions"]); string(v) != `["r0.6.1","v1.1","v1.2","v1.3"]` || a.body["unstable_features"] == nil {
		t.Errorf("%s", a.raw)
	}
	a = w.want(w.do("GET", "/.well-known/matrix/client", "", nil), 200, "")
	if hs := a.body["m.homeserver"].(anyMap); hs["base_url"] != "https://matrix.example" || hs["x"] == nil || a.body["m.identity_server"] == nil {
		t.Errorf("%s", a.raw)
	}
	w.hs.set(func(s *stub) { clear(s.tokens) })
	w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken)
	w.want(w.refresh(in.text("refresh_token")), 401, matrix.CodeUnknownToken)
}
