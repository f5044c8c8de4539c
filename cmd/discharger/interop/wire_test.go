//go:build interop

package interop

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// testWire checks the details of requests and answers that stock clients depend on.
func testWire(t *testing.T, w *world) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"advertised key", testAdvertisedKey},
		{"method", testMethod},
		{"parameters", testParameters},
		{"base64", testBase64},
		{"python short id", testPythonShortID},
		{"go raw request", testGoRawRequest},
		{"refusal", testRefusal},
		{"bad requests", testBadRequests},
		{"browser", testBrowser},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, w) })
	}
}

// testAdvertisedKey reads the public key that homeservers seal caveats to.
func testAdvertisedKey(t *testing.T, w *world) {
	info := send(t, w.request(t, http.MethodGet, wire.PathInfo, nil))
	var body struct {
		PublicKey string
		Version   int
	}
	dec := json.NewDecoder(strings.NewReader(info.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || info.status != http.StatusOK || info.contentType != wire.ContentType {
		t.Fatalf("%s: %v", info, err)
	}
	key, err := base64.StdEncoding.DecodeString(body.PublicKey)
	if err != nil || len(key) != 32 || body.Version != 3 {
		t.Errorf("%s: the key is %x, %v", info, key, err)
	}
	old := send(t, w.request(t, http.MethodGet, wire.PathPublicKey, nil))
	if want := fmt.Sprintf(`{"PublicKey":%q}`, body.PublicKey); old.status != http.StatusOK ||
		old.contentType != wire.ContentType || strings.TrimSpace(old.body) != want {
		t.Errorf("%s, want %s", old, want)
	}
}

// testMethod uses other methods: a link must not be a request. The bakery's own
// discharger answers GET; this one does not.
func testMethod(t *testing.T, w *world) {
	l := w.stock.login(t, "@method:stock", caveat.V2, caveat.ModeRotate)
	params := l.params(t).Encode()
	for _, path := range []string{wire.PathDischarge, wire.PathLogout} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodHead} {
			a := send(t, w.request(t, method, path+"?"+params, nil))
			if a.status != http.StatusMethodNotAllowed || a.contentType != wire.ContentType || a.header.Get("Allow") == "" {
				t.Errorf("%s %s: %s, Allow %q", method, path, a, a.header.Get("Allow"))
			}
			if method != http.MethodHead && a.refusal(t).Code != wire.CodeMethodNotAllowed {
				t.Errorf("%s %s: %s", method, path, a)
			}
		}
	}
	// None of them was the first discharge, or a logout.
	if d := w.discharge(t, l, ""); d.RefreshToken == "" {
		t.Error("the first discharge of a session has no refresh token")
	}
}

// testParameters sends the same request in the query, in the body, and half in
// each. A parameter in both is refused.
func testParameters(t *testing.T, w *world) {
	l := w.stock.login(t, "@parameters:stock", caveat.V3, caveat.ModeOpen)
	params := l.params(t)
	id, external := url.Values{wire.ParamID64: params[wire.ParamID64]}, url.Values{wire.ParamCaveat64: params[wire.ParamCaveat64]}
	for _, test := range []struct {
		name        string
		query, body url.Values
		status      int
	}{
		{"query", params, nil, http.StatusOK},
		{"body", nil, params, http.StatusOK},
		{"both, one each", id, external, http.StatusOK},
		{"location, as JavaScript sends it", url.Values{"location": {"stock"}}, params, http.StatusOK},
		{"twice", id, params, http.StatusBadRequest},
		{"none", nil, nil, http.StatusBadRequest},
		{"only the short id", id, nil, http.StatusBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := w.request(t, http.MethodPost, wire.PathDischarge+"?"+test.query.Encode(), strings.NewReader(test.body.Encode()))
			req.Header.Set("Content-Type", wire.ContentTypeForm)
			if a := send(t, req); a.status != test.status || a.contentType != wire.ContentType {
				t.Errorf("%s: %s, want %d", test.name, a, test.status)
			}

		})
	}
}

