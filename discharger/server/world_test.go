package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

const apiKey = "canary-api-key-of-a.example"

// world is a server on a real listener and a real store, and a homeserver
// that is registered with it.
type world struct {
	t        testing.TB
	hs       *homeserver.Homeserver
	hsConfig homeserver.Config
	keys     caveat.KeyPair // the homeserver's
	store    *breakable
	server   *server.Server
	http     *httptest.Server
	admin    *httptest.Server
	log      *testkit.Buffer
	minted   atomic.Int64 // by mint
}

func newWorld(t testing.TB, change ...func(*server.Config)) *world {
	t.Helper()
	bolt, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "sessions.db")})
	testkit.NoError(t, err)
	t.Cleanup(func() { bolt.Close() })
	return newWorldOn(t, bolt, slog.LevelDebug, change...)
}

// newWorldOn is newWorld on another store, and with less in the log.
func newWorldOn(t testing.TB, st store.Store, level slog.Level, change ...func(*server.Config)) *world {
	t.Helper()
	w, cfg := newUnserved(t, st, level, change...)
	w.http = startServer(t, w.server.Client(), cfg.Log)
	w.admin = startServer(t, w.server.Admin(), cfg.Log)
	w.hs = w.homeserverFor(cfg.PublicKey, w.http.URL)
	return w
}

// newUnserved returns a server without a listener. Its limits are such that
// no disk or processor that stands still for a while makes it exceed them; a
// test that is about a limit sets its own.
func newUnserved(t testing.TB, st store.Store, level slog.Level, change ...func(*server.Config)) (*world, server.Config) {
	t.Helper()
	ours, theirs := newKey(t), newKey(t)
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys:        []caveat.KeyPair{ours},
		Homeservers: []caveat.Homeserver{{Name: "a.example", Key: theirs.Public}},
	})
	testkit.NoError(t, err)
	key, err := discharger.NewRefreshKey(nil)
	testkit.NoError(t, err)
	w := &world{t: t, keys: theirs, store: &breakable{Store: st}, log: &testkit.Buffer{}}
	log := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: level}))
	reg := prometheus.NewRegistry()
	metrics, err := server.NewMetrics(reg)
	testkit.NoError(t, err)
	service, err := discharger.New(discharger.Config{
		Opener: opener, Store: metrics.Store(w.store), RefreshKeys: []discharger.RefreshKey{key}, Observer: metrics, Log: log,
		Limits: session.Limits{Grace: patience},
	})
	testkit.NoError(t, err)
	cfg := server.Config{
		Service: service, PublicKey: ours.Public, Ready: w.store.Ready, Metrics: metrics, Gatherer: reg, Log: log,
		APIKeys: map[string][][sha256.Size]byte{"a.example": {sha256.Sum256([]byte(apiKey))}},
		Feed:    server.FeedConfig{Source: st.(store.Feed), Heartbeat: time.Second, WriteTimeout: patience},
		Timeout: patience,
	}
	for _, f := range change {
		f(&cfg)
	}
	w.server, err = server.New(cfg)
	testkit.NoError(t, err)
	return w, cfg
}

// homeserverFor is the homeserver with caveats for the service of that key.
func (w *world) homeserverFor(discharger caveat.PublicKey, location string) *homeserver.Homeserver {
	w.t.Helper()
	master := homeserver.NewKey()
	w.hsConfig = homeserver.Config{
		Name: "a.example", Keys: homeserver.Keys{master}, KeyPair: w.keys, Discharger: discharger, Location: location,
	}
	hs, err := homeserver.New(w.hsConfig)
	testkit.NoError(w.t, err)
	return hs
}

// startServer serves as the real program does, timeouts and limits included.
func startServer(t testing.TB, h http.Handler, log *slog.Logger) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config = server.HTTPServer(h, log)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func newKey(t testing.TB) caveat.KeyPair {
	t.Helper()
	k := caveat.GenerateKey()
	return k
}

// mint returns the caveat id of a new session, on a device of its own.
func (w *world) mint(mode caveat.Mode) []byte {
	w.t.Helper()
	m, err := w.hs.Mint(homeserver.MintParams{User: "@alice:a.example", Device: fmt.Sprint("PHONE", w.minted.Add(1)), Mode: mode})
	testkit.NoError(w.t, err)
	return m.Macaroon.Caveats()[0].Id
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) error(t testing.TB) wire.ErrorResponse {
	t.Helper()
	var e wire.ErrorResponse
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return e
}

func (a answer) discharge(t testing.TB) wire.DischargeResponse {
	t.Helper()
	var d wire.DischargeResponse
	if err := json.Unmarshal(a.body, &d); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return d
}

func (w *world) do(r *http.Request) answer {
	w.t.Helper()
	resp, err := w.http.Client().Do(r)
	testkit.NoError(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	testkit.NoError(w.t, err)
	return answer{resp.StatusCode, resp.Header, body}
}

// early posts a body that is answered before it has been read completely. The answer is
// read while the rest is still being sent, even if that fails: a usual client might
// report the broken connection instead.
func (w *world) early(path, body string, header ...string) answer {
	w.t.Helper()
	r := w.request(http.MethodPost, path, body, header...)
	conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
	testkit.NoError(w.t, err)
	testkit.NoError(w.t, conn.SetDeadline(time.Now().Add(patience)))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = r.Write(conn)
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	testkit.NoError(w.t, err)
	got, err := io.ReadAll(resp.Body)
	testkit.NoError(w.t, err)
	testkit.NoError(w.t, conn.Close())
	<-sent
	return answer{resp.StatusCode, resp.Header, got}
}

// post sends a form, as Python's and JavaScript's clients do.
func (w *world) post(path string, form url.Values, header ...string) answer {
	w.t.Helper()
	return w.do(w.request(http.MethodPost, path, form.Encode(), append([]string{"Content-Type", wire.ContentTypeForm}, header...)...))
}

func (w *world) request(method, path, body string, header ...string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequest(method, w.http.URL+path, strings.NewReader(body))
	testkit.NoError(w.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func form(kv ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(kv); i += 2 {
		v.Add(kv[i], kv[i+1])
	}
	return v
}

func b64(b []byte) string { return wire.EncodeBase64(b) }

// breakable is a store that can be down or hang.
type breakable struct {
	store.Store
	mu   sync.Mutex
	err  error
	hang bool
}

func (b *breakable) set(err error, hang bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err, b.hang = err, hang
}

func (b *breakable) trouble(ctx context.Context) error {
	b.mu.Lock()
	err, hang := b.err, b.hang
	b.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (b *breakable) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, d revocation.DeviceTag) (store.View, error) {
	if err := b.trouble(ctx); err != nil {
		return store.View{}, err
	}
	return b.Store.Load(ctx, u, id, d)
}

func (b *breakable) Ready(ctx context.Context) error {
	if err := b.trouble(ctx); err != nil {
		return err
	}
	return b.Store.Ready(ctx)
}

// stored returns the number of records of the only user.
func (w *world) stored() int {
	w.t.Helper()
	l, err := w.store.List(context.Background(), store.UserKey{Homeserver: "a.example", User: "@alice:a.example"})
	testkit.NoError(w.t, err)
	return len(l.Sessions)
}
