package bakery_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"
	"github.com/prometheus/client_golang/prometheus"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger"
	sessionbakery "github.com/discharger/discharger/discharger/bakery"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

const testKey = "api key of a.example"

// startDischarger starts a discharger with a bbolt store, and returns its URL, its
// public key and the key pair of its homeserver.
func startDischarger(t testing.TB) (string, caveat.PublicKey, caveat.KeyPair) {
	t.Helper()
	ours := caveat.GenerateKey()
	theirs := caveat.GenerateKey()
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{ours}, Homeservers: []caveat.Homeserver{{Name: "a.example", Key: theirs.Public}},
	})
	testkit.NoError(t, err)
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "sessions.db")})
	testkit.NoError(t, err)
	t.Cleanup(func() { st.Close() })
	key, err := discharger.NewRefreshKey(nil)
	testkit.NoError(t, err)
	reg := prometheus.NewRegistry()
	metrics, err := server.NewMetrics(reg)
	testkit.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	service, err := discharger.New(discharger.Config{
		Opener: opener, Store: metrics.Store(st), RefreshKeys: []discharger.RefreshKey{key}, Observer: metrics, Log: log,
		Limits: session.Limits{},
	})
	testkit.NoError(t, err)
	s, err := server.New(server.Config{
		Service: service, PublicKey: ours.Public, Ready: st.Ready, Metrics: metrics, Gatherer: reg, Log: log,
		APIKeys: map[string][][sha256.Size]byte{"a.example": {sha256.Sum256([]byte(testKey))}},
		Feed:    server.FeedConfig{Source: st, Heartbeat: time.Second},
	})
	testkit.NoError(t, err)
	web := httptest.NewServer(s.Client())
	t.Cleanup(web.Close)
	return web.URL, ours.Public, theirs
}

// adopter is a service on the bakery that has adopted sessions.
type adopter struct {
	oven    *sessionbakery.Oven
	client  *client.Client // of the discharger, with the API key
	web     *httptest.Server
	minted  *bakery.Macaroon // by the latest login
	revoked chan string      // receives an item for each revocation
}

func startAdopter(t testing.TB, change ...func(*sessionbakery.Config)) *adopter {
	t.Helper()
	url, key, pair := startDischarger(t)
	a := &adopter{revoked: make(chan string, 100)}
	var err error
	a.client, err = client.New(client.Config{URL: url, APIKey: []byte(testKey)})
	testkit.NoError(t, err)
	master := homeserver.NewKey()
	feed := homeserver.FeedConfig{Client: a.client}
	feed.OnEvent = onEvent(a.revoked)
	cfg := sessionbakery.Config{
		Homeserver: homeserver.Config{Keys: homeserver.Keys{master}, KeyPair: pair, Discharger: key, Location: url}, Feed: feed,
	}
	for _, f := range change {
		f(&cfg)
	}
	a.oven, err = sessionbakery.New(cfg)
	testkit.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.oven.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	testkit.NoError(t, a.oven.WaitCurrent(ctx))

	checker := bakery.NewChecker(bakery.CheckerParams{Checker: sessionbakery.NewChecker(), MacaroonVerifier: a.oven, Logger: quiet{}})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if _, err := checker.Auth(sessionbakery.RequestMacaroons(r)...).Allow(a.oven.Context(r), sessionbakery.SessionOp); err == nil {
			fmt.Fprint(w, "logged in")
			return
		}
		m, err := a.oven.NewMacaroon(homeserver.MintParams{User: r.FormValue("user"), Device: "LAPTOP", Mode: caveat.ModeOpen})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		a.minted = m
		httpbakery.WriteError(r.Context(), w, httpbakery.NewDischargeRequiredError(httpbakery.DischargeRequiredErrorParams{Macaroon: m, CookiePath: "/"}))
	})
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		ctx := a.oven.Context(r)
		info, err := checker.Auth(sessionbakery.RequestMacaroons(r)...).Allow(ctx, sessionbakery.SessionOp)
		if err != nil {
			sessionbakery.WriteError(ctx, w, err)
			return
		}
		identity, err := a.oven.Identity(ctx, info)
		if err != nil {
			sessionbakery.WriteError(ctx, w, err)
			return
		}
		fmt.Fprint(w, identity.User, " ", identity.Device)
	})
	a.web = httptest.NewServer(mux)
	t.Cleanup(a.web.Close)
	return a
}

// quiet is a logger of the bakery that drops everything.
type quiet struct{}

func (quiet) Infof(context.Context, string, ...any)  {}
func (quiet) Debugf(context.Context, string, ...any) {}