// testBase64 sends ids and tokens in all four alphabets.
func testBase64(t *testing.T, w *world) {
	l := w.stock.login(t, "@base64:stock", caveat.V2, caveat.ModeRotate)
	id, err := wire.DecodeBase64(l.params(t).Get(wire.ParamID64))
	if err != nil {
		t.Fatal(err)
	}
	var token []byte
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		params := url.Values{wire.ParamID64: {enc.EncodeToString(id)}}
		if token != nil {
			withToken(params, enc.EncodeToString(token))
		}
		a := w.post(t, wire.PathDischarge, params)
		var d wire.DischargeResponse
		if err := json.Unmarshal([]byte(a.body), &d); err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: %v", a, err)
		}
		if token, err = wire.DecodeBase64(d.RefreshToken); err != nil {
			t.Fatal(err)
		}
	}
}

// testPythonShortID sends the id of an external caveat as the Python client
// does: as a text of two control characters.
func testPythonShortID(t *testing.T, w *world) {
	l := w.stock.login(t, "@short:stock", caveat.V3, caveat.ModeOpen)
	params := l.params(t)
	if params.Get(wire.ParamID64) != "AwA" {
		t.Fatalf("the caveat's id is %q, want the bytes 3, 0", params.Get(wire.ParamID64))
	}
	req := w.request(t, http.MethodPost, wire.PathDischarge, strings.NewReader("id=%03%00&caveat64="+params.Get(wire.ParamCaveat64)))
	req.Header.Set("Content-Type", wire.ContentTypeForm)
	a := send(t, req)
	var d struct {
		Macaroon struct {
			M struct {
				ID64 string `json:"i64"`
			} `json:"m"`
			Version   int    `json:"v"`
			Namespace string `json:"ns"`
		}
	}
	if err := json.Unmarshal([]byte(a.body), &d); err != nil || a.status != http.StatusOK {
		t.Fatalf("%s: %v", a, err)
	}
	if d.Macaroon.M.ID64 != "AwA" || d.Macaroon.Version != 3 || d.Macaroon.Namespace != "std:" {
		t.Errorf("%s", a)
	}
}

