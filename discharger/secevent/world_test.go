package secevent_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/testkit"
)

const (
	// patience is longer than any pause, in the time of the bubble.
	patience = 24 * time.Hour

	issuer        = "https://discharger.example.org"
	audience      = "https://receiver.example"
	authorization = "Bearer canary-authorization"
	alice         = "@alice:a.example"
)

var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// world is a service on a real store, with two homeservers.
type world struct {
	t       *testing.T
	dir     string
	store   *bolt.Store
	service *discharger.Service
	hs      map[string]*homeserver.Homeserver
	keys    *secevent.Keys
	metrics *secevent.Metrics
	reg     *prometheus.Registry
	out     testkit.Buffer // the log
	pipes   *testkit.Pipes
}

func newWorld(t *testing.T, maxEvents int) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), hs: make(map[string]*homeserver.Homeserver), reg: prometheus.NewRegistry(),
		pipes: testkit.NewPipes()}
	ours := caveat.GenerateKey()
	oc := caveat.OpenerConfig{Keys: []caveat.KeyPair{ours}}
	for _, name := range []string{"a.example", "b.example"} {
		theirs := caveat.GenerateKey()
		master := homeserver.NewKey()
		var err error
		w.hs[name], err = homeserver.New(homeserver.Config{
			Name: name, Keys: homeserver.Keys{master}, KeyPair: theirs, Discharger: ours.Public, Location: issuer,
		})
		testkit.NoError(t, err)
		oc.Homeservers = append(oc.Homeservers, caveat.Homeserver{Name: name, Key: theirs.Public})
	}
	opener, err := caveat.NewOpener(oc)
	testkit.NoError(t, err)
	w.store, err = bolt.Open(bolt.Config{Path: filepath.Join(w.dir, "sessions.db"), MaxEvents: maxEvents})
	testkit.NoError(t, err)
	t.Cleanup(func() { testkit.NoError(t, w.store.Close()) })
	w.service, err = discharger.New(discharger.Config{
		Opener: opener, Store: w.store, RefreshKeys: []discharger.RefreshKey{{Key: secret.Key{1}}},
	})
	testkit.NoError(t, err)
	key, err := signingKey()
	testkit.NoError(t, err)
	w.keys, err = secevent.NewKeys([]*rsa.PrivateKey{key})
	testkit.NoError(t, err)
	w.metrics, err = secevent.NewMetrics(w.reg)
	testkit.NoError(t, err)
	return w
}

// config sends to receivers through the network.
func (w *world) config(receivers ...secevent.Receiver) secevent.Config {
	return secevent.Config{
		Feed: w.store, Receivers: receivers, Issuer: issuer, Keys: w.keys, Dir: w.dir, Metrics: w.metrics,
		Timeout: patience, Log: slog.New(slog.NewTextHandler(&w.out, nil)), Transport: &http.Transport{DialContext: w.pipes.Dial},
	}
}

var loggedPause = regexp.MustCompile(`pause=(\S+)`)

// logged returns the pauses in the log.
func (w *world) logged() (pauses []time.Duration) {
	w.t.Helper()
	for _, m := range loggedPause.FindAllStringSubmatch(w.out.String(), -1) {
		d, err := time.ParseDuration(m[1])
		testkit.NoError(w.t, err)
		pauses = append(pauses, d)
	}
	return pauses
}

// doubling demands pauses around a second, two, four and so on.
func doubling(t *testing.T, pauses []time.Duration, n int) {
	t.Helper()
	if len(pauses) != n {
		t.Errorf("%d pauses %v, want %d", len(pauses), pauses, n)
	}
	for i, d := range pauses {
		if full := time.Second << i; d < full/2 || d > full*3/2 {
			t.Errorf("pause %d is %v, want %v and up to half of it more or less", i+1, d, full)
		}
	}
}

// send runs a sender until stop is called, or the test ends.
func (w *world) send(cfg secevent.Config) (stop func()) {
	w.t.Helper()
	s, err := secevent.New(cfg)
	testkit.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	stop = func() {
		cancel()
		<-done
	}
	w.t.Cleanup(stop)
	return stop
}

// session is an activated session.
type session struct {
	id         caveat.SessionID
	caveat     []byte
	homeserver string
	w          *world
}

func (w *world) login(hs, user, device string) *session {
	w.t.Helper()
	m, err := w.hs[hs].Mint(homeserver.MintParams{User: user, Device: device, Mode: caveat.ModeOpen})
	testkit.NoError(w.t, err)
	s := &session{id: m.Session, homeserver: hs, w: w}
	for _, c := range m.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 {
			s.caveat = c.Id
		}
	}
	_, err = w.service.Discharge(w.t.Context(), &discharger.Request{CaveatID: s.caveat})
	testkit.NoError(w.t, err)
	return s
}

// logout ends sessions on behalf of the homeserver: the caveat alone does not end the
// other sessions of the user.
func (s *session) logout(scope discharger.Scope) {
	s.w.t.Helper()
	testkit.NoError(s.w.t, s.w.service.Logout(s.w.t.Context(), &discharger.Request{CaveatID: s.caveat, Homeserver: s.homeserver}, scope))
}

// event is a verified token.
type event struct {
	header  http.Header
	raw     string
	claims  jwt.MapClaims
	revoked map[string]any // the CAEP event
}

func (e event) jti() string { return e.claims["jti"].(string) }

