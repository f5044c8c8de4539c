package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair writes a certificate that signs itself, and its key.
func pair(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write(name+".pem", "CERTIFICATE", der), write(name+".key", "PRIVATE KEY", pkcs8)
}

// The address of the homeserver and the files of its TLS are checked before the
// start.
func TestGatewayUpstream(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := pair(t, dir, "gateway")
	ca, otherKey := pair(t, dir, "other")
	files := strings.NewReplacer("CERT", cert, "KEY", key, "CA", ca, "OTHER", otherKey)
	for _, c := range []struct{ name, text, want string }{
		{"https", "{upstream: 'https://hs', upstream_tls: {}}", ""},
		{"authority", "{upstream: 'https://hs', upstream_tls: {ca_file: CA, server_name: matrix.internal}}", ""},
		{"certificate", "{upstream: 'https://hs', upstream_tls: {cert_file: CERT, key_file: KEY}}", ""},
		{"socket", "{upstream: 'unix:/run/hs.sock'}", ""},
		{"missing", "{listen: '127.0.0.1:0'}", `gateway: key "upstream" is missing`},
		{"other scheme", "{upstream: 'ftp://hs'}", `f.yaml:1:21: gateway.upstream: want http or https and a host`},
		{"relative socket", "{upstream: 'unix:hs.sock'}", `f.yaml:1:21: gateway.upstream: want the path of a socket from the root`},
		{"socket with host", "{upstream: 'unix://host/hs.sock'}", `gateway.upstream: want the path of a socket from the root`},
		{"long socket", "{upstream: 'unix:/" + strings.Repeat("x", maxSocket) + "'}", `gateway.upstream: want a path of at most 103 bytes, got 104`},
		{"itself", "{listen: 'hs:8092', upstream: 'http://hs:8092'}", `f.yaml:1:40: gateway.upstream: is the address of gateway.listen`},
		{"itself by another name", "{upstream: 'http://localhost:8092'}", `gateway.upstream: is the address of gateway.listen`},
		{"itself on all interfaces", "{listen: ':8092', upstream: 'http://127.0.0.2:8092'}", `gateway.upstream: is the address of gateway.listen`},
		{"the service", "{upstream: 'http://127.0.0.1:8090'}", `gateway.upstream: is the address of listen`},
		{"the service's operators", "{upstream: 'https://127.0.0.1:8091'}", `gateway.upstream: is the address of admin_listen`},
		{"another address", "{listen: '127.0.0.2:8092', upstream: 'http://127.0.0.3:8092'}", ""},
		{"devices forgotten too soon", "{upstream: 'http://hs', forget_after: 10ms}", `gateway.forget_after: want 1s or more, or 0s for never; got 10ms`},
		{"devices never forgotten", "{upstream: 'http://hs', forget_after: 0s}", ""},
		{"TLS without https", "{upstream: 'http://hs', upstream_tls: {}}", `gateway.upstream_tls: requires an upstream of https`},
		{"TLS by socket", "{upstream: 'unix:/run/hs.sock', upstream_tls: {}}", `gateway.upstream_tls: requires an upstream of https`},
		{"unknown key", "{upstream: 'https://hs', upstream_tls: {insecure: true}}", `gateway.upstream_tls: key "insecure" is unknown`},
		{"no authority", "{upstream: 'https://hs', upstream_tls: {ca_file: /nonexistent/ca}}", `gateway.upstream_tls: read authorities: open /nonexistent/ca`},
		{"authority not pem", "{upstream: 'https://hs', upstream_tls: {ca_file: /dev/null}}", `gateway.upstream_tls: read authorities: /dev/null has no certificate`},
		{"no certificate", "{upstream: 'https://hs', upstream_tls: {cert_file: /nonexistent/c, key_file: KEY}}", `gateway.upstream_tls: read client certificate: open /nonexistent/c`},
		{"certificate alone", "{upstream: 'https://hs', upstream_tls: {cert_file: CERT}}", `gateway.upstream_tls: cert_file and key_file require each other`},
		{"another's key", "{upstream: 'https://hs', upstream_tls: {cert_file: CERT, key_file: OTHER}}", `gateway.upstream_tls: read client certificate: tls: private key does not match public key`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse([]byte("gateway: "+files.Replace(c.text)), Options{File: "f.yaml"})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// Limits have defaults, and none can be 0.
func TestGatewayLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"one of them", "{requests: 10}", ""},
		{"all", "{requests: 1, requests_per_address: 1, lasting_requests: 1, lasting_requests_per_address: 1, cache_mib: 1}", ""},
		{"no requests", "{requests: 0}", "f.yaml:1:53: gateway.limits.requests: want 1 or more, got 0"},
		{"fewer", "{lasting_requests_per_address: -1}", "gateway.limits.lasting_requests_per_address: want 1 or more, got -1"},
		{"no memory", "{cache_mib: 0}", "gateway.limits.cache_mib: want 1 to 1048576, got 0"},
		{"too much memory", "{cache_mib: 1048577}", "gateway.limits.cache_mib: want 1 to 1048576, got 1048577"},
		{"unknown", "{polls: 1}", `gateway.limits: key "polls" is unknown`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := parse([]byte("gateway: {upstream: 'http://hs', limits: "+c.text+"}"), Options{File: "f.yaml"})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "" && (cfg.Gateway.Limits.Requests == 0 || cfg.Gateway.Limits.CacheMiB == 0):
				t.Errorf("no default: %+v", cfg.Gateway.Limits)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}
