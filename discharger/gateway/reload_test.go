package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/testkit"
)

// reload changes the configuration and reloads the gateway.
func (w *world) reload(change func(*Config)) {
	w.t.Helper()
	change(&w.cfg)
	testkit.NoError(w.t, w.gateway.CheckReload(w.cfg))
	testkit.NoError(w.t, w.gateway.Reload(w.cfg))
}

func newMaster(t testing.TB) homeserver.Key {
	t.Helper()
	k := homeserver.NewKey()
	return k
}

// Sessions of a key live as long as it is in the ring.
func TestReloadKeys(t *testing.T) {
	t.Parallel()
	for _, refreshing := range []bool{false, true} {
		t.Run(map[bool]string{false: "held", true: "rotate"}[refreshing], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			old := w.login(refreshing)
			first, second := w.cfg.Keys[0], newMaster(t)
			w.reload(func(c *Config) { c.Keys = homeserver.Keys{second, first} })
			w.want(w.do("GET", upstream.PathWhoami, old.text("access_token"), nil), 200, "")
			in := w.login(refreshing)
			w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
			if refreshing {
				old = w.want(w.refresh(old.text("refresh_token")), 200, "")
			}

			w.reload(func(c *Config) { c.Keys, c.Retired = homeserver.Keys{second}, [][4]byte{first.ID()} })
			w.want(w.do("GET", upstream.PathWhoami, old.text("access_token"), nil), 401, matrix.CodeUnknownToken)
			w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
			if refreshing {
				in = w.want(w.refresh(in.text("refresh_token")), 200, "")
			}
			w.restart()
			w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
		})
	}
}

// Reloaded settings apply at once.
func TestReloadSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.foreign("@u:hs")
	w.want(w.do("GET", upstream.PathWhoami, old, nil), 200, "")
	w.reload(func(c *Config) { c.Legacy.Reject = true })
	w.want(w.do("GET", upstream.PathWhoami, old, nil), 401, matrix.CodeUnknownToken)
	w.reload(func(c *Config) { c.ForeignTokens = [][sha256.Size]byte{sha256.Sum256([]byte(old))} })
	w.want(w.do("GET", upstream.PathWhoami, old, nil), 200, "")

	const path = "/.well-known/matrix/client"
	if a := w.do("GET", path, "", nil); strings.Contains(string(a.raw), "new.example") {
		t.Errorf("%s", a.raw)
	}
	w.reload(func(c *Config) { c.PublicURL = "https://new.example/" })
	if a := w.do("GET", path, "", nil); !strings.Contains(string(a.raw), `"https://new.example"`) {
		t.Errorf("%s", a.raw)
	}

	from := func() string {
		w.rawRequest("GET "+upstream.PathVersions, "X-Forwarded-For: 192.0.2.1")
		return w.hs.last(t).Header.Get("X-Forwarded-For")
	}
	if got := from(); got != "127.0.0.1" {
		t.Errorf("from %s", got)
	}
	w.reload(func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	if got := from(); got != "192.0.2.1" {
		t.Errorf("from %s", got)
	}
}

// An invalid configuration changes nothing.
func TestReloadRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	for name, spoil := range map[string]func(*Config){
		"no keys":           func(c *Config) { c.Keys = nil },
		"duplicate key":     func(c *Config) { c.Keys = append(c.Keys, c.Keys[0]) },
		"no API key":        func(c *Config) { c.APIKey = nil },
		"public URL":        func(c *Config) { c.PublicURL = "matrix.example" },
		"TLS without https": func(c *Config) { c.UpstreamTLS = new(tls.Config) },
		"weak service key":  func(c *Config) { c.Discharger = caveat.PublicKey{} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := w.cfg
			cfg.Keys = homeserver.Keys{newMaster(t)}
			cfg.Legacy.Reject = true
			spoil(&cfg)
			if err := w.gateway.CheckReload(cfg); err == nil {
				t.Error("CheckReload accepted it")
			}
			if err := w.gateway.Reload(cfg); err == nil {
				t.Error("Reload accepted it")
			}
			w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
			w.want(w.do("GET", upstream.PathWhoami, w.foreign("@u:hs"), nil), 200, "")
		})
	}
}

