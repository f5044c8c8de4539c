package secevent_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/store/bolt"
)

const (
	// patience is how long a test waits for what has to come.
	patience = time.Minute

	issuer        = "https://discharger.example.org"
	audience      = "https://receiver.example"
	authorization = "Bearer canary-authorization"
	alice         = "@alice:a.example"
)

var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a service on a real store, with homeservers whose receivers are told.
type world struct {
	t       *testing.T
	dir     string
	store   *bolt.Store
	service *discharger.Service
	hs      map[string]*homeserver.Homeserver
	keys    *secevent.Keys
	metrics *secevent.Metrics
	reg     *prometheus.Registry
	out     lockedBuffer // the log

	mu     sync.Mutex
	pauses []time.Duration
}

// lockedBuffer is written and read by several.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T, maxEvents int) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), hs: make(map[string]*homeserver.Homeserver), reg: prometheus.NewRegistry()}
	ours, err := caveat.GenerateKey(nil)
	must(t, err)
	oc := caveat.OpenerConfig{Keys: []caveat.KeyPair{ours}}
	for _, name := range []string{"a.example", "b.example"} {
		theirs, err := caveat.GenerateKey(nil)
		must(t, err)
		master, err := homeserver.NewKey(nil)
		must(t, err)
		w.hs[name], err = homeserver.New(homeserver.Config{
			Name: name, Keys: homeserver.Keys{master}, KeyPair: theirs, Discharger: ours.Public, Location: issuer,
		})
		must(t, err)
		oc.Homeservers = append(oc.Homeservers, caveat.Homeserver{Name: name, Key: theirs.Public})
	}
	opener, err := caveat.NewOpener(oc)
	must(t, err)
	w.store, err = bolt.Open(bolt.Config{Path: filepath.Join(w.dir, "sessions.db"), MaxEvents: maxEvents})
	must(t, err)
	t.Cleanup(func() { must(t, w.store.Close()) })
	w.service, err = discharger.New(discharger.Config{
		Opener: opener, Store: w.store, RefreshKeys: []discharger.RefreshKey{{1}},
	})
	must(t, err)
	key, err := signingKey()
	must(t, err)
	w.keys, err = secevent.NewKeys([]*rsa.PrivateKey{key})
	must(t, err)
	w.metrics, err = secevent.NewMetrics(w.reg, time.Now)
	must(t, err)
	return w
}

// config is how the world sends: it does not really wait, but notes for how long
// it would have.
func (w *world) config(receivers ...secevent.Receiver) secevent.Config {
	return secevent.Config{
		Feed: w.store, Receivers: receivers, Issuer: issuer, Keys: w.keys, Dir: w.dir, Metrics: w.metrics,
		Timeout: patience, Log: slog.New(slog.NewTextHandler(&w.out, nil)),
		Wait: func(ctx context.Context, d time.Duration) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.pauses = append(w.pauses, d)
			return ctx.Err()
		},
		Jitter: func() float64 { return 1 },
	}
}

// send runs a sender until stop is called, or the test ends.
func (w *world) send(cfg secevent.Config) (stop func()) {
	w.t.Helper()
	s, err := secevent.New(cfg)
	must(w.t, err)
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

// session is one that has been activated.
type session struct {
	id         caveat.SessionID
	caveat     []byte
	homeserver string
	w          *world
}

func (w *world) login(hs, user, device string) *session {
	w.t.Helper()
	m, err := w.hs[hs].Mint(homeserver.MintParams{User: user, Device: device, Mode: caveat.ModeOpen})
	must(w.t, err)
	s := &session{id: m.Session, homeserver: hs, w: w}
	for _, c := range m.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 {
			s.caveat = c.Id
		}
	}
	_, err = w.service.Discharge(w.t.Context(), &discharger.Request{ID: s.caveat})
	must(w.t, err)
	return s
}

// logout is asked for by the homeserver: the caveat alone does not end the
// user's other sessions.
func (s *session) logout(scope discharger.Scope) {
	s.w.t.Helper()
	must(s.w.t, s.w.service.Logout(s.w.t.Context(), &discharger.Request{ID: s.caveat, Homeserver: s.homeserver}, scope))
}