// testGoRawRequest sends the bytes of the Go client: parameters in the query, an empty
// body in chunks, an empty Cookie header, no content type.
func testGoRawRequest(t *testing.T, w *world) {
	l := w.stock.login(t, "@raw:stock", caveat.V1, caveat.ModeOpen)
	host := strings.TrimPrefix(w.service.url, "http://")
	conn, err := net.DialTimeout("tcp", host, startTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for range 3 { // on one connection, where the rest of a body would show
		fmt.Fprintf(conn, "POST /discharge?%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\n"+
			"Transfer-Encoding: chunked\r\nBakery-Protocol-Version: 3\r\nCookie: \r\nAccept-Encoding: gzip\r\n\r\n0\r\n\r\n",
			l.params(t).Encode(), host)
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != wire.ContentType ||
			resp.Header.Get("Content-Encoding") != "" || !strings.HasPrefix(string(body), `{"Macaroon":{"caveats":[{"cid":"time-before `) {
			t.Fatalf("%s %v: %s, %v", resp.Status, resp.Header, body, err)
		}
	}
}

// testRefusal reads a refusal, which is the same for every version of the protocol:
// status 407 and WWW-Authenticate belong to interactions, which this service does not
// have.
func testRefusal(t *testing.T, w *world) {
	l := w.stock.login(t, "@refusal:stock", caveat.V2, caveat.ModeOpen)
	w.discharge(t, l, "")
	for range 2 { // a logout that is repeated succeeds
		if a := w.post(t, wire.PathLogout, l.params(t)); a.status != http.StatusOK || a.contentType != wire.ContentType || a.body != "{}" {
			t.Fatalf("logout: %s", a)
		}
	}
	var bodies []string
	for _, version := range []string{"", "0", "1", "3", "99", "x"} {
		req := w.request(t, http.MethodPost, wire.PathDischarge+"?"+l.params(t).Encode(), nil)
		if version != "" {
			req.Header.Set(wire.HeaderProtocol, version)
		}
		a := send(t, req)
		if a.status != http.StatusUnauthorized || a.contentType != wire.ContentType || len(a.header["Www-Authenticate"]) > 0 {
			t.Errorf("version %q: %s %v", version, a, a.header)
		}
		bodies = append(bodies, a.body)
	}
	const want = `{"Code":"permission denied","Message":"this session has ended: log in again",` +
		`"Info":{"Reason":"session_ended","Ended":true,"SoftLogout":false}}`
	for _, body := range bodies {
		if strings.TrimSpace(body) != want {
			t.Errorf("the body is %s\nwant %s", body, want)
		}
	}
}

// testBadRequests sends malformed requests: each is answered with an error that the
// stock clients can read, and the session goes on.
func testBadRequests(t *testing.T, w *world) {
	l := w.stock.login(t, "@bad:stock", caveat.V2, caveat.ModeOpen)
	w.discharge(t, l, "")
	id := l.params(t).Get(wire.ParamID64)
	const ok = http.StatusBadRequest
	for _, test := range []struct {
		name   string
		params url.Values
		status int
	}{
		{"id is not base64", url.Values{wire.ParamID64: {"!"}}, ok},
		{"id is no caveat", url.Values{wire.ParamID64: {"AAAA"}}, ok},
		{"id is cut short", url.Values{wire.ParamID64: {id[:len(id)-4]}}, ok},
		{"V1 id that names no key", url.Values{wire.ParamID: {"eyJ4IjoxfQ=="}}, ok},
		{"token without a kind", url.Values{wire.ParamID64: {id}, wire.ParamToken64: {"AAAA"}}, ok},
		{"token of another kind", url.Values{wire.ParamID64: {id}, wire.ParamToken64: {"AAAA"}, wire.ParamTokenKind: {"agent"}}, ok},
		{"kind without a token", url.Values{wire.ParamID64: {id}, wire.ParamTokenKind: {wire.TokenKindRefresh}}, ok},
		{"long request-id", url.Values{wire.ParamID64: {id}, wire.ParamRequestID: {strings.Repeat("x", wire.MaxRequestID+1)}}, ok},
		// The smallest body above the limit: it fits into the buffers of the connection, so that
		// the client never waits to write the part that the service does not read.
		{"large body", url.Values{wire.ParamID64: {id}, "x": {strings.Repeat("x", 1<<16)}}, http.StatusRequestEntityTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, path := range []string{wire.PathDischarge, wire.PathLogout} {
				a := w.post(t, path, test.params)
				code := map[int]string{ok: wire.CodeBadRequest, http.StatusRequestEntityTooLarge: wire.CodeTooLarge}[test.status]
				if e := a.refusal(t); a.status != test.status || a.contentType != wire.ContentType || e.Code != code || e.Message == "" || e.Info != nil {
					t.Errorf("%s at %s: %s", test.name, path, a)
				}
			}
		})
	}
	missing := send(t, w.request(t, http.MethodGet, "/discharge/wait", nil))
	if missing.status != http.StatusNotFound || missing.contentType != wire.ContentType || missing.refusal(t).Code != wire.CodeNotFound {
		t.Errorf("a path that does not exist: %s", missing)
	}
	w.discharge(t, l, "")
}

// testBrowser sends the preflight request of a browser for a page of another origin,
// and the request itself.
func testBrowser(t *testing.T, w *world) {
	l := w.stock.login(t, "@browser:stock", caveat.V3, caveat.ModeOpen)
	const origin = "https://app.example.org"
	preflight := w.request(t, http.MethodOptions, wire.PathDischarge, nil)
	preflight.Header.Set("Origin", origin)
	preflight.Header.Set("Access-Control-Request-Method", http.MethodPost)
	preflight.Header.Set("Access-Control-Request-Headers", "bakery-protocol-version,content-type")
	a := send(t, preflight)
	allowed := strings.ToLower(a.header.Get("Access-Control-Allow-Headers"))
	if a.status != http.StatusNoContent || !strings.Contains(allowed, "bakery-protocol-version") ||
		!strings.Contains(a.header.Get("Access-Control-Allow-Methods"), http.MethodPost) {
		t.Errorf("preflight: %s %v", a, a.header)
	}
	req := w.request(t, http.MethodPost, wire.PathDischarge, strings.NewReader(l.params(t).Encode()))
	req.Header.Set("Content-Type", wire.ContentTypeForm)
	req.Header.Set("Origin", origin)
	a = send(t, req)
	if from := a.header.Get("Access-Control-Allow-Origin"); a.status != http.StatusOK || (from != "*" && from != origin) ||
		a.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%s %v", a, a.header)
	}
}
