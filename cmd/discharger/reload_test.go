package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/store/redistest"
)

// reload sends SIGHUP and waits for one more line in the log that has a text. It
// returns that line.
func (p *process) reload(t *testing.T, text string) string {
	t.Helper()
	before := strings.Count(p.text(), text)
	fine(t, p.cmd.Process.Signal(syscall.SIGHUP))
	fine(t, p.waitForTimes(text, before+1))
	all := p.text()
	line := all[strings.LastIndex(all, text):]
	fine(t, p.waitUntil(func(log string) bool { // until its end is there
		line = log[strings.LastIndex(log, text):]
		return strings.Contains(line, "\n")
	}))
	line, _, _ = strings.Cut(line, "\n")
	return line
}

const (
	didReload    = "msg=reloaded"
	didNotReload = `msg="reload failed, going on as before"`
)

// wantReload reloads and compares the keys that changed and those that take a
// restart.
func (p *process) wantReload(t *testing.T, changed, restart string) {
	t.Helper()
	line := p.reload(t, didReload)
	if !strings.HasSuffix(line, fmt.Sprintf("changed=%s needs_restart=%s", quote(changed), quote(restart))) {
		t.Fatalf("changed %s, needs a restart %s: %s", changed, restart, line)
	}
}

// quote writes a list of keys as the log does.
func quote(keys string) string {
	if strings.Contains(keys, " ") {
		return `"[` + keys + `]"`
	}
	return "[" + keys + "]"
}

// folder is where the files of a test are.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f folder) write(name, format string, args ...any) string {
	f.t.Helper()
	fine(f.t, os.WriteFile(f.path(name), fmt.Appendf(nil, format, args...), 0o600))
	return f.path(name)
}

func (f folder) read(name string) string {
	f.t.Helper()
	data, err := os.ReadFile(f.path(name))
	fine(f.t, err)
	return string(data)
}

// keys runs a keys command and returns its output.
func (f folder) keys(program string, args ...string) string {
	f.t.Helper()
	cmd := exec.Command(program, append([]string{"keys"}, args...)...)
	cmd.Dir = f.dir
	out, err := cmd.Output()
	fine(f.t, err)
	return string(out)
}

// matrixClient is a Matrix client of a gateway.
type matrixClient struct {
	t   *testing.T
	url string
}

const pathWhoami = "/_matrix/client/v3/account/whoami"

func (c matrixClient) login() string {
	c.t.Helper()
	status, in := call(c.t, "POST", c.url+"/_matrix/client/v3/login", "", map[string]any{"type": "m.login.password"})
	token, _ := in["access_token"].(string)
	if status != 200 {
		c.t.Fatalf("login: %d %v", status, in)
	}
	return token
}

func (c matrixClient) want(token string, status int) {
	c.t.Helper()
	if got, out := call(c.t, "GET", c.url+pathWhoami, token, nil); got != status {
		c.t.Fatalf("whoami: %d %v, want %d", got, out, status)
	}
}