// do sends a request with a stock client and returns status and body.
func (a *adopter) do(t testing.TB, c *httpbakery.Client, method, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, a.web.URL+path, nil)
	testkit.NoError(t, err)
	resp, err := c.Do(r)
	testkit.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	testkit.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestStockClientFromLoginToLogout(t *testing.T) {
	t.Parallel()
	a := startAdopter(t)
	stock := httpbakery.NewClient()
	if status, body := a.do(t, stock, "GET", "/whoami"); status != http.StatusUnauthorized {
		t.Fatalf("without a login: %d %s", status, body)
	}
	if status, body := a.do(t, stock, "POST", "/login?user=alice"); status != http.StatusOK || body != "logged in" {
		t.Fatalf("login: %d %s", status, body)
	}
	if status, body := a.do(t, stock, "GET", "/whoami"); status != http.StatusOK || body != "alice LAPTOP" {
		t.Fatalf("request: %d %s", status, body)
	}
	testkit.NoError(t, a.client.Logout(t.Context(), client.Request{Access: client.Access{Macaroon: a.minted.M()}}, wire.ScopeSession))
	<-a.revoked
	status, body := a.do(t, stock, "GET", "/whoami")
	if status != http.StatusUnauthorized || !strings.Contains(body, "permission denied") {
		t.Errorf("after the logout: %d %s", status, body)
	}
}

func TestRevocationOfADevice(t *testing.T) {
	t.Parallel()
	a := startAdopter(t)
	stock := httpbakery.NewClient()
	a.do(t, stock, "POST", "/login?user=bob")
	if _, err := a.client.RevokeDevice(t.Context(), "bob", "LAPTOP", wire.RevokeOptions{Soft: true}); err != nil {
		t.Fatal(err)
	}
	<-a.revoked
	if status, body := a.do(t, stock, "GET", "/whoami"); status != http.StatusUnauthorized {
		t.Errorf("after the revocation: %d %s", status, body)
	}
}

// discharged returns an access macaroon, narrowed by conditions, with its discharge.
func (a *adopter) discharged(t testing.TB, conditions ...string) macaroon.Slice {
	t.Helper()
	m, err := a.oven.NewMacaroon(homeserver.MintParams{User: "alice", Device: "PHONE", Mode: caveat.ModeOpen})
	testkit.NoError(t, err)
	for _, c := range conditions {
		testkit.NoError(t, m.M().AddFirstPartyCaveat([]byte(c)))
	}
	ms, err := httpbakery.NewClient().DischargeAll(t.Context(), m)
	testkit.NoError(t, err)
	return ms
}

func TestConditions(t *testing.T) {
	t.Parallel()
	a := startAdopter(t, func(c *sessionbakery.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	})
	own := sessionbakery.NewChecker()
	own.Namespace().Register("https://a.example/conditions", "")
	own.Register("weekday", "https://a.example/conditions", func(_ context.Context, _, arg string) error {
		if arg != "monday" {
			return errors.New("another day")
		}
		return nil
	})
	checker := bakery.NewChecker(bakery.CheckerParams{Checker: own, MacaroonVerifier: a.oven, Logger: quiet{}})
	for name, tc := range map[string]struct {
		condition string
		ok        bool
	}{
		"address":             {rawmacaroon.ClientIP(netip.MustParsePrefix("192.0.2.0/24")), true},
		"other address":       {rawmacaroon.ClientIP(netip.MustParsePrefix("198.51.100.0/24")), false},
		"in time":             {rawmacaroon.TimeBefore(time.Now().Add(time.Hour)), true},
		"late":                {rawmacaroon.TimeBefore(time.Now().Add(-time.Hour)), false},
		"service's own":       {"weekday monday", true},
		"service's own, fail": {"weekday friday", false},
		"unknown":             {"color blue", false},
		"declaration":         {"declared user root", false},
		"empty":               {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			ms := a.discharged(t, tc.condition)
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = "203.0.113.1:1234"
			r.Header.Set("X-Forwarded-For", "198.51.100.7, 192.0.2.7")
			ctx := a.oven.Context(r)
			info, err := checker.Auth(ms).Allow(ctx, sessionbakery.SessionOp)
			if (err == nil) != tc.ok {
				t.Fatalf("allowed: %v", err)
			}
			if err != nil {
				return
			}
			if id, err := a.oven.Identity(ctx, info); err != nil || id.User != "alice" {
				t.Errorf("identity %+v, %v", id, err)
			}
		})
	}
}

