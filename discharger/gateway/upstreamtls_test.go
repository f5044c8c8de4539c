package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// authority signs certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	own := a.sign("authority", true)
	a.key = own.PrivateKey.(*ecdsa.PrivateKey)
	var err error
	a.cert, err = x509.ParseCertificate(own.Certificate[0])
	testkit.NoError(t, err)
	return a
}

// sign returns a certificate for a name, signed by the authority; the first is its own.
func (a *authority) sign(name string, self bool) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.NoError(a.t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: self, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if self {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	testkit.NoError(a.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// A homeserver with a certificate of a private authority that requires client
// certificates is reached with the right settings only.
func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	ours, others := newAuthority(t), newAuthority(t)
	mine, theirs := ours.sign("gateway", false), others.sign("gateway", false)
	const name = "matrix.internal"
	for _, c := range []struct {
		name string
		tls  *tls.Config
		good bool
	}{
		{"right", &tls.Config{RootCAs: ours.pool(), ServerName: name, Certificates: []tls.Certificate{mine}}, true},
		{"no settings", nil, false},
		{"another authority", &tls.Config{RootCAs: others.pool(), ServerName: name, Certificates: []tls.Certificate{mine}}, false},
		{"another name", &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{mine}}, false},
		{"no certificate", &tls.Config{RootCAs: ours.pool(), ServerName: name}, false},
		{"another's certificate", &tls.Config{RootCAs: ours.pool(), ServerName: name, Certificates: []tls.Certificate{theirs}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.http.Close()
			testkit.NoError(t, w.gateway.Close())
			srv := httptest.NewUnstartedServer(w.hs)
			srv.TLS = &tls.Config{
				Certificates: []tls.Certificate{ours.sign(name, false)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.pool(),
			}
			srv.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes are expected
			srv.StartTLS()
			t.Cleanup(srv.Close)
			w.cfg.Upstream, w.cfg.UpstreamTLS, w.cfg.Registerer = srv.URL, c.tls, nil
			if !c.good {
				g, err := New(w.cfg)
				testkit.NoError(t, err)
				w.gateway, w.http = g, httptest.NewServer(g)
				t.Cleanup(w.http.Close)
				w.want(w.do("POST", pathLogin, "", anyMap{}), 502, matrix.CodeUnknown)
				testkit.NoError(t, g.Close())
				if w.hs.count() > 0 || len(w.hs.inspected) > 0 {
					t.Error("request reached the homeserver")
				}
				return
			}
			w.startGateway()
			w.reachable(srv.Listener.Addr().String())
		})
	}
}

// A homeserver behind a Unix socket receives the same requests.
func TestUpstreamSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.http.Close()
	testkit.NoError(t, w.gateway.Close())
	socket := filepath.Join(t.TempDir(), "hs.sock")
	l, err := net.Listen("unix", socket)
	testkit.NoError(t, err)
	srv := httptest.NewUnstartedServer(w.hs)
	testkit.NoError(t, srv.Listener.Close())
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	w.hs.Close() // only the socket remains
	w.cfg.Upstream, w.cfg.Registerer = "unix:"+socket, nil
	w.startGateway()
	w.reachable(socket)
	// While it is unreachable, responses are 502.
	token := w.login(false).text("access_token")
	srv.Close()
	w.want(w.do("GET", upstream.PathWhoami, token, nil), 502, matrix.CodeUnknown)
}

// reachable checks the gateway's requests to the homeserver, on behalf of clients and
// its own.
func (w *world) reachable(never string) {
	w.t.Helper()
	in := w.login(true, anyMap{"device_id": "ONE"})
	token := in.text("access_token")
	const raw = "/_matrix/client/v3/rooms/%21a%2Fb:c/state?x=;y=%20&z"
	w.want(w.do("GET", raw, token, nil), 200, "")
	if last := w.hs.last(w.t); last.URI != raw || last.Token != w.hs.made[0] {
		w.t.Errorf("homeserver received %s with %q", last.URI, last.Token)
	}
	address := regexp.MustCompile(regexp.QuoteMeta(never) + `\b`) // not as a prefix of another
	for _, h := range w.hs.last(w.t).Header {
		if address.MatchString(strings.Join(h, " ")) {
			w.t.Errorf("upstream address in a header: %q", h)
		}
	}
	w.revoke(w.sessionOf(token), wire.RevokeOptions{})
	testkit.Eventually(w.t, "the device is logged out", func() bool { return !w.hs.alive("ONE") })
}
