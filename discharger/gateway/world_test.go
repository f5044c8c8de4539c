package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
	"github.com/discharger/discharger/policy"
)

const testAPIKey = "canary-api-key"

// world is a homeserver, the service and a gateway, each behind real HTTP.
type world struct {
	t            testing.TB
	hs           *stub
	service      *httptest.Server
	down         atomic.Bool // the service answers only 503
	hung         atomic.Bool // the service does not answer revocations
	asked        atomic.Int64
	withoutReady bool                 // the service has no readiness route
	refused      atomic.Int64         // requests to the service while it was down
	ready        atomic.Int64         // readiness requests
	holding      atomic.Pointer[held] // blocks the next discharge; nil: none
	gateway      *Gateway
	http         *httptest.Server
	log          *testkit.Buffer
	reg          *prometheus.Registry
	stopped      time.Time    // frozen real time; zero: it runs
	ahead        atomic.Int64 // offset of the real clock, for all three
	cfg          Config
	policy       policyFunc
	limits       session.Limits
	reauth       atomic.Bool    // the policy requires a new login
	pipes        *testkit.Pipes // in place of the network; nil: the network
}

func (w *world) now() time.Time {
	now := time.Now()
	if !w.stopped.IsZero() {
		now = w.stopped
	}
	return now.Add(time.Duration(w.ahead.Load()))
}
func (w *world) forward(d time.Duration) { w.ahead.Add(int64(d)) }

// held is a blocked request for a discharge.
type held struct{ arrived, release chan struct{} }

// policyFunc is a policy for tests.
type policyFunc func(*policy.Input) policy.Decision

// Evaluate implements [policy.Evaluator].
func (f policyFunc) Evaluate(_ context.Context, in *policy.Input) (policy.Decision, error) {
	return f(in), nil
}

const (
	testTTL    = 5 * time.Minute
	testForget = 90 * 24 * time.Hour
)

func newWorld(t testing.TB, change ...func(*world)) *world {
	t.Helper()
	return newWorldOf(&world{t: t}, change...)
}

// newWorldOf returns a world with a homeserver.
func newWorldOf(w *world, change ...func(*world)) *world {
	t := w.t
	t.Helper()
	w.hs, w.log, w.reg = newStub(t, w.pipes), &testkit.Buffer{}, prometheus.NewRegistry()
	dir := t.TempDir()
	bolt, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "sessions.db")}.WithClock(w.now))
	testkit.NoError(t, err)
	t.Cleanup(func() { bolt.Close() })
	ours := caveat.GenerateKey()
	theirs := caveat.GenerateKey()
	master := homeserver.NewKey()
	w.cfg = Config{
		Upstream: w.hs.URL, APIKey: secret.Bytes(testAPIKey), Keys: homeserver.Keys{master}, KeyPair: theirs, Discharger: ours.Public,
		Outbox: filepath.Join(dir, "gateway.db"), ForgetAfter: testForget, Registerer: w.reg, clock: w.now,
		Log: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		// A slow machine must not cause a timeout.
		timeouts: timeouts{attempt: time.Minute, revoke: time.Minute, upstream: time.Minute, health: time.Minute, race: time.Millisecond, leased: time.Minute},
	}
	for _, f := range change {
		f(w)
	}
	w.startService(bolt, ours, theirs.Public)
	w.startGateway()
	return w
}