func TestUndecidedIsNotARefusal(t *testing.T) {
	t.Parallel()
	a, other := startAdopter(t), startAdopter(t) // minted with a key that a does not know
	checker := bakery.NewChecker(bakery.CheckerParams{Checker: sessionbakery.NewChecker(), MacaroonVerifier: a.oven, Logger: quiet{}})
	ctx := t.Context()
	_, err := checker.Auth(other.discharged(t)).Allow(ctx, sessionbakery.SessionOp)
	if refusal := sessionbakery.Refusal(err); refusal == nil || !errors.Is(refusal, homeserver.ErrUnknownKey) {
		t.Fatalf("unknown key: %v", err)
	}
	w := httptest.NewRecorder()
	sessionbakery.WriteError(ctx, w, err)
	var body wire.ErrorResponse
	testkit.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	if w.Code != http.StatusServiceUnavailable || body.Code != wire.CodeUnavailable {
		t.Errorf("answered %d %+v", w.Code, body)
	}
	ms := a.discharged(t)
	_, err = checker.Auth(ms[:1]).Allow(ctx, sessionbakery.SessionOp)
	if refusal := sessionbakery.Refusal(err); refusal == nil || !errors.Is(refusal, homeserver.ErrNotDischarged) {
		t.Errorf("without a discharge: %v", err)
	}
	w = httptest.NewRecorder()
	if sessionbakery.WriteError(ctx, w, err); w.Code != http.StatusUnauthorized {
		t.Errorf("answered %d", w.Code)
	}
	if sessionbakery.Refusal(errors.New("other")) != nil || sessionbakery.Refusal(nil) != nil {
		t.Error("refusal in another error")
	}
}

// A request may have cookies of another service on the same host.
func TestUndecidedBundleBesideAValidOne(t *testing.T) {
	t.Parallel()
	a, other := startAdopter(t), startAdopter(t)
	checker := bakery.NewChecker(bakery.CheckerParams{Checker: sessionbakery.NewChecker(), MacaroonVerifier: a.oven, Logger: quiet{}})
	ours, theirs := a.discharged(t), other.discharged(t)
	for name, tc := range map[string]struct {
		request []macaroon.Slice
		user    string // empty: undecided
	}{
		"other first":  {[]macaroon.Slice{theirs, ours}, "alice"},
		"other second": {[]macaroon.Slice{ours, theirs}, "alice"},
		"refused ours": {[]macaroon.Slice{ours[:1], theirs}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			for _, ms := range tc.request {
				data, err := json.Marshal(ms)
				testkit.NoError(t, err)
				r.Header.Add(httpbakery.MacaroonsHeader, base64.StdEncoding.EncodeToString(data))
			}
			ctx := a.oven.Context(r)
			info, err := checker.Auth(sessionbakery.RequestMacaroons(r)...).Allow(ctx, sessionbakery.SessionOp)
			if tc.user == "" {
				if refusal := sessionbakery.Refusal(err); refusal == nil || !refusal.Undecided() {
					t.Errorf("not undecided: %v", err)
				}
				return
			}
			testkit.NoError(t, err)
			if id, err := a.oven.Identity(ctx, info); err != nil || id.User != tc.user {
				t.Errorf("identity %+v, %v", id, err)
			}
		})
	}
}

func TestOvenPrintsNoKey(t *testing.T) {
	t.Parallel()
	master := homeserver.NewKey()
	oven, err := sessionbakery.New(sessionbakery.Config{Homeserver: homeserver.Config{
		Keys: homeserver.Keys{master}, KeyPair: caveat.GenerateKey(), Discharger: caveat.GenerateKey().Public, Location: "https://discharger.example",
	}})
	testkit.NoError(t, err)
	bare := [32]byte(master.Key)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		shown := strings.Trim(fmt.Sprintf(verb, bare), "[32]uint8{}")
		if text := fmt.Sprintf(verb+verb, oven, *oven); strings.Contains(text, shown) {
			t.Errorf("%s shows a key: %s", verb, text)
		}
	}
}

// TestLocator lets a stock oven seal a caveat to the published key.
func TestLocator(t *testing.T) {
	t.Parallel()
	url, key, _ := startDischarger(t)
	c, err := client.New(client.Config{URL: url})
	testkit.NoError(t, err)
	locator, err := sessionbakery.NewLocator(t.Context(), c, url)
	testkit.NoError(t, err)
	info, err := locator.ThirdPartyInfo(t.Context(), url+"/")
	if err != nil || !bytes.Equal(info.PublicKey.Key[:], key[:]) || info.Version != bakery.LatestVersion {
		t.Fatalf("%+v, %v", info, err)
	}
	oven := bakery.NewOven(bakery.OvenParams{Key: bakery.MustGenerateKey(), Locator: locator})
	if _, err := oven.NewMacaroon(t.Context(), bakery.LatestVersion, []checkers.Caveat{{Location: url, Condition: "any"}}, sessionbakery.SessionOp); err != nil {
		t.Error(err)
	}
}