// A new API key is used for the next request to the service.
func TestReloadAPIKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.APIKey = secret.Bytes("wrong") })
	if a := w.do("POST", pathLogin, "", anyMap{"user": "@u:hs"}); a.status != 503 {
		t.Errorf("%d %s", a.status, a.raw)
	}
	w.reload(func(c *Config) { c.APIKey = secret.Bytes(testAPIKey) })
	token := w.login(false).text("access_token")
	w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
}

// After a change of the homeserver's authorities new connections use the new settings.
// A long poll that began before continues.
func TestReloadUpstreamTLS(t *testing.T) {
	t.Parallel()
	const name = "matrix.internal"
	before, after := newAuthority(t), newAuthority(t)
	var current atomic.Pointer[tls.Config]
	serve := func(a *authority) {
		current.Store(&tls.Config{
			Certificates: []tls.Certificate{a.sign(name, false)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
		})
	}
	serve(before)
	w := newWorld(t)
	w.http.Close()
	testkit.NoError(t, w.gateway.Close())
	polling, release := make(chan struct{}), make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/sync") {
			rw.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(rw).Flush()
			close(polling)
			<-release
			_, _ = io.WriteString(rw, "news")
			return
		}
		w.hs.ServeHTTP(rw, r)
	}))
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil }}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes are expected
	srv.StartTLS()
	t.Cleanup(srv.Close)
	trusting := func(a *authority) *tls.Config {
		return &tls.Config{RootCAs: a.pool(), ServerName: name, Certificates: []tls.Certificate{a.sign("gateway", false)}}
	}
	w.cfg.Upstream, w.cfg.UpstreamTLS, w.cfg.Registerer = srv.URL, trusting(before), nil
	w.startGateway()
	token := w.login(false).text("access_token")
	poll, err := http.Get(w.http.URL + "/_matrix/client/v3/sync?access_token=" + token)
	testkit.NoError(t, err)
	defer poll.Body.Close()
	<-polling

	serve(after)
	w.reload(func(c *Config) { c.UpstreamTLS = trusting(after) })
	w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
	close(release)
	if data, err := io.ReadAll(poll.Body); err != nil || string(data) != "news" {
		t.Errorf("the poll ended with %q, %v", data, err)
	}
}

// No session is refused while unrelated keys are added and removed.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	first := w.cfg.Keys[0]
	done := make(chan struct{})
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			req, err := http.NewRequest("GET", w.http.URL+upstream.PathWhoami, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("%v, %v", resp, err)
				return
			}
			resp.Body.Close()
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 20 {
		w.reload(func(c *Config) { c.Keys = homeserver.Keys{newMaster(t), first} })
		in := w.login(true)
		w.want(w.refresh(in.text("refresh_token")), 200, "")
	}
	close(done)
	clients.Wait()
}

// No code reads a reloadable field from cfg, where it is zero.
func TestReloadableIsReadLive(t *testing.T) {
	t.Parallel()
	full := reflect.ValueOf(Config{
		Keys: homeserver.Keys{{}}, KeyPair: caveat.KeyPair{Public: caveat.PublicKey{1}}, Discharger: caveat.PublicKey{1}, APIKey: secret.Bytes("k"),
		UpstreamTLS: new(tls.Config), PublicURL: "u", TrustedProxies: []netip.Prefix{{}}, Legacy: Legacy{Reject: true},
		ForeignTokens: [][sha256.Size]byte{{}}, Reconcile: 1, ForgetAfter: 1, Retired: [][4]byte{{}},
	}.withoutReloadable())
	reloadable := make(map[string]bool)
	for _, name := range []string{
		"Keys", "KeyPair", "Discharger", "APIKey", "UpstreamTLS", "PublicURL", "TrustedProxies", "Legacy", "ForeignTokens", "Reconcile", "ForgetAfter", "Retired",
	} {
		if reloadable[name] = true; !full.FieldByName(name).IsZero() {
			t.Errorf("%s is not zeroed", name)
		}
	}
	files, err := filepath.Glob("*.go")
	testkit.NoError(t, err)
	fset := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(fset, file, nil, 0)
		testkit.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			field, ok := n.(*ast.SelectorExpr)
			if !ok || !reloadable[field.Sel.Name] {
				return true
			}
			if of, ok := field.X.(*ast.SelectorExpr); ok && of.Sel.Name == "cfg" {
				t.Errorf("%s: cfg.%s is always zero, use live()", fset.Position(n.Pos()), field.Sel.Name)
			}
			return true
		})
	}
}
