package gateway

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/testkit"
)

// rejecting returns a world that refuses legacy tokens.
func rejecting(t *testing.T) *world {
	return newWorld(t, func(w *world) { w.cfg.Legacy.Reject = true })
}

// Where legacy tokens are refused, no spelling of a content type lets one through in a
// form.
func TestFormCarriesNoToken(t *testing.T) {
	t.Parallel()
	w := rejecting(t)
	old := w.foreign("@u:hs")
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{[]string{form}, 401},
		{[]string{strings.ToUpper(form)}, 401},
		{[]string{form + "; charset=utf-8"}, 401},
		{[]string{form + `;a="b;c=d"`}, 401},
		{[]string{form + ";a=1;a=2"}, 400},
		{[]string{form + ";a*0=x;a*0=y"}, 400},
		{[]string{form + ";a*0=x;a*1=y"}, 400},
		{[]string{form + ";a*=utf-8''x"}, 400},
		{[]string{"\u00a0" + form}, 400},
		{[]string{form + "\u00a0"}, 400},
		{[]string{"\xa0" + form}, 400},
		{[]string{form + "\xa0"}, 400},
		{[]string{form, "application/json"}, 400},
		{[]string{"application/json", form}, 400},
		{[]string{"application/json, " + form}, 400},
		{[]string{"=?utf-8?q?" + form + "?="}, 400},
		{[]string{"application/x-www-form-urlencoded/x"}, 400},
		{[]string{"(comment)" + form}, 400},
		{[]string{form + "(comment)"}, 400},
		{[]string{`"` + form + `"`}, 400},
		{[]string{form + ","}, 400},
		{[]string{";" + form}, 400},
		{[]string{form + ";="}, 400},
		{[]string{form + `;a="`}, 400},
		{[]string{""}, 400},
		{[]string{"multipart/form-data; boundary=x"}, 415},
		{[]string{"text/html"}, 415},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q chunked=%t", c.headers, chunked), func(t *testing.T) {
				body := "a=b&access%5ftoken=" + old
				headers := []string{fmt.Sprintf("Content-Length: %d", len(body))}
				if chunked {
					headers[0] = "Transfer-Encoding: chunked"
					body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
				}
				for _, h := range c.headers {
					headers = append(headers, "Content-Type: "+h)
				}
				before := w.hs.count()
				status := w.rawRequest("POST /_matrix/client/v3/join/x", append(headers, "", body)...)
				if status != c.status || w.hs.count() != before {
					t.Errorf("%d, %d requests forwarded", status, w.hs.count()-before)
				}
			})
		}
	}
}

// Content types that clients send are accepted where legacy tokens are refused.
func TestContentTypesOfClients(t *testing.T) {
	t.Parallel()
	w := rejecting(t)
	token := w.login(false).text("access_token")
	for _, c := range []struct{ method, path, contentType string }{
		{"POST", "/_matrix/client/v3/join/x", ""},
		{"POST", "/_matrix/client/v3/join/x", "application/json"},
		{"POST", "/_matrix/client/v3/join/x", "application/json; charset=utf-8"},
		{"POST", "/_matrix/client/v3/join/x", "Application/JSON;charset=\"UTF-8\""},
		{"POST", "/_matrix/client/v3/join/x", "text/plain;charset=UTF-8"},
		{"POST", "/_matrix/client/v3/join/x", "application/x-www-form-urlencoded"},
		{"POST", "/_matrix/media/v3/upload", "application/x-www-form-urlencoded"},
		{"POST", "/_matrix/media/v3/upload", "multipart/form-data; boundary=x"},
		{"POST", "/_matrix/media/v3/upload", "image/svg+xml"},
		{"PUT", "/_matrix/media/v3/upload/hs/x", "audio/ogg; codecs=opus"},
		{"POST", "/_synapse/client/extension", "multipart/form-data; boundary=x"},
	} {
		t.Run(c.path+" "+c.contentType, func(t *testing.T) {
			req, err := http.NewRequest(c.method, w.http.URL+c.path, strings.NewReader(`{"access_token":"x"}`))
			testkit.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+token)
			if c.contentType != "" {
				req.Header.Set("Content-Type", c.contentType)
			}
			if a := w.send(req); a.status != 200 {
				t.Errorf("%d %s", a.status, a.raw)
			}
		})
	}
}

// An upload without an Authorization header is refused if its body can contain a token.
func TestUploadNeedsHeader(t *testing.T) {
	t.Parallel()
	w := rejecting(t)
	old := w.foreign("@u:hs")
	for _, contentType := range []string{"application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		req, err := http.NewRequest("POST", w.http.URL+"/_matrix/media/v3/upload", strings.NewReader("access_token="+old))
		testkit.NoError(t, err)
		req.Header.Set("Content-Type", contentType)
		before := w.hs.count()
		w.want(w.send(req), 401, matrix.CodeMissingToken)
		if w.hs.count() != before {
			t.Errorf("%s was forwarded", contentType)
		}
	}
}