// told is what a receiver was told, verified.
type told struct {
	header http.Header
	raw    string
	claims jwt.MapClaims
	event  map[string]any
}

func (e told) jti() string { return e.claims["jti"].(string) }

// member is the name of a member of the subject.
func (e told) member(name string) string {
	s, _ := e.claims["sub_id"].(map[string]any)
	m, _ := s[name].(map[string]any)
	if sub, ok := m["sub"].(string); ok && m["format"] == "iss_sub" && m["iss"] == issuer {
		return sub
	}
	id, _ := m["id"].(string)
	return id
}

// receiver verifies what it is sent, and answers as it is told.
type receiver struct {
	t    *testing.T
	srv  *httptest.Server
	got  chan told // what was answered with 202
	keys map[string]*rsa.PublicKey

	mu    sync.Mutex
	seen  []string // jti of all that came, repeats included
	ready func(n int, w http.ResponseWriter, r *http.Request) bool
}

// newReceiver returns one that takes what ready does not answer; n is the number
// of the request, from 1.
func newReceiver(w *world, ready func(n int, w http.ResponseWriter, r *http.Request) bool) *receiver {
	w.t.Helper()
	keys, err := readJWKS(w.keys.JWKS())
	must(w.t, err)
	r := &receiver{t: w.t, got: make(chan told, 64), keys: keys, ready: ready}
	r.srv = httptest.NewServer(r)
	w.t.Cleanup(r.srv.Close)
	return r
}

func (r *receiver) to(hs string) secevent.Receiver {
	return secevent.Receiver{
		Homeserver: hs, URL: r.srv.URL + "/events?canary=secret", Audience: audience, Authorization: caveat.Secret(authorization),
	}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	e, err := r.verify(req)
	if err != nil {
		r.t.Errorf("the receiver cannot verify what it was sent: %v", err)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	r.mu.Lock()
	r.seen = append(r.seen, e.jti())
	n := len(r.seen)
	r.mu.Unlock()
	if r.ready != nil && r.ready(n, w, req) {
		return
	}
	w.WriteHeader(http.StatusAccepted)
	r.got <- e
}

func (r *receiver) verify(req *http.Request) (told, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return told{}, err
	}
	if req.Method != http.MethodPost || req.URL.Path != "/events" || req.URL.RawQuery != "canary=secret" {
		return told{}, fmt.Errorf("%s %s", req.Method, req.URL)
	}
	return verify(string(body), req.Header, r.keys)
}

// verify checks a token as a receiver does that goes by the book.
func verify(token string, header http.Header, keys map[string]*rsa.PublicKey) (told, error) {
	e := told{header: header, raw: token, claims: jwt.MapClaims{}}
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
		return told{}, err
	}
	events, ok := e.claims["events"].(map[string]any)
	if !ok || len(events) != 1 {
		return told{}, fmt.Errorf("events %v", e.claims["events"])
	}
	e.event, ok = events[secevent.EventSessionRevoked].(map[string]any)
	if !ok {
		return told{}, fmt.Errorf("events %v", events)
	}
	for _, name := range []string{"sub", "exp", "nbf"} {
		if _, there := e.claims[name]; there {
			return told{}, errors.New("there is a claim " + name)
		}
	}
	return e, nil
}

// readJWKS reads published keys.
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

// next waits for what is told next.
func (r *receiver) next() told {
	r.t.Helper()
	select {
	case e := <-r.got:
		return e
	case <-time.After(patience):
		r.t.Fatal("the receiver was told nothing")
		return told{}
	}
}

// quiet demands that nothing was told but what next returned.
func (r *receiver) quiet() {
	r.t.Helper()
	select {
	case e := <-r.got:
		r.t.Errorf("the receiver was told more: %v", e.claims)
	default:
	}
}

// until waits until one of the metrics has a value: the receiver knows sooner
// than the sender that something has been delivered.
func (w *world) until(name, hs string, want float64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for w.value(name, hs) != want {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			w.t.Fatalf("%s is %v, want %v", name, w.value(name, hs), want)
		}
	}
}

// value reads one of the metrics.
func (w *world) value(name, hs string) float64 {
	w.t.Helper()
	families, err := w.reg.Gather()
	must(w.t, err)
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
