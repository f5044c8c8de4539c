package main

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/wire"
)

// listener is a receiver of security events, which fetches the keys of the
// service.
type listener struct {
	t    *testing.T
	srv  *httptest.Server
	jwks atomic.Value // URL
	away atomic.Bool  // answers 503
	got  chan received
	seen sync.Map // the ids of tokens that were taken
}

// received is a verified token.
type received struct {
	jti, kid, user, session, device string
}

func newListener(t *testing.T) *listener {
	l := &listener{t: t, got: make(chan received, 64)}
	l.srv = httptest.NewServer(l)
	t.Cleanup(l.srv.Close)
	return l
}

func (l *listener) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if l.away.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	h, err := l.verify(req)
	if req.Context().Err() != nil {
		return // the sender has given up, and sends it again
	}
	if err != nil {
		l.t.Errorf("a security event cannot be verified: %v", err)
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"err":"invalid_request"}`)
		return
	}
	// A sender that gets no answer in time sends the token again. Several
	// processes send the same one, each under its own authorization.
	w.WriteHeader(http.StatusAccepted)
	if _, again := l.seen.LoadOrStore(req.Header.Get("Authorization")+" "+h.jti, true); !again {
		l.got <- h
	}
}

func (l *listener) verify(req *http.Request) (h received, err error) {
	if req.Header.Get("Content-Type") != "application/secevent+jwt" || !strings.HasPrefix(req.Header.Get("Authorization"), "Bearer canary-receiver") {
		return h, fmt.Errorf("header %v", req.Header)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return h, err
	}
	keys, err := fetchKeys(req.Context(), l.jwks.Load().(string))
	if err != nil {
		return h, err
	}
	claims := jwt.MapClaims{}
	token, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer("https://discharger.example.org"),
		jwt.WithAudience("https://receiver.example")).ParseWithClaims(string(body), claims, func(t *jwt.Token) (any, error) {
		key, ok := keys[fmt.Sprint(t.Header["kid"])]
		if !ok || t.Header["typ"] != "secevent+jwt" {
			return nil, fmt.Errorf("header %v", t.Header)
		}
		return key, nil
	})
	if err != nil {
		return h, err
	}
	if events, _ := claims["events"].(map[string]any); len(events) != 1 || events[secevent.EventSessionRevoked] == nil {
		return h, fmt.Errorf("events %v", claims["events"])
	}
	member := func(name, key string) string {
		s, _ := claims["sub_id"].(map[string]any)
		m, _ := s[name].(map[string]any)
		text, _ := m[key].(string)
		return text
	}
	return received{
		jti: claims["jti"].(string), kid: token.Header["kid"].(string),
		user: member("user", "sub"), session: member("session", "id"), device: member("device", "id"),
	}, nil
}

// fetchKeys reads the keys that the service publishes.
func fetchKeys(ctx context.Context, url string) (map[string]*rsa.PublicKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var set struct{ Keys []struct{ Kid, N, E string } }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
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
		keys[k.Kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	}
	return keys, nil
}

// next waits for the next token.
func (l *listener) next() received {
	l.t.Helper()
	select {
	case h := <-l.got:
		return h
	case <-time.After(patience):
		l.t.Fatal("no security event came")
		return received{}
	}
}

// teller is the service with a receiver, which can be restarted.
type teller struct {
	*ruled
	configuration string
	to            *listener
	keys          homeserver.Keys
	pair          caveat.KeyPair
}

func newTeller(t *testing.T) *teller {
	t.Helper()
	v := &teller{ruled: &ruled{t: t, dir: t.TempDir()}, to: newListener(t)}
	v.write("authorization", "Bearer canary-receiver\n")
	theirs := caveat.GenerateKey()
	master := homeserver.NewKey()
	v.configuration = fmt.Sprintf(`
public_url: https://discharger.example.org
data_dir: %[1]s
homeservers:
  - name: a.example
    public_key: %[2]s
    security_events:
      url: %[3]s/events?canary=secret
      audience: https://receiver.example
      authorization_file: %[1]s/authorization
