package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The commands an ACL user of a store needs: Commands for sessions, and Checks
// to verify the server.
const (
	Commands = "+eval +evalsha +get +set +del +time +hgetall +hmget +hset +hsetnx +hdel +hexists +hlen " +
		"+hrandfield +pttl +expireat +persist +exists +xadd +xdel +xlen +xrange +xread +xinfo|stream"
	Checks = "+role +info"
)

// Secure is a server that accepts TLS only, requires a client certificate, and
// has one user, who may run [Commands] on the keys of a store, and [Checks].
type Secure struct {
	*Server
	User, Password string
	CertFile       string // of server and clients, self-signed
	KeyFile        string
}

// StartSecure starts a server with TLS.
func StartSecure(t testing.TB, args ...string) *Secure {
	t.Helper()
	host, dir := newHost(t), t.TempDir()
	s := &Secure{
		User: "discharger", Password: "opensesame",
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
	}
	s.writeCertificate(t, host)
	port := ports(t, host, 1)[0]
	users := []string{"--user", s.User, "on", ">" + s.Password, "~ds{*"}
	users = append(users, strings.Fields(Commands+" "+Checks)...)
	// The default user is off; the test uses the user keeper on the socket.
	users = append(users, "--user", "keeper", "on", ">keeper", "~*", "&*", "+@all", "--user", "default", "off")
	s.Server = start(t, "redis-server", append(append(users, "--bind", host, "--tls-port", port, "--tls-auth-clients", "yes",
		"--tls-cert-file", s.CertFile, "--tls-key-file", s.KeyFile, "--tls-ca-cert-file", s.CertFile), args...)...)
	s.client.Options().Username, s.client.Options().Password = "keeper", "keeper"
	s.Addr = net.JoinHostPort(host, port)
	return s
}

// Renew replaces the certificate of the server in its files. Clients need the
// new one too.
func (s *Secure) Renew(t testing.TB) {
	t.Helper()
	host, _, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	s.writeCertificate(t, host)
	s.Do(t, "config", "set", "tls-cert-file", s.CertFile, "tls-key-file", s.KeyFile, "tls-ca-cert-file", s.CertFile)
}

// TLS returns the TLS configuration of a client.
func (s *Secure) TLS() *tls.Config {
	pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

// writeCertificate writes a new certificate for a host.
func (s *Secure) writeCertificate(t testing.TB, host string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		s.CertFile: {Type: "CERTIFICATE", Bytes: cert}, s.KeyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