// hostile returns malformed values of a cookie or header. With three of them a service
// on httpbakery.RequestMacaroons and bakery.Oven panics.
func hostile(good macaroon.Slice) []string {
	whole, _ := json.Marshal(good)
	values := []string{
		"", "[]", "null", "{}", `[null]`, `[""]`, `["AA"]`, `["Ag"]`, `["AgEB"]`, `["AgECAg"]`, `[[]]`, `[1]`, `[{}]`, `[{"v":2}]`, `[{"v":2,"i":"","s64":"AA"}]`,
		`[{"identifier":"","signature":""}]`, `[{"identifier":"A","signature":"` + strings.Repeat("0", 64) + `"}]`,
		`[{"v":2,"i":"","s64":"` + strings.Repeat("A", 43) + `"}]`, `[{"v":2,"i64":"Ag","s64":"` + strings.Repeat("A", 43) + `"}]`,
		`[{"v":2,"i64":"AwE","s64":"` + strings.Repeat("A", 43) + `","c":[{"v64":"AA"},{"i":""}]}]`,
		`[{"m":{"v":2,"i":"x","s64":"` + strings.Repeat("A", 43) + `"},"v":3,"cdata":{"AA":"AA"}}]`,
		strings.Repeat("[", 10000), "[" + strings.Repeat("{},", 10000) + "{}]",
	}
	for i := range whole {
		values = append(values, string(whole[:i]), string(whole[:i])+"\x00"+string(whole[i+1:]))
	}
	return values
}

func TestHostileRequestsDoNotPanic(t *testing.T) {
	t.Parallel()
	a := startAdopter(t)
	checker := bakery.NewChecker(bakery.CheckerParams{Checker: sessionbakery.NewChecker(), MacaroonVerifier: a.oven, Logger: quiet{}})
	for _, value := range hostile(a.discharged(t)) {
		for _, text := range []string{value, base64.StdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value))} {
			r := httptest.NewRequest("GET", "/whoami", nil)
			r.Header.Set(httpbakery.MacaroonsHeader, text)
			r.Header.Set("Cookie", "macaroon-auth="+text)
			if _, err := checker.Auth(sessionbakery.RequestMacaroons(r)...).Allow(a.oven.Context(r), sessionbakery.SessionOp); err == nil {
				t.Fatalf("%q is accepted", value)
			}
		}
	}
	for _, ms := range []macaroon.Slice{nil, {}, {nil}, {&macaroon.Macaroon{}}} {
		if _, _, err := a.oven.VerifyMacaroon(t.Context(), ms); err == nil {
			t.Errorf("%v is accepted", ms)
		}
	}
}

// FuzzRequestMacaroons: no value of a header makes the service panic, or is accepted
// without the signatures.
func FuzzRequestMacaroons(f *testing.F) {
	pair := caveat.GenerateKey()
	service := caveat.GenerateKey()
	master := homeserver.NewKey()
	oven, err := sessionbakery.New(sessionbakery.Config{Homeserver: homeserver.Config{
		Keys: homeserver.Keys{master}, KeyPair: pair, Discharger: service.Public, Location: "https://discharger.example",
	}})
	testkit.NoError(f, err)
	m, err := oven.NewMacaroon(homeserver.MintParams{User: "alice", Mode: caveat.ModeOpen})
	testkit.NoError(f, err)
	for i, value := range hostile(macaroon.Slice{m.M()}) {
		if i > 40 && i%40 > 0 {
			continue
		}
		f.Add([]byte(value))
	}
	checker := bakery.NewChecker(bakery.CheckerParams{Checker: sessionbakery.NewChecker(), MacaroonVerifier: oven, Logger: quiet{}})
	f.Fuzz(func(t *testing.T, value []byte) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set(httpbakery.MacaroonsHeader, base64.StdEncoding.EncodeToString(value))
		if _, err := checker.Auth(sessionbakery.RequestMacaroons(r)...).Allow(oven.Context(r), sessionbakery.SessionOp); err == nil {
			t.Fatalf("%q is accepted", value)
		}
	})
}