// member returns the name in a member of the subject.
func (e event) member(name string) string {
	s, _ := e.claims["sub_id"].(map[string]any)
	m, _ := s[name].(map[string]any)
	if sub, ok := m["sub"].(string); ok && m["format"] == "iss_sub" && m["iss"] == issuer {
		return sub
	}
	id, _ := m["id"].(string)
	return id
}

// receiver verifies tokens, and answers as a test defines.
type receiver struct {
	t    *testing.T
	url  string
	got  chan event // events answered with 202
	keys map[string]*rsa.PublicKey

	mu    sync.Mutex
	seen  []string    // jti of each request
	at    []time.Time // of each request
	ready func(n int, w http.ResponseWriter, r *http.Request) bool
}

// newReceiver returns a receiver that accepts the tokens that ready does not answer. n
// is the number of the request, from 1.
func newReceiver(w *world, ready func(n int, w http.ResponseWriter, r *http.Request) bool) *receiver {
	w.t.Helper()
	keys, err := readJWKS(w.keys.JWKS())
	testkit.NoError(w.t, err)
	r := &receiver{t: w.t, got: make(chan event, 64), keys: keys, ready: ready}
	l := w.pipes.Listen()
	r.url = "http://" + l.Addr().String()
	srv := &http.Server{Handler: r, ErrorLog: log.New(io.Discard, "", 0)}
	go srv.Serve(l)
	w.t.Cleanup(func() { srv.Close() })
	return r
}

func (r *receiver) to(hs string) secevent.Receiver {
	return secevent.Receiver{
		Homeserver: hs, URL: r.url + "/events?canary=secret", Audience: audience, Authorization: secret.Bytes(authorization),
	}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	e, err := r.verify(req)
	if err != nil {
		r.t.Errorf("verification by the receiver: %v", err)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	r.mu.Lock()
	r.seen, r.at = append(r.seen, e.jti()), append(r.at, time.Now())
	n := len(r.seen)
	r.mu.Unlock()
	if r.ready != nil && r.ready(n, w, req) {
		return
	}
	w.WriteHeader(http.StatusAccepted)
	r.got <- e
}

func (r *receiver) verify(req *http.Request) (event, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return event{}, err
	}
	if req.Method != http.MethodPost || req.URL.Path != "/events" || req.URL.RawQuery != "canary=secret" {
		return event{}, fmt.Errorf("%s %s", req.Method, req.URL)
	}
	return verify(string(body), req.Header, r.keys)
}

// verify verifies a token as the specifications require.
func verify(token string, header http.Header, keys map[string]*rsa.PublicKey) (event, error) {
	e := event{header: header, raw: token, claims: jwt.MapClaims{}}
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithIssuedAt(), jwt.WithLeeway(time.Minute),
	).ParseWithClaims(token, e.claims, func(t *jwt.Token) (any, error) {
		key, ok := keys[fmt.Sprint(t.Header["kid"])]
		if !ok || t.Header["typ"] != "secevent+jwt" {
			return nil, fmt.Errorf("header %v", t.Header)
		}
		return key, nil
	})
	if err != nil {
		return event{}, err
	}
	events, ok := e.claims["events"].(map[string]any)
	if !ok || len(events) != 1 {
		return event{}, fmt.Errorf("events %v", e.claims["events"])
	}
	e.revoked, ok = events[secevent.EventSessionRevoked].(map[string]any)
	if !ok {
		return event{}, fmt.Errorf("events %v", events)
	}
	for _, name := range []string{"sub", "exp", "nbf"} {
		if _, there := e.claims[name]; there {
			return event{}, errors.New("unexpected claim " + name)
		}
	}
	return e, nil
}

// readJWKS decodes a key set.
func readJWKS(data []byte) (map[string]*rsa.PublicKey, error) {
	var set struct {
		Keys []struct{ Kty, Use, Alg, Kid, N, E string }
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	keys := make(map[string]*rsa.PublicKey)
	for _, k := range set.Keys {
		n, err := base64.RawURLEncoding.DecodeString(k.N)
		if err != nil {
			return nil, err
		}
		e, err := base64.RawURLEncoding.DecodeString(k.E)
		if err != nil {
			return nil, err
		}
		if k.Kty != "RSA" || k.Use != "sig" || k.Alg != "RS256" || k.Kid == "" {
			return nil, fmt.Errorf("key %+v", k)
		}
		keys[k.Kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	}
	return keys, nil
}

// pauses returns the times between the requests.
func (r *receiver) pauses() (all []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.at[1:] {
		all = append(all, r.at[i+1].Sub(r.at[i]))
	}
	return all
}

// next returns the next event.
func (r *receiver) next() event {
	r.t.Helper()
	select {
	case e := <-r.got:
		return e
	case <-time.After(patience):
		r.t.Fatal("no event came")
		return event{}
	}
}

// quiet demands that there are no more events.
func (r *receiver) quiet() {
	r.t.Helper()
	select {
	case e := <-r.got:
		r.t.Errorf("an event too many: %v", e.claims)
	default:
	}
}

// until waits until nothing is in progress, and demands the value of a metric.
func (w *world) until(name, hs string, want float64) {
	w.t.Helper()
	synctest.Wait()
	if got := w.value(name, hs); got != want {
		w.t.Fatalf("%s is %v, want %v", name, got, want)
	}
}

// value returns the value of a metric.
func (w *world) value(name, hs string) float64 {
	w.t.Helper()
	families, err := w.reg.Gather()
	testkit.NoError(w.t, err)
	for _, f := range families {
		if f.GetName() != "discharger_security_events_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == hs {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return -1
}