`, v.dir, theirs.Public, v.to.srv.URL)
	v.keys, v.pair = homeserver.Keys{master}, theirs
	v.up()
	return v
}

// up starts the service.
func (v *teller) up() {
	v.t.Helper()
	var address string
	v.p, address, v.admin = startService(v.t, v.configuration)
	url := "http://" + address
	v.to.jwks.Store(url + wire.PathJWKS)
	var err error
	v.client, err = client.New(client.Config{URL: url, Patience: -1})
	v.must(err)
	service, err := v.client.Info(v.t.Context())
	v.must(err)
	v.hs, err = homeserver.New(homeserver.Config{Name: "a.example", Keys: v.keys, KeyPair: v.pair, Discharger: service, Location: url})
	v.must(err)
}

// down ends it in order, and demands that it kept its secrets.
func (v *teller) down() {
	v.t.Helper()
	v.must(v.p.cmd.Process.Signal(syscall.SIGTERM))
	code, err := v.p.wait()
	if err != nil || code != 0 {
		v.t.Fatalf("exit code %d, %v", code, err)
	}
	if secret := regexp.MustCompile(`canary|Bearer|eyJ[\w-]*\.eyJ`).FindString(v.p.text()); secret != "" {
		v.t.Errorf("%s is in the log:\n%s", secret, v.p.text())
	}
}

// ended begins a session, and ends it or all.
func (v *teller) ended(scope wire.Scope) *visitor {
	v.t.Helper()
	s := v.login(caveat.ModeRotate, "", nil)
	if _, err := s.ask(); err != nil {
		v.t.Fatal(err)
	}
	v.must(v.client.Logout(v.t.Context(), client.Request{Access: s.access, Token: s.token}, scope))
	return s
}

// TestSecurityEvents checks that revocations reach the receiver in order, through
// restarts of either and under a new key, and that the log has no part of them.
func TestSecurityEvents(t *testing.T) {
	t.Parallel()
	v := newTeller(t)
	const delivered = `discharger_security_events_delivered_total{homeserver="a.example"}`
	v.ended(wire.ScopeSession)
	first := v.to.next()
	if first.user != "@alice:a.example" || !strings.HasPrefix(first.device, "PHONE-") || first.session == "" {
		t.Errorf("received %+v", first)
	}
	v.ended(wire.ScopeUser)
	if h := v.to.next(); h.user != "@alice:a.example" || h.session != "" || h.device != "" {
		t.Errorf("received %+v", h)
	}
	v.eventually(delivered, 2)
	if info, err := os.Stat(filepath.Join(v.dir, "signing.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}

	v.to.away.Store(true)
	v.ended(wire.ScopeSession)
	v.ended(wire.ScopeSession)
	if _, err := v.p.waitFor("security event delivery failed.*answered 503"); err != nil {
		t.Fatal(err)
	}
	v.down()
	v.up() // now the receiver has the location of the keys
	v.to.away.Store(false)
	one, two := v.to.next(), v.to.next()
	if one.session == "" || two.session == "" || one.jti == two.jti || one.kid != first.kid {
		t.Errorf("received %+v, then of %+v", one, two)
	}
	v.eventually(delivered, 2)

	program, err := exec.LookPath("discharger")
	v.must(err)
	out, err := exec.CommandContext(t.Context(), program, "keys", "new", "--kind", "signing", filepath.Join(v.dir, "signing.pem")).CombinedOutput()
	if err != nil {
		t.Fatalf("keys new: %v\n%s", err, out)
	}
	v.hangup()
	v.waitFor("msg=reloaded")
	v.ended(wire.ScopeSession)
	if h := v.to.next(); h.kid == first.kid || h.session == "" {
		t.Errorf("received %+v, the key before was %s", h, first.kid)
	}
	v.eventually(delivered, 3)
	v.down()
	select {
	case h := <-v.to.got:
		t.Errorf("received %+v too", h)
	default:
	}
}

// TestSecurityEventsOfNodes checks that each of several processes over one Redis sends
// every event, under one id.
func TestSecurityEventsOfNodes(t *testing.T) {
	t.Parallel()
	dir, to := t.TempDir(), newListener(t)
	v := &teller{ruled: &ruled{t: t, dir: dir}, to: to}
	v.write("authorization", "Bearer canary-receiver")
	ring, err := keyfile.NewService(time.Now())
	v.must(err)
	v.must(keyfile.Create(filepath.Join(dir, "keys.json"), ring))
	_, err = keyfile.NewSigning(filepath.Join(dir, "signing.pem"))
	v.must(err)
	v.pair = caveat.GenerateKey()
	master := homeserver.NewKey()
	v.keys = homeserver.Keys{master}
	v.configuration = fmt.Sprintf(`
public_url: https://discharger.example.org
data_dir: data
keys: {file: %[1]s/keys.json, signing_file: %[1]s/signing.pem}
request_timeout: 20s
store: {redis: {addresses: [%[4]s], timeouts: {dial: 10s, read: 10s, write: 10s}}}
homeservers:
  - name: a.example
    public_key: %[2]s
    security_events: {url: "%[3]s/events?canary=secret", audience: https://receiver.example, authorization_file: %[1]s/authorization}
`, dir, v.pair.Public, to.srv.URL, redistest.Start(t).Socket)
	v.up()
	other := *v.ruled
	v.write("authorization", "Bearer canary-receiver of another")
	v.up()
	for _, scope := range []wire.Scope{wire.ScopeSession, wire.ScopeUser} {
		v.ended(scope)
		one, two := to.next(), to.next()
		if one != two || one.user != "@alice:a.example" || (scope == wire.ScopeSession) != (one.session != "" && strings.HasPrefix(one.device, "PHONE-")) {
			t.Errorf("received %+v, and of %+v", one, two)
		}
	}
	for _, r := range []*ruled{v.ruled, &other} {
		r.eventually(`discharger_security_events_delivered_total{homeserver="a.example"}`, 2)
		v.p = r.p
		v.down()
	}
}
