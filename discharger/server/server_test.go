package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

func TestDischargeOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.mint(caveat.ModeRotate)
	for name, send := range map[string]func(extra url.Values) answer{
		"query": func(v url.Values) answer {
			return w.do(w.request(http.MethodPost, wire.PathDischarge+"?"+v.Encode(), ""))
		},
		"form": func(v url.Values) answer { return w.post(wire.PathDischarge, v) },
		"both": func(v url.Values) answer {
			rest := url.Values{}
			for k, x := range v {
				if k != "id64" {
					rest[k] = x
				}
			}
			return w.post(wire.PathDischarge+"?id64="+v.Get("id64"), rest)
		},
	} {
		a := send(form("id64", b64(id), "request-id", "1"))
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: content type %q", name, got)
		}
		if d := a.discharge(t); d.RefreshToken == "" || d.ExpiresIn < 299_000 || d.ExpiresIn > 300_000 {
			t.Errorf("%s: got %s", name, a.body)
		}
	}
	token := w.post(wire.PathDischarge, form("id64", b64(id), "request-id", "1")).discharge(t).RefreshToken
	for range 2 {
		a := w.post(wire.PathDischarge, form("id64", b64(id), "token64", token, "token-kind", "refresh"))
		token = a.discharge(t).RefreshToken
	}
	a := w.post(wire.PathDischarge, form("id64", b64(id)))
	if e := a.error(t); a.status != 401 || e.Code != wire.CodePermissionDenied || e.Info.Reason != wire.ReasonTokenRequired {
		t.Errorf("without a token: %d %s", a.status, a.body)
	}
	for range 2 {
		a = w.post(wire.PathLogout, form("id64", b64(id), "token", token, "token-kind", "refresh"))
		if a.status != 200 || string(a.body) != "{}" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("logout: %d %s", a.status, a.body)
		}
	}
	a = w.post(wire.PathDischarge, form("id64", b64(id), "token64", token, "token-kind", "refresh"))
	if e := a.error(t); a.status != 401 || e.Info.Reason != wire.ReasonSessionEnded || !e.Info.Ended || e.Info.SoftLogout == nil || *e.Info.SoftLogout {
		t.Errorf("after logout: %d %s", a.status, a.body)
	}
}