// A gateway of its own reads everything again. The service's reload and its own
// break neither a long poll nor the feed.
func TestReloadGatewayAlone(t *testing.T) {
	t.Parallel()
	f, hs := folder{t, t.TempDir()}, newMatrixStub(t)
	polling, release := make(chan struct{}), make(chan struct{})
	target, err := url.Parse(hs.URL)
	fine(t, err)
	stub := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/sync") {
			close(polling)
			<-release
		}
		stub.ServeHTTP(w, r)
	}))
	defer front.Close()
	configuration := f.write("service.yaml", "%s", patientSetting)
	service := runProgram(t, f.dir, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config", configuration)
	at, admin, err := service.addresses()
	fine(t, err)
	entry := f.keys(service.cmd.Path, "new", "--kind", "homeserver", "--name", "matrix", "--service", at, "gateway.json")
	f.write("service.yaml", "%s%s", entry, patientSetting)
	service.wantReload(t, "homeservers", "")
	settings := "admin_listen: 127.0.0.1:0\ndata_dir: gateway-data\ngateway: {listen: 127.0.0.1:0, upstream: %q, keys_file: gateway.json%s}\n%s"
	f.write("gateway.yaml", settings, front.URL, "", "")
	p := runProgram(t, f.dir, "gateway", "--config", "gateway.yaml")
	c := matrixClient{t, matrixURL(t, p)}
	token := c.login()
	_, err = p.waitFor(`msg=gateway .* name=matrix\b`) // that of the key file
	fine(t, err)
	m, err := p.waitFor(`msg=operators address=(\S+)`)
	fine(t, err)
	readyz(t, m[1]+"/readyz", 200, "ready") // the feed is current

	polled := make(chan int, 1)
	go func() {
		status, _ := call(t, "GET", c.url+"/_matrix/client/v3/sync", token, nil)
		polled <- status
	}()
	<-polling
	p.wantReload(t, "", "")
	f.write("gateway.yaml", settings, front.URL, ", legacy: reject, forget_after: 1h, name: other, service: http://127.0.0.1:1", "log: {level: debug}\nlisten: 127.0.0.1:1\n")
	p.wantReload(t, "gateway.legacy gateway.forget_after log.level", "gateway.service")
	c.want("from-before", 401)
	f.keys(service.cmd.Path, "new", "--kind", "root", "gateway.json")
	p.wantReload(t, "gateway.keys_file", "gateway.service")
	c.want(token, 200)
	c.want(c.login(), 200)
	service.wantReload(t, "", "")
	readyz(t, m[1]+"/readyz", 200, "ready")
	if n := metric(t, admin, `discharger_feed_subscribers{homeserver="matrix"}`); n != "1" {
		t.Errorf("%s streams of the feed", n)
	}
	if n := strings.Count(service.text(), "path=/v1/revocations"); n != 0 {
		t.Errorf("%d streams of the feed have ended:\n%s", n, service.text())
	}
	close(release)
	if status := <-polled; status != 200 {
		t.Errorf("the poll ended with %d", status)
	}
	finish(t, p)
	finish(t, service)
}

// metric reads a metric at an admin address.
func metric(t *testing.T, admin, name string) string {
	t.Helper()
	resp, err := http.Get(admin + "/metrics")
	fine(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fine(t, err)
	_, rest, _ := strings.Cut(string(text), "\n"+name+" ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// A file that cannot be used is named in one ERROR, and nothing changes: neither
// for it nor for the others that changed with it.
func TestReloadFaulty(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"serve", "gateway"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			f := folder{t, t.TempDir()}
			ca := newCertificates(t)
			hs := ca.serve(newMatrixStub(t).Config.Handler)
			defer hs.Close()
			f.write("ca.pem", "%s", ca.pem())
			const settings = patientSetting + "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n%s" +
				"gateway: {listen: 127.0.0.1:0, upstream: %q, upstream_tls: {ca_file: ca.pem}%s}\n"
			configure := func(more string) { f.write("c.yaml", settings, "", hs.URL, more) }
			configure("")
			p := runProgram(t, f.dir, "serve", "--config", "c.yaml")
			files := []string{"c.yaml", "discharger-data/keys.json", "discharger-data/gateway.json", "ca.pem"}
			if command == "gateway" {
				matrixURL(t, p)
				at, _, err := p.addresses()
				fine(t, err)
				configure = func(more string) {
					f.write("g.yaml", settings, "data_dir: gateway-data\n", hs.URL,
						", service: "+at+", keys_file: discharger-data/gateway.json"+more)
				}
				configure("")
				p = runProgram(t, f.dir, "gateway", "--config", "g.yaml")
				files = []string{"g.yaml", "discharger-data/gateway.json", "ca.pem"}
			}
			c := matrixClient{t, matrixURL(t, p)}
			token := c.login()
			for _, name := range files {
				t.Run(name, func(t *testing.T) {
					configure(", legacy: reject")
					good := f.read(name)
					f.write(name, "%s", good[:len(good)/2])
					errors := strings.Count(p.text(), "level=ERROR")
					line := p.reload(t, didNotReload)
					if !strings.Contains(line, name) || strings.Count(p.text(), "level=ERROR") != errors+1 {
						t.Errorf("%s is not named in one error: %s", name, line)
					}
					c.want(token, 200)
					c.want(stubToken, 200)
					f.write(name, "%s", good)
					configure("")
					p.wantReload(t, "", "")
				})
			}
			c.want(token, 200)
		})
	}
}