func (w *world) startService(st *bolt.Store, ours caveat.KeyPair, theirs caveat.PublicKey) {
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{ours}, Homeservers: []caveat.Homeserver{{Name: "gateway", Key: theirs}},
	})
	testkit.NoError(w.t, err)
	key, err := discharger.NewRefreshKey(nil)
	testkit.NoError(w.t, err)
	dc := discharger.Config{Opener: opener, Store: st, RefreshKeys: []discharger.RefreshKey{key}, TTL: testTTL, Limits: w.limits}.WithClock(w.now)
	if w.policy != nil {
		dc.Policy = w.policy
	}
	svc, err := discharger.New(dc)
	testkit.NoError(w.t, err)
	srv, err := server.New(server.Config{
		Service: svc, PublicKey: ours.Public, Ready: st.Ready, Feed: server.FeedConfig{Source: st}, Timeout: time.Minute,
		APIKeys: map[string][][sha256.Size]byte{"gateway": {sha256.Sum256([]byte(testAPIKey))}},
	}.WithClock(w.now))
	testkit.NoError(w.t, err)
	w.service = w.pipes.Serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.down.Load() {
			w.refused.Add(1)
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodDelete && w.hung.Load() {
			<-r.Context().Done()
			return
		}
		if r.URL.Path == wire.PathServiceReady {
			w.ready.Add(1)
			if w.withoutReady {
				r.URL.Path = "/v1/unknown"
			}
		}
		if r.URL.Path == "/discharge" {
			w.asked.Add(1)
			if h := w.holding.Swap(nil); h != nil {
				close(h.arrived)
				<-h.release
			}
		}
		srv.Client().ServeHTTP(rw, r)
	}))
	w.t.Cleanup(w.service.Close)
	w.cfg.ServiceURL = w.service.URL
}

func (w *world) startGateway() {
	select {
	case <-w.hs.inspected: // by a gateway that another function started
	default:
	}
	g, err := New(w.cfg)
	testkit.NoError(w.t, err)
	<-w.hs.inspected
	w.gateway = g
	w.http = w.pipes.Serve(g)
	w.t.Cleanup(func() {
		w.http.Close()
		_ = w.gateway.Close() // the test may have closed it
	})
}

// answer is a response.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   anyMap
}

func (a answer) text(name string) string { s, _ := a.body[name].(string); return s }

// do sends a request, with a body as JSON if it is not nil.
func (w *world) do(method, path, token string, body any) answer {
	w.t.Helper()
	return w.send(w.request(method, path, token, body))
}

// request returns the request that do sends.
func (w *world) request(method, path, token string, body any) *http.Request {
	w.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		testkit.NoError(w.t, err)
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, w.http.URL+path, in)
	testkit.NoError(w.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req
}

// restart replaces the gateway by a new process.
func (w *world) restart() {
	w.t.Helper()
	w.http.Close()
	testkit.NoError(w.t, w.gateway.Close())
	w.cfg.Registerer = nil
	w.startGateway()
	if !w.down.Load() {
		testkit.NoError(w.t, w.gateway.feed.WaitCurrent(w.t.(*testing.T).Context()))
	}
}

func (w *world) send(req *http.Request) answer {
	w.t.Helper()
	resp, err := w.pipes.Transport().RoundTrip(req)
	testkit.NoError(w.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	testkit.NoError(w.t, err)
	a := answer{status: resp.StatusCode, header: resp.Header, raw: raw}
	_ = json.Unmarshal(raw, &a.body)
	w.noCanary("an answer", string(raw))
	return a
}

// noCanary fails if a text contains a token of the homeserver.
func (w *world) noCanary(what, text string) {
	w.t.Helper()
	if strings.Contains(text, "_canary") || strings.Contains(text, testAPIKey) {
		w.t.Errorf("secret in %s: %s", what, text)
	}
}

const (
	pathLogin   = "/_matrix/client/v3/login"
	pathRefresh = "/_matrix/client/v3/refresh"
)

func (w *world) want(a answer, status int, errcode string) answer {
	w.t.Helper()
	if a.status != status || a.text("errcode") != errcode {
		w.t.Fatalf("status %d %s, want %d %s", a.status, a.raw, status, errcode)
	}
	return a
}

// login logs in, with or without a refresh token.
func (w *world) login(refresh bool, extra ...anyMap) answer {
	w.t.Helper()
	in := anyMap{"type": "m.login.password", "user": "@u:hs", "password": "secret"}
	if refresh {
		in["refresh_token"] = true
	}
	for _, m := range extra {
		for k, v := range m {
			in[k] = v
		}
	}
	return w.want(w.do("POST", pathLogin, "", in), 200, "")
}

func (w *world) refresh(token string) answer {
	w.t.Helper()
	return w.do("POST", pathRefresh, "", anyMap{"refresh_token": token})
}

// soft returns soft_logout of a response.
func (a answer) soft() bool { b, _ := a.body["soft_logout"].(bool); return b }
