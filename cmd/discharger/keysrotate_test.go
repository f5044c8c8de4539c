package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/testkit"
)

// manyStub is a homeserver with a token of its own for every login.
type manyStub struct {
	*httptest.Server
	mu     sync.Mutex
	logins int
	users  map[string]string // by token
}

func newManyStub(t *testing.T) *manyStub {
	s := &manyStub{users: make(map[string]string)}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *manyStub) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	user, known := s.users[token]
	switch {
	case strings.HasSuffix(r.URL.Path, "/versions"):
		_, _ = io.WriteString(w, `{"versions":["v1.11"]}`)
	case strings.HasSuffix(r.URL.Path, "/login"):
		var body struct{ User string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		s.logins++
		token = fmt.Sprintf("canary-%d", s.logins)
		s.users[token] = body.User
		_, _ = fmt.Fprintf(w, `{"user_id":%q,"device_id":"DEV%d","access_token":%q}`, body.User, s.logins, token)
	case !known:
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errcode":"M_UNKNOWN_TOKEN"}`)
	default:
		if strings.HasSuffix(r.URL.Path, "/logout") {
			delete(s.users, token)
		}
		_, _ = fmt.Fprintf(w, `{"user_id":%q}`, user)
	}
}

// rotation is two services over one Redis, two gateways before one homeserver, and
// clients that use either gateway for each request.
type rotation struct {
	t        *testing.T
	dir      string
	program  string
	services [2]*process
	gateways [2]*process
	urls     [2]string // of the gateways
	admins   []string  // of all four
	receiver string    // of security events
	base     string    // of the services' configuration
	clients  []*rotated
	sessions atomic.Int64 // number of the sessions that clients are to have
	signedBy sync.Map     // kid of every event
}

func (r *rotation) path(of string, i int, name string) string {
	return filepath.Join(r.dir, fmt.Sprintf("%s%d", of, i), name)
}

// keys runs a subcommand of keys.
func (r *rotation) keys(args ...string) string {
	r.t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(r.program, append([]string{"keys"}, args...)...)
	cmd.Dir, cmd.Stderr = r.dir, &errs
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("keys %v: %v\n%s", args, err, errs.String())
	}
	return string(out)
}

// file puts a file in place as a whole.
func (r *rotation) file(path string, data []byte) {
	r.t.Helper()
	testkit.NoError(r.t, os.WriteFile(path+".new", data, 0o600))
	testkit.NoError(r.t, os.Rename(path+".new", path))
}

func (r *rotation) copy(from, to string) {
	r.t.Helper()
	data, err := os.ReadFile(from)
	testkit.NoError(r.t, err)
	r.file(to, data)
}

// configure writes the services' configuration. The gateways are registered with
// the entry that keys list prints of a key file.
func (r *rotation) configure(keys string) {
	r.t.Helper()
	_, entry, _ := strings.Cut(r.keys("list", keys), "homeservers:\n")
	for i := range r.services {
		r.file(r.path("service", i, "c.yaml"), fmt.Appendf(nil, "data_dir: %q\n%shomeservers:\n%s"+
			"    security_events: {url: %q, audience: \"https://receiver.example\", authorization_file: %q}\n",
			r.path("service", i, ""), r.base, entry, r.receiver, filepath.Join(r.dir, "authorization")))
	}
}

// reload sends SIGHUP to a process, and waits until it has reloaded.
func (r *rotation) reload(p *process) {
	r.t.Helper()
	from := p.length()
	testkit.NoError(r.t, p.cmd.Process.Signal(syscall.SIGHUP))
	testkit.NoError(r.t, p.waitAfter(from, "msg=reloaded"))
}

// rotated is one client.
type rotated struct {
	r       *rotation
	user    string
	rotate  bool
	session atomic.Int64 // the number of its session
	rounds  atomic.Int64
	access  string
	refresh string
}

// do sends a request to either gateway, until it is decided. A refusal ends the
// test.
func (c *rotated) do(ctx context.Context, method, path, token string, body map[string]any) (map[string]any, bool) {
	data, err := json.Marshal(body)
	if err != nil {
		c.r.t.Error(err)
		return nil, false
	}
	for ctx.Err() == nil {
		status, out, err := c.r.once(ctx, rand.IntN(2), method, path, token, data)
		switch {
		case err != nil || status == http.StatusServiceUnavailable:
			continue
		case status == http.StatusOK:
			return out, true
		}
		c.r.t.Errorf("%s: %s %s: %d %v", c.user, method, path, status, out)
		return nil, false
	}
	return nil, false
}