// Paths of extensions accept gateway tokens.
func TestExtensions(t *testing.T) {
	t.Parallel()
	w := rejecting(t)
	token, old := w.login(false).text("access_token"), w.foreign("@u:hs")
	w.want(w.do("GET", "/_synapse/client/v1/config/federation_whitelist", token, nil), 200, "")
	if last := w.hs.last(t); !strings.HasPrefix(last.Token, "syt_") {
		t.Errorf("the homeserver saw %.8s…", last.Token)
	}
	w.want(w.do("GET", "/_synapse/client/v1/config/federation_whitelist", old, nil), 401, matrix.CodeUnknownToken)
	w.want(w.do("GET", "/_synapse/client/unsubscribe?access_token=macaroon", "", nil), 200, "")
}

// With RejectAfterUpgrade, a user of the gateway gets no homeserver token for a legacy
// refresh token.
func TestRejectAfterUpgradeRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.Legacy.RejectAfterUpgrade = true })
	w.hs.set(func(s *stub) { s.tokens["syt_fresh"] = stubDevice{"@u:hs", "OLD"} })
	if a := w.want(w.refresh("syr_old"), 200, ""); a.text("access_token") != "syt_fresh" {
		t.Errorf("%s", a.raw)
	}
	w.login(false)
	w.gateway.owners.Remove(sha256.Sum256([]byte("syt_fresh")))
	if a := w.want(w.refresh("syr_old"), 401, matrix.CodeUnknownToken); !a.soft() || strings.Contains(string(a.raw), "syt_") {
		t.Errorf("%s", a.raw)
	}
}

// A token for one room gets no event of another, by any route by which a homeserver
// finds one.
func TestRoomConfinesEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	whole := w.login(false).text("access_token")
	narrow, err := token.Attenuate(whole, "room !r:hs")
	testkit.NoError(t, err)
	event := func(room string) anyMap {
		return anyMap{"event_id": "$x", "room_id": room, "content": anyMap{"room_id": "!any:hs"}}
	}
	here, there := event("!r:hs"), event("!q:hs")
	nameless := anyMap{"event_id": "$x", "content": anyMap{}}
	nested := anyMap{"event_id": "$x", "room_id": "!r:hs", "unsigned": anyMap{"m.relations": anyMap{"m.thread": anyMap{"latest_event": there}}}}
	const v3, v1 = "/_matrix/client/v3/rooms/!r:hs/", "/_matrix/client/v1/rooms/!r:hs/"
	for _, c := range []struct {
		path   string
		answer any
		want   int
	}{
		{v3 + "event/$x", here, 200},
		{v3 + "event/$x", there, 403},
		{v3 + "event/$x", nameless, 403},
		{v3 + "event/$x", nested, 403},
		{v3 + "event/$x", anyMap{}, 403},
		{v3 + "context/$x", anyMap{"event": here, "events_before": []any{here}, "events_after": []any{}, "state": []any{here}}, 200},
		{v3 + "context/$x", anyMap{"event": here, "events_before": []any{here, there}}, 403},
		{v3 + "context/$x", anyMap{"event": there}, 403},
		{v3 + "context/$x", anyMap{"event": here, "state": []any{nameless}}, 403},
		{v3 + "context/$x", anyMap{"event": here, "state": "x"}, 403},
		{v1 + "relations/$x", anyMap{"chunk": []any{here}}, 200},
		{v1 + "relations/$x", anyMap{"chunk": []any{}}, 200},
		{v1 + "relations/$x/m.thread", anyMap{"chunk": []any{there}}, 403},
		{v1 + "relations/$x/m.thread/m.y", anyMap{"chunk": []any{nested}}, 403},
		{v1 + "threads", anyMap{"chunk": []any{there}}, 403},
		{v1 + "threads", []any{there}, 403},
	} {
		t.Run(fmt.Sprintf("%s %v", c.path, c.answer), func(t *testing.T) {
			w.hs.set(func(s *stub) { s.rooms = c.answer })
			w.want(w.do("GET", c.path, whole, nil), 200, "")
			a := w.do("GET", c.path, narrow, nil)
			if a.status != c.want || c.want != 200 && strings.Contains(string(a.raw), "!q:hs") {
				t.Errorf("%d %s", a.status, a.raw)
			}
		})
	}
	w.hs.handler = func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(rw, `{"event_id":"$x","room_id":"!q:hs"}`)
	}
	w.want(w.do("GET", v3+"event/$x", narrow, nil), 403, matrix.CodeForbidden)
}
