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
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/testkit"
)

// reload sends SIGHUP and waits for one more line in the log that has a text. It
// returns that line.
func (p *process) reload(t *testing.T, text string) string {
	t.Helper()
	before := strings.Count(p.text(), text)
	testkit.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	testkit.NoError(t, p.waitForTimes(text, before+1))
	all := p.text()
	line := all[strings.LastIndex(all, text):]
	testkit.NoError(t, p.waitUntil(func(log string) bool { // until its end is there
		line = log[strings.LastIndex(log, text):]
		return strings.Contains(line, "\n")
	}))
	line, _, _ = strings.Cut(line, "\n")
	return line
}

const (
	didReload    = "msg=reloaded"
	didNotReload = `msg="reload failed, keeping the configuration in force"`
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

// keysCommand runs a keys command in a folder and returns its output.
func keysCommand(t *testing.T, f testkit.Folder, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, append([]string{"keys"}, args...)...)
	cmd.Dir = f.Dir
	out, err := cmd.Output()
	testkit.NoError(t, err)
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
	f, hs := testkit.NewFolder(t), newMatrixStub(t)
	polling, release := make(chan struct{}), make(chan struct{})
	target, err := url.Parse(hs.URL)
	testkit.NoError(t, err)
	stub := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/sync") {
			close(polling)
			<-release
		}
		stub.ServeHTTP(w, r)
	}))
	defer front.Close()
	configuration := f.Write("service.yaml", "%s", patientSetting)
	service := runProgram(t, f.Dir, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config", configuration)
	at, admin, err := service.addresses()
	testkit.NoError(t, err)
	entry := keysCommand(t, f, service.cmd.Path, "new", "--kind", "homeserver", "--name", "matrix", "--service", at, "gateway.json")
	f.Write("service.yaml", "%s%s", entry, patientSetting)
	service.wantReload(t, "homeservers", "")
	settings := "admin_listen: 127.0.0.1:0\ndata_dir: gateway-data\ngateway: {listen: 127.0.0.1:0, upstream: %q, keys_file: gateway.json%s}\n%s"
	f.Write("gateway.yaml", settings, front.URL, "", "")
	p := runProgram(t, f.Dir, "gateway", "--config", "gateway.yaml")
	c := matrixClient{t, matrixURL(t, p)}
	token := c.login()
	_, err = p.waitFor(`msg=gateway .* name=matrix\b`) // that of the key file
	testkit.NoError(t, err)
	m, err := p.waitFor(`msg=operators address=(\S+)`)
	testkit.NoError(t, err)
	readyz(t, m[1]+"/readyz", 200, "ready") // the feed is current

	polled := make(chan int, 1)
	go func() {
		status, _ := call(t, "GET", c.url+"/_matrix/client/v3/sync", token, nil)
		polled <- status
	}()
	<-polling
	p.wantReload(t, "", "")
	f.Write("gateway.yaml", settings, front.URL, ", legacy: reject, forget_after: 1h, name: other, service: http://127.0.0.1:1", "log: {level: debug}\nlisten: 127.0.0.1:1\n")
	p.wantReload(t, "gateway.legacy gateway.forget_after log.level", "gateway.service")
	c.want("from-before", 401)
	keysCommand(t, f, service.cmd.Path, "new", "--kind", "root", "gateway.json")
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
	testkit.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	testkit.NoError(t, err)
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
			f := testkit.NewFolder(t)
			ca := newCertificates(t)
			hs := ca.serve(newMatrixStub(t).Config.Handler)
			defer hs.Close()
			f.Write("ca.pem", "%s", ca.pem())
			const settings = patientSetting + "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n%s" +
				"gateway: {listen: 127.0.0.1:0, upstream: %q, upstream_tls: {ca_file: ca.pem}%s}\n"
			configure := func(more string) { f.Write("c.yaml", settings, "", hs.URL, more) }
			configure("")
			p := runProgram(t, f.Dir, "serve", "--config", "c.yaml")
			files := []string{"c.yaml", "discharger-data/keys.json", "discharger-data/gateway.json", "ca.pem"}
			if command == "gateway" {
				matrixURL(t, p)
				at, _, err := p.addresses()
				testkit.NoError(t, err)
				configure = func(more string) {
					f.Write("g.yaml", settings, "data_dir: gateway-data\n", hs.URL,
						", service: "+at+", keys_file: discharger-data/gateway.json"+more)
				}
				configure("")
				p = runProgram(t, f.Dir, "gateway", "--config", "g.yaml")
				files = []string{"g.yaml", "discharger-data/gateway.json", "ca.pem"}
			}
			c := matrixClient{t, matrixURL(t, p)}
			token := c.login()
			for _, name := range files {
				t.Run(name, func(t *testing.T) {
					configure(", legacy: reject")
					good := f.Read(name)
					f.Write(name, "%s", good[:len(good)/2])
					errors := strings.Count(p.text(), "level=ERROR")
					line := p.reload(t, didNotReload)
					if !strings.Contains(line, name) || strings.Count(p.text(), "level=ERROR") != errors+1 {
						t.Errorf("%s is not named in one error: %s", name, line)
					}
					c.want(token, 200)
					c.want(stubToken, 200)
					f.Write(name, "%s", good)
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
	testkit.NoError(c.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testkit.NoError(c.t, err)
	c.cert, err = x509.ParseCertificate(der)
	testkit.NoError(c.t, err)
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
	f, ca := testkit.NewFolder(t), newCertificates(t)
	hs := ca.serve(newMatrixStub(t).Config.Handler)
	defer hs.Close()
	f.Write("ca.pem", "%s", ca.pem())
	f.Write("c.yaml", patientSetting+"listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"+
		"gateway: {listen: 127.0.0.1:0, upstream: %q, upstream_tls: {ca_file: ca.pem}}\n", hs.URL)
	p := runProgram(t, f.Dir, "serve", "--config", "c.yaml")
	c := matrixClient{t, matrixURL(t, p)}
	token := c.login()
	ca.renew()
	hs.CloseClientConnections()
	c.want(token, 502)
	f.Write("ca.pem", "%s", ca.pem())
	p.wantReload(t, "gateway.upstream_tls.ca_file", "")
	c.want(token, 200)
	finish(t, p)
}

// Redis's password is changed, and all connections are closed; no request is
// refused after the reload.
func TestReloadRedisPassword(t *testing.T) {
	t.Parallel()
	f, redis, hs := testkit.NewFolder(t), redistest.Start(t), newMatrixStub(t)
	setPassword := func(password string) {
		user := []any{"acl", "setuser", "discharger", "on", "resetpass", ">" + password, "~ds{*"}
		for _, command := range strings.Fields(redistest.Commands + " " + redistest.Checks) {
			user = append(user, command)
		}
		redis.Do(t, user...)
		f.Write("password", "%s\n", password)
	}
	setPassword("canary-one")
	f.Write("c.yaml", patientSetting+"listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"+
		"store: {redis: {addresses: [%q], username: discharger, password_file: password, timeouts: {dial: 10s, read: 10s, write: 10s}}}\n"+
		"gateway: {listen: 127.0.0.1:0, upstream: %q, keys_file: gateway.json}\n", redis.Socket, hs.URL)
	program, err := exec.LookPath("discharger")
	testkit.NoError(t, err)
	testkit.NoError(t, os.MkdirAll(f.Path("discharger-data"), 0o700))
	keysCommand(t, f, program, "new", "discharger-data/keys.json")
	key := regexp.MustCompile(`\S{43}=`).FindString(keysCommand(t, f, program, "list", "discharger-data/keys.json"))
	keysCommand(t, f, program, "new", "--kind", "homeserver", "--name", "gateway", "--service", "http://127.0.0.1:1", "--service-key", key, "gateway.json")
	p := runProgram(t, f.Dir, "serve", "--config", "c.yaml")
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