// certificates are an authority and a server's certificate of it, both of which
// can be renewed.
type certificates struct {
	t       *testing.T
	cert    *x509.Certificate
	current atomic.Pointer[tls.Certificate]
}

func newCertificates(t *testing.T) *certificates {
	c := &certificates{t: t}
	c.renew()
	return c
}

// renew makes another authority, and another certificate.
func (c *certificates) renew() {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fine(c.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	fine(c.t, err)
	c.cert, err = x509.ParseCertificate(der)
	fine(c.t, err)
	c.current.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
}

func (c *certificates) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

// serve runs a server under the name localhost.
func (c *certificates) serve(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil }}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes are expected
	s.StartTLS()
	s.URL = strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	return s
}

// The homeserver's authority is renewed.
func TestReloadAuthority(t *testing.T) {
	t.Parallel()
	f, ca := folder{t, t.TempDir()}, newCertificates(t)
	hs := ca.serve(newMatrixStub(t).Config.Handler)
	defer hs.Close()
	f.write("ca.pem", "%s", ca.pem())
	f.write("c.yaml", patientSetting+"listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"+
		"gateway: {listen: 127.0.0.1:0, upstream: %q, upstream_tls: {ca_file: ca.pem}}\n", hs.URL)
	p := runProgram(t, f.dir, "serve", "--config", "c.yaml")
	c := matrixClient{t, matrixURL(t, p)}
	token := c.login()
	ca.renew()
	hs.CloseClientConnections()
	c.want(token, 502)
	f.write("ca.pem", "%s", ca.pem())
	p.wantReload(t, "gateway.upstream_tls.ca_file", "")
	c.want(token, 200)
	finish(t, p)
}

// Redis's password is changed, and all connections are closed; no request is
// refused after the reload.
func TestReloadRedisPassword(t *testing.T) {
	t.Parallel()
	f, redis, hs := folder{t, t.TempDir()}, redistest.Start(t), newMatrixStub(t)
	setPassword := func(password string) {
		user := []any{"acl", "setuser", "discharger", "on", "resetpass", ">" + password, "~ds{*"}
		for _, command := range strings.Fields(redistest.Commands + " " + redistest.Checks) {
			user = append(user, command)
		}
		redis.Do(t, user...)
		f.write("password", "%s\n", password)
	}
	setPassword("canary-one")
	f.write("c.yaml", patientSetting+"listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"+
		"store: {redis: {addresses: [%q], username: discharger, password_file: password, timeouts: {dial: 10s, read: 10s, write: 10s}}}\n"+
		"gateway: {listen: 127.0.0.1:0, upstream: %q, keys_file: gateway.json}\n", redis.Socket, hs.URL)
	program, err := exec.LookPath("discharger")
	fine(t, err)
	fine(t, os.MkdirAll(f.path("discharger-data"), 0o700))
	f.keys(program, "new", "discharger-data/keys.json")
	key := regexp.MustCompile(`\S{43}=`).FindString(f.keys(program, "list", "discharger-data/keys.json"))
	f.keys(program, "new", "--kind", "homeserver", "--name", "gateway", "--service", "http://127.0.0.1:1", "--service-key", key, "gateway.json")
	p := runProgram(t, f.dir, "serve", "--config", "c.yaml")
	c := matrixClient{t, matrixURL(t, p)}
	c.want(c.login(), 200)
	for _, password := range []string{"canary-two", "canary-three"} {
		setPassword(password)
		c.want(c.login(), 200) // connections go on
		p.wantReload(t, "store.redis.password_file", "")
		redis.Do(t, "client", "kill", "user", "discharger")
		c.want(c.login(), 200)
	}
	if strings.Contains(p.text(), "canary-t") {
		t.Error("a password is in the log")
	}
	finish(t, p)
}