func TestBase64Alphabets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.mint(caveat.ModeOpen)
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		w.post(wire.PathDischarge, form("id64", enc.EncodeToString(id))).discharge(t)
		w.post(wire.PathDischarge, form("id", "\x03\x00", "caveat64", enc.EncodeToString(id))).discharge(t)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, rotating := w.mint(caveat.ModeOpen), w.mint(caveat.ModeRotate)
	good := b64(id)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write([]byte("id64=" + good))
	z.Close()
	for name, a := range map[string]answer{
		"nothing":             w.post(wire.PathDischarge, nil),
		"empty id":            w.post(wire.PathDischarge, form("id", "")),
		"id twice":            w.post(wire.PathDischarge, form("id64", good, "id64", good)),
		"id in both places":   w.post(wire.PathDischarge+"?id64="+good, form("id64", good)),
		"not base64":          w.post(wire.PathDischarge, form("id64", good+"*")),
		"line break in id":    w.post(wire.PathDischarge, form("id64", good[:8]+"\n"+good[8:])),
		"mixed alphabets":     w.post(wire.PathDischarge, form("id64", "-_+/")),
		"not a caveat":        w.post(wire.PathDischarge, form("id", "hello")),
		"not UTF-8":           w.post(wire.PathDischarge, form("id", "\xff\xfe")),
		"V1 without a key":    w.post(wire.PathDischarge, form("id", "eyJ4IjoxfQ==")),
		"caveat not base64":   w.post(wire.PathDischarge, form("id", "x", "caveat64", "%%%")),
		"caveat but no id":    w.post(wire.PathDischarge, form("caveat64", good)),
		"token without kind":  w.post(wire.PathDischarge, form("id64", b64(rotating), "token64", "AAAA")),
		"token of other kind": w.post(wire.PathDischarge, form("id64", b64(rotating), "token64", "AAAA", "token-kind", "agent")),
		"kind without token":  w.post(wire.PathDischarge, form("id64", good, "token-kind", "refresh")),
		"token not base64":    w.post(wire.PathDischarge, form("id64", b64(rotating), "token64", "*", "token-kind", "refresh")),
		"token not a token":   w.post(wire.PathDischarge, form("id64", b64(rotating), "token64", "AAAA", "token-kind", "refresh")),
		"long request-id":     w.post(wire.PathDischarge, form("id64", good, "request-id", strings.Repeat("x", 65))),
		"unknown scope":       w.post(wire.PathLogout, form("id64", good, "scope", "everything")),
		"scope twice":         w.post(wire.PathLogout, form("id64", good, "scope", "session", "scope", "user")),
		"broken escape":       w.do(w.request(http.MethodPost, wire.PathDischarge+"?id64=%zz", "")),
		"semicolons":          w.do(w.request(http.MethodPost, wire.PathDischarge+"?a=1;id64="+good, "")),
		"JSON body":           w.do(w.request(http.MethodPost, wire.PathDischarge, `{"id64":"`+good+`"}`, "Content-Type", "application/json")),
		"compressed": w.do(w.request(http.MethodPost, wire.PathDischarge, zipped.String(),
			"Content-Type", wire.ContentTypeForm, "Content-Encoding", "gzip")),
	} {
		if e := a.error(t); a.status != http.StatusBadRequest || e.Code != wire.CodeBadRequest || e.Message == "" || e.Info != nil {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: content type %q", name, got)
		}
	}
	for n := range len(id) {
		if a := w.post(wire.PathDischarge, form("id64", b64(id[:n]))); a.status != 400 && a.status != 429 {
			t.Errorf("first %d bytes of a caveat: %d %s", n, a.status, a.body)
		}
	}
	if n := w.stored(); n != 0 {
		t.Errorf("bad requests left %d records", n)
	}
	w.post(wire.PathDischarge, form("id64", good)).discharge(t) // valid, in spite of the failures
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	huge := strings.Repeat("A", 10<<20)
	for name, a := range map[string]answer{
		"form":   w.early(wire.PathDischarge, form("id64", huge).Encode(), "Content-Type", wire.ContentTypeForm),
		"logout": w.early(wire.PathLogout, form("id64", huge).Encode(), "Content-Type", wire.ContentTypeForm),
	} {
		if e := a.error(t); a.status != http.StatusRequestEntityTooLarge || e.Code != wire.CodeTooLarge {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := w.early(wire.PathDischarge+"?id64="+huge[:64<<10], "")
	if a.status/100 != 4 {
		t.Errorf("query: %d", a.status)
	}
}

func TestMethodsAndPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := b64(w.mint(caveat.ModeOpen))
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		for _, path := range []string{wire.PathDischarge, wire.PathLogout} {
			a := w.do(w.request(method, path+"?id64="+good, ""))
			if e := a.error(t); a.status != http.StatusMethodNotAllowed || e.Code != wire.CodeMethodNotAllowed || !strings.Contains(a.header.Get("Allow"), "POST") {
				t.Errorf("%s %s: %d %s, Allow %q", method, path, a.status, a.body, a.header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{"/", "/discharge/", "/metrics", "/healthz", "/readyz", "/discharge/x"} {
		if a := w.do(w.request(http.MethodGet, path, "")); a.status != http.StatusNotFound || a.error(t).Code != wire.CodeNotFound {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if n := w.stored(); n != 0 {
		t.Errorf("%d records were made", n)
	}
	if a := w.do(w.request(http.MethodGet, wire.PathInfo, "")); !strings.Contains(string(a.body), `"Version":3`) {
		t.Errorf("info: %s", a.body)
	}
	if a := w.do(w.request(http.MethodGet, wire.PathPublicKey, "")); a.status != 200 || strings.Contains(string(a.body), "Version") {
		t.Errorf("public key: %s", a.body)
	}
}

func TestBrowserClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(w.request(http.MethodOptions, wire.PathDischarge, "", "Origin", "https://app.example",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "bakery-protocol-version"))
	allowed := strings.ToLower(a.header.Get("Access-Control-Allow-Headers"))
	if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(allowed, "bakery-protocol-version") {
		t.Errorf("preflight: %d %v", a.status, a.header)
	}
	a = w.post(wire.PathDischarge, form("id", "x"), "Origin", "https://app.example")
	if a.status != 400 || a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("a refusal the browser may not read: %d %v", a.status, a.header)
	}
}

func TestAPIKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held := form("id64", b64(w.mint(caveat.ModeHeld)))
	a := w.post(wire.PathDischarge, held)
	if e := a.error(t); a.status != 401 || e.Info == nil || e.Info.Reason != wire.ReasonHomeserverRequired || e.Info.Ended || e.Info.SoftLogout != nil {
		t.Errorf("without a key: %d %s", a.status, a.body)
	}
	for _, header := range []string{"Bearer wrong", "Bearer ", "Bearer", "Basic " + apiKey, apiKey} {
		a := w.post(wire.PathDischarge, held, "Authorization", header)
		if e := a.error(t); a.status != 401 || e.Code != wire.CodeUnauthorized || e.Info != nil {
			t.Errorf("%q: %d %s", header, a.status, a.body)
		}
	}
	a = w.post(wire.PathDischarge, held, "Authorization", "Bearer "+apiKey, "Authorization", "Bearer "+apiKey)
	if a.status != 401 {
		t.Errorf("two keys: %d", a.status)
	}
	w.post(wire.PathDischarge, held, "Authorization", "Bearer "+apiKey).discharge(t)
	held.Set("client-ip", "not an address")
	if a := w.post(wire.PathDischarge, held, "Authorization", "Bearer "+apiKey); a.status != 400 {
		t.Errorf("bad client-ip: %d %s", a.status, a.body)
	}
}

// TestWhoAsks narrows a refresh token to an address and sees from where it
// may be used.
func TestWhoAsks(t *testing.T) {
	t.Parallel()
	behind := func(c *server.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
	const there, elsewhere = "203.0.113.7", "198.51.100.66"
	for name, tt := range map[string]struct {
		change func(*server.Config)
		header []string
		form   url.Values
		ok     bool
	}{
		"peer":                     {header: nil, ok: false},
		"header without a proxy":   {header: []string{"X-Forwarded-For", there}, ok: false},
		"trusted proxy":            {change: behind, header: []string{"X-Forwarded-For", there}, ok: true},
		"client lies to the proxy": {change: behind, header: []string{"X-Forwarded-For", there + ", " + elsewhere}, ok: false},
		"two trusted proxies":      {change: behind, header: []string{"X-Forwarded-For", elsewhere + ", " + there + ", 127.0.0.9"}, ok: true},
		"another header":           {change: behind, header: []string{"X-Real-IP", there}, ok: false},
		"mapped address":           {change: behind, header: []string{"X-Forwarded-For", "::ffff:" + there}, ok: true},
		"garbage":                  {change: behind, header: []string{"X-Forwarded-For", there + ", evil"}, ok: false},
		"from a homeserver":        {header: []string{"Authorization", "Bearer " + apiKey}, form: form("client-ip", there), ok: true},
		"from another client":      {form: form("client-ip", there), ok: false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := tt.change
			if change == nil {
				change = func(*server.Config) {}
			}
			w := newWorld(t, change)
			id := b64(w.mint(caveat.ModeRotate))
			token, err := client.ParseRefreshToken(w.post(wire.PathDischarge, form("id64", id)).discharge(t).RefreshToken)
			testkit.NoError(t, err)
			narrow, err := token.Attenuate(rawmacaroon.ClientIP(netip.MustParsePrefix(there + "/32")))
			testkit.NoError(t, err)
			v := form("id64", id, "token64", string(narrow), "token-kind", "refresh")
			for k, x := range tt.form {
				v[k] = x
			}
			a := w.post(wire.PathDischarge, v, tt.header...)
			if (a.status == 200) != tt.ok {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}

func TestStoreTrouble(t *testing.T) {
	t.Parallel()
	var hasty server.Config // the same, with a short budget, for failures
	w := newWorld(t, func(c *server.Config) {
		hasty = *c
		hasty.Timeout = time.Second
	})
	short, err := server.New(hasty)
	testkit.NoError(t, err)
	client, admin := startServer(t, short.Client(), hasty.Log), startServer(t, short.Admin(), hasty.Log)
	patient := w.http
	id := b64(w.mint(caveat.ModeRotate))
	token := w.post(wire.PathDischarge, form("id64", id)).discharge(t).RefreshToken
	v := form("id64", id, "token64", token, "token-kind", "refresh", "request-id", "r")
	for name, trouble := range map[string]func(){
		"down":  func() { w.store.set(errors.New("canary-store-error"), false) },
		"hangs": func() { w.store.set(nil, true) },
	} {
		trouble()
		w.http = client
		for _, path := range []string{wire.PathDischarge, wire.PathLogout} {
			start := time.Now()
			a := w.post(path, v)
			if took := time.Since(start); took > patience/2 {
				t.Errorf("%s, %s: took %v", name, path, took)
			}
			if e := a.error(t); a.status != 503 || e.Code != wire.CodeUnavailable || a.header.Get("Retry-After") == "" || bytes.Contains(a.body, []byte("canary")) {
				t.Errorf("%s, %s: %d %s", name, path, a.status, a.body)
			}
		}
		if got := get(t, admin.URL+wire.PathReady); got != 503 {
			t.Errorf("%s: ready is %d", name, got)
		}
		if got := get(t, admin.URL+wire.PathHealth); got != 200 {
			t.Errorf("%s: health is %d", name, got)
		}
	}
	w.store.set(nil, false)
	w.http = patient
	w.post(wire.PathDischarge, v).discharge(t)
	if got := get(t, w.admin.URL+wire.PathReady); got != 200 {
		t.Errorf("ready is %d", got)
	}
	w.server.Drain()
	if got := get(t, w.admin.URL+wire.PathReady); got != 503 {
		t.Errorf("draining: ready is %d", got)
	}
}

func get(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	testkit.NoError(t, err)
	resp.Body.Close()
	return resp.StatusCode
}

// TestTooManyFailures: a client that keeps failing is answered 429, and its valid
// requests are still served.
func TestTooManyFailures(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_790_000_000_000)
	w := newWorld(t, func(c *server.Config) { *c = c.WithClock(func() time.Time { return now }) })
	good := form("id64", b64(w.mint(caveat.ModeOpen)))
	for n := range 200 {
		if a := w.post(wire.PathDischarge, form("id", "x")); a.status != 400 {
			t.Fatalf("failure %d: %d", n, a.status)
		}
	}
	a := w.post(wire.PathDischarge, form("id", "x"))
	if e := a.error(t); a.status != 429 || e.Code != wire.CodeTooManyRequests || a.header.Get("Retry-After") != "10" {
		t.Errorf("got %d %s, Retry-After %q", a.status, a.body, a.header.Get("Retry-After"))
	}
	w.post(wire.PathDischarge, good).discharge(t)
}

func TestOverload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *server.Config) { c.Limits.InFlight = 2 })
	v := form("id64", b64(w.mint(caveat.ModeOpen)))
	w.store.set(nil, true)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		r := w.request(http.MethodPost, wire.PathDischarge+"?"+v.Encode(), "").WithContext(ctx)
		wg.Go(func() {
			for ctx.Err() == nil { // may be refused itself
				if resp, err := w.http.Client().Do(r.Clone(ctx)); err == nil {
					resp.Body.Close()
				}
			}
		})
	}
	answered := func(status int) func() bool { // something harmless
		return func() bool { return w.do(w.request(http.MethodGet, wire.PathInfo, "")).status == status }
	}
	testkit.Eventually(t, "there is no room", answered(http.StatusServiceUnavailable))
	cancel()
	wg.Wait()
	testkit.Eventually(t, "there is room again", answered(http.StatusOK))
}

// TestNoSecretsInLogs sends everything secret that there is, in good and bad
// requests, and looks for it in logs, metrics and answers.
func TestNoSecretsInLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := b64(w.mint(caveat.ModeRotate))
	token := w.post(wire.PathDischarge, form("id64", id)).discharge(t).RefreshToken
	query := fmt.Sprintf("?id64=%s&token64=%s&token-kind=refresh", id, token)
	w.do(w.request(http.MethodPost, wire.PathDischarge+query, ""))
	w.do(w.request(http.MethodGet, wire.PathDischarge+query, ""))
	w.do(w.request(http.MethodPost, "/nowhere"+query, ""))
	w.post(wire.PathDischarge, form("id64", id, "token64", token), "Authorization", "Bearer "+apiKey)
	w.store.set(errors.New("down"), false)
	w.do(w.request(http.MethodPost, wire.PathDischarge+query, "", "Authorization", "Bearer "+apiKey))
	resp, err := http.Get(w.admin.URL + wire.PathMetrics)
	testkit.NoError(t, err)
	defer resp.Body.Close()
	var metrics bytes.Buffer
	_, err = metrics.ReadFrom(resp.Body)
	testkit.NoError(t, err)
	logged := w.log.String()
	if !strings.Contains(logged, `"msg":"request"`) || !strings.Contains(logged, "request undecided") {
		t.Errorf("log: %s", logged)
	}
	for _, want := range []string{
		`discharger_requests_total{end="",homeserver="a.example",mode="rotate",op="discharge",reason="",result="ok"} 2`,
		`discharger_store_seconds_count{op="swap",result="ok"} 2`,
	} {
		if !strings.Contains(metrics.String(), want) {
			t.Errorf("metrics lack %s\n%s", want, metrics.String())
		}
	}
	for name, secret := range map[string]string{"caveat": id[20:60], "token": token[:40], "API key": apiKey} {
		if strings.Contains(logged, secret) || strings.Contains(metrics.String(), secret) {
			t.Errorf("the %s is in the log or the metrics", name)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	sum := [][sha256.Size]byte{sha256.Sum256([]byte("shared"))}
	for name, change := range map[string]func(*server.Config){
		"no service":    func(c *server.Config) { c.Service = nil },
		"no readiness":  func(c *server.Config) { c.Ready = nil },
		"no public key": func(c *server.Config) { c.PublicKey = caveat.PublicKey{} },
		"one API key for two": func(c *server.Config) {
			c.APIKeys = map[string][][sha256.Size]byte{"a.example": sum, "b.example": sum}
		},
	} {
		newWorld(t, func(c *server.Config) {
			broken := *c
			change(&broken)
			if _, err := server.New(broken); err == nil {
				t.Errorf("%s: accepted", name)
			}
		})
	}
}