// once sends a request to one gateway.
func (r *rotation) once(ctx context.Context, gateway int, method, path, token string, data []byte) (int, map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.urls[gateway]+"/_matrix/client/v3"+path, bytes.NewReader(data))
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	var out map[string]any
	_ = json.NewDecoder(resp.Body).Decode(&out) // 503 to a refresh is text
	return resp.StatusCode, out, nil
}

func (c *rotated) take(out map[string]any) {
	c.access, _ = out["access_token"].(string)
	c.refresh, _ = out["refresh_token"].(string)
}

func (c *rotated) login(ctx context.Context) bool {
	out, ok := c.do(ctx, "POST", "/login", "", map[string]any{"type": "m.login.password", "user": c.user, "refresh_token": c.rotate})
	if ok {
		c.take(out)
	}
	return ok
}

// round uses the session once at whichever gateway.
func (c *rotated) round(ctx context.Context) bool {
	if _, ok := c.do(ctx, "GET", "/account/whoami", c.access, nil); !ok {
		return false
	}
	if c.rotate {
		out, ok := c.do(ctx, "POST", "/refresh", "", map[string]any{"refresh_token": c.refresh})
		if !ok {
			return false
		}
		c.take(out)
	}
	c.rounds.Add(1)
	return true
}

// run uses one session after the other.
func (c *rotated) run(ctx context.Context) {
	for ctx.Err() == nil {
		number := c.r.sessions.Load()
		if !c.login(ctx) {
			return
		}
		c.session.Store(number)
		for ctx.Err() == nil && c.r.sessions.Load() == number {
			if !c.round(ctx) {
				return
			}
		}
		if _, ok := c.do(ctx, "POST", "/logout", c.access, map[string]any{}); !ok {
			return
		}
	}
}

// round waits until every client has gone on.
func (r *rotation) round() {
	r.t.Helper()
	for _, c := range r.clients {
		from := c.rounds.Load()
		redistest.Eventually(r.t, "every client has gone on", func() bool { return c.rounds.Load() >= from+2 || r.t.Failed() })
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// renew waits until every client has logged out and in again.
func (r *rotation) renew() {
	r.t.Helper()
	number := r.sessions.Add(1)
	for _, c := range r.clients {
		redistest.Eventually(r.t, "every client has a new session", func() bool { return c.session.Load() >= number || r.t.Failed() })
	}
	r.round()
}

// start makes keys and configurations, and runs the four processes.
func (r *rotation) start() {
	t := r.t
	hs := newManyStub(t)
	for i := range 2 {
		testkit.NoError(t, os.MkdirAll(r.path("service", i, ""), 0o700))
		testkit.NoError(t, os.MkdirAll(r.path("gateway", i, ""), 0o700))
	}
	r.base = patientSetting + fmt.Sprintf("public_url: https://discharger.example.org\nlisten: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"+
		"store: {redis: {addresses: [%s], timeouts: {dial: 10s, read: 10s, write: 10s}}}\n", redistest.Start(t).Socket)
	testkit.NoError(t, os.WriteFile(filepath.Join(r.dir, "authorization"), []byte("Bearer canary-receiver"), 0o600))
	r.keys("new", r.path("service", 0, "keys.json"))
	r.keys("new", "--kind", "signing", r.path("service", 0, "signing.pem"))
	r.copy(r.path("service", 0, "keys.json"), r.path("service", 1, "keys.json"))
	r.copy(r.path("service", 0, "signing.pem"), r.path("service", 1, "signing.pem"))
	service := regexp.MustCompile(`(?m)^discharger .* (\S{44})$`).FindStringSubmatch(r.keys("list", r.path("service", 0, "keys.json")))
	key := r.path("gateway", 0, "gateway.json")
	r.keys("new", "--kind", "homeserver", "--name", "matrix", "--service-key", service[1], key)
	r.copy(key, r.path("gateway", 1, "gateway.json"))
	var jwks [2]string
	r.receive(&jwks)
	r.configure(key)
	for i := range 2 {
		r.services[i] = runProgram(t, r.dir, "serve", "--config", r.path("service", i, "c.yaml"))
		url, admin, err := r.services[i].addresses()
		testkit.NoError(t, err)
		jwks[i], r.admins = url+"/.well-known/jwks.json", append(r.admins, admin)
		r.file(r.path("gateway", i, "c.yaml"), fmt.Appendf(nil, "admin_listen: 127.0.0.1:0\ndata_dir: %q\n"+
			"gateway: {listen: 127.0.0.1:0, upstream: %q, service: %q, keys_file: %q}\n",
			r.path("gateway", i, ""), hs.URL, url, r.path("gateway", i, "gateway.json")))
	}
	for i := range 2 {
		r.gateways[i] = runProgram(t, r.dir, "gateway", "--config", r.path("gateway", i, "c.yaml"))
		r.urls[i] = matrixURL(t, r.gateways[i])
		m, err := r.gateways[i].waitFor(`msg=operators address=(\S+)`)
		testkit.NoError(t, err)
		r.admins = append(r.admins, m[1])
	}
}

// receive takes security events, whose signature must be good by the keys that
// either service publishes.
func (r *rotation) receive(jwks *[2]string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // it is sent again
		}
		for _, url := range jwks {
			l := &listener{t: r.t}
			l.jwks.Store(url)
			req.Body = io.NopCloser(bytes.NewReader(body))
			h, err := l.verify(req)
			if req.Context().Err() != nil {
				return
			}
			if err != nil {
				r.t.Errorf("a security event cannot be verified: %v", err)
			}
			r.signedBy.Store(h.kid, true)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	r.t.Cleanup(srv.Close)
	r.receiver = srv.URL
}

// kindOfKey is how one kind of key is rotated.
type kindOfKey struct {
	name     string
	of       string   // the files are the service's, or the gateway's
	file     string   //
	flags    []string // of the commands
	register bool     // the services' configuration has to have it
	stored   bool     // the gateways' key files have to have it
	end      string   // of a session from before, once the key is retired: the path at which it ends; empty: it does not
}

// processes returns those that read the files.
func (r *rotation) processes(k *kindOfKey) []*process {
	if k.of == "gateway" {
		return r.gateways[:]
	}
	return r.services[:]
}

// spread brings the first file of a kind to the other process. Each reads it on
// its own, with clients that go on in between.
func (r *rotation) spread(k *kindOfKey) {
	r.t.Helper()
	first, second := r.path(k.of, 0, k.file), r.path(k.of, 1, k.file)
	p := r.processes(k)
	r.reload(p[0])
	r.round()
	r.copy(first, second)
	r.reload(p[1])
	r.round()
}

// registered makes the services read the registration of the gateways anew.
func (r *rotation) registered(keys string) {
	r.t.Helper()
	r.configure(keys)
	for _, p := range r.services {
		r.reload(p)
		r.round()
	}
}

// ids returns the ids of the keys of a kind in one state.
func (r *rotation) ids(k *kindOfKey, state string) []string {
	r.t.Helper()
	out := r.keys(append(append([]string{"list"}, k.flags...), r.path(k.of, 0, k.file))...)
	var ids []string
	for _, m := range regexp.MustCompile(`(?m)^`+k.name+` +(\S+) +`+state+`\b`).FindAllStringSubmatch(out, -1) {
		ids = append(ids, m[1])
	}
	return ids
}

// rotate puts another key of a kind in the place of the one that is used.
func (r *rotation) rotate(k *kindOfKey) {
	t, first := r.t, r.path(k.of, 0, k.file)
	old := r.ids(k, "used")
	canaries := r.canaries()

	r.keys("new", "--kind", k.name, "--staged", first)
	if k.register {
		r.registered(first)
	}
	r.spread(k)
	staged := r.ids(k, "staged")
	if len(staged) != 1 || !slices.Equal(r.ids(k, "used"), old) {
		t.Fatalf("%s: staged %v, used %v instead of %v", k.name, staged, r.ids(k, "used"), old)
	}

	r.keys(append(append([]string{"use"}, k.flags...), staged[0], first)...)
	r.spread(k)
	if k.stored {
		key := r.path("gateway", 0, "gateway.json")
		r.keys("service", "--service-key", regexp.MustCompile(`(?m)^discharger +\S+ +used .* (\S{44})$`).FindStringSubmatch(r.keys("list", first))[1], key)
		r.spread(&kindOfKey{of: "gateway", file: "gateway.json"})
	}
	for _, c := range canaries {
		if !c.round(t.Context()) {
			t.Fatalf("%s: a session from before does not go on", k.name)
		}
	}
	r.renew()
	if k.name == "refresh" { // theirs is signed with the new key since they went on
		canaries = nil
	}

	r.keys(append(append([]string{"retire", "--yes"}, k.flags...), old[0], first)...)
	r.spread(k)
	if k.register {
		r.registered(first)
	}
	for _, c := range canaries {
		r.canaryAfter(k, c)
	}
	r.round()
}

// canaries logs in clients that keep their sessions, one in each mode.
func (r *rotation) canaries() []*rotated {
	r.t.Helper()
	var all []*rotated
	for _, rotate := range []bool{false, true} {
		c := &rotated{r: r, user: fmt.Sprintf("@canary-%t:hs", rotate), rotate: rotate}
		if !c.login(r.t.Context()) || !c.round(r.t.Context()) {
			r.t.Fatal("a canary cannot log in")
		}
		all = append(all, c)
	}
	return all
}

// canaryAfter uses a session from before, after a key was retired.
func (r *rotation) canaryAfter(k *kindOfKey, c *rotated) {
	r.t.Helper()
	switch {
	case k.end == "":
		if !c.round(r.t.Context()) {
			r.t.Errorf("%s: a session from before does not go on", k.name)
		}
		return
	case k.end == "/refresh" && !c.rotate: // its discharge lasts for a while
		return
	}
	for gateway := range r.urls {
		status, out := 0, map[string]any(nil)
		var err error
		if k.end == "/refresh" {
			data, _ := json.Marshal(map[string]any{"refresh_token": c.refresh})
			status, out, err = r.once(r.t.Context(), gateway, "POST", k.end, "", data)
		} else {
			status, out, err = r.once(r.t.Context(), gateway, "GET", k.end, c.access, nil)
		}
		if err != nil || status != http.StatusUnauthorized || out["errcode"] != "M_UNKNOWN_TOKEN" || out["soft_logout"] != true {
			r.t.Errorf("%s, gateway %d: a session from before: %d %v, %v", k.name, gateway, status, out, err)
		}
	}
}

// Every kind of key is staged, used and retired, under load, at two services and
// two gateways that read their files at different times. No client is refused,
// nor is anything undecided for want of a key. Sessions that depend on a retired
// key end softly.
func TestRotateEveryKey(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("discharger")
	testkit.NoError(t, err)
	r := &rotation{t: t, dir: t.TempDir(), program: program}
	r.start()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for i := range 6 {
		c := &rotated{r: r, user: fmt.Sprintf("@u%d:hs", i), rotate: i%2 == 0}
		r.clients = append(r.clients, c)
		running.Go(func() { c.run(ctx) })
	}
	defer running.Wait()
	defer stop()
	r.round()
	signing := kindOfKey{name: "signing", of: "service", file: "signing.pem", flags: []string{"--signing"}}
	kids := append(r.ids(&signing, "used"), "")
	for _, k := range []*kindOfKey{
		{name: "refresh", of: "service", file: "keys.json"},
		{name: "discharger", of: "service", file: "keys.json", stored: true, end: "/refresh"},
		&signing,
		{name: "root", of: "gateway", file: "gateway.json", end: "/account/whoami"},
		{name: "seal", of: "gateway", file: "gateway.json", register: true, end: "/refresh"},
		{name: "api", of: "gateway", file: "gateway.json", register: true},
	} {
		r.rotate(k)
		t.Logf("rotated the %s key", k.name)
	}
	kids[1] = r.ids(&signing, "used")[0]
	redistest.Eventually(t, "events are signed with either key", func() bool {
		_, before := r.signedBy.Load(kids[0])
		_, after := r.signedBy.Load(kids[1])
		return before && after
	})
	stop()
	running.Wait()
	for _, admin := range r.admins {
		for name, value := range metricsOf(t, admin, "unknown_keys_total") {
			if value != "0" {
				t.Errorf("%s: %s is %s", admin, name, value)
			}
		}
	}
}

// metricsOf returns the metrics of a process whose names contain a text.
func metricsOf(t *testing.T, admin, name string) map[string]string {
	t.Helper()
	resp, err := http.Get(admin + "/metrics")
	testkit.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	testkit.NoError(t, err)
	all := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if what, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.Contains(what, name) {
			all[what] = value
		}
	}
	maps.DeleteFunc(all, func(what, _ string) bool { return what == "#" })
	return all
}
