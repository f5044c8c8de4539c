package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/homeserver"
)

// Reload takes over the parts of a configuration that can change while the
// gateway runs: Keys, Retired, KeyPair, Discharger, APIKey, UpstreamTLS, PublicURL,
// TrustedProxies, Legacy, ForeignTokens, Reconcile and ForgetAfter. Everything
// else in it is ignored. Requests under way end as they began, and long polls go
// on. After an error nothing has changed.
func (g *Gateway) Reload(cfg Config) error {
	if err := g.reload(cfg); err != nil {
		return fmt.Errorf("reload gateway: %w", err)
	}
	return nil
}

// CheckReload returns the error that Reload would return, and changes nothing. A
// program that reloads several things at once asks all of them first.
func (g *Gateway) CheckReload(cfg Config) error {
	_, err := g.prepareReload(&cfg)
	if err == nil {
		_, err = homeserver.New(homeserver.Config{
			Keys: cfg.Keys, Retired: cfg.Retired, KeyPair: cfg.KeyPair, Discharger: cfg.Discharger, Location: token.Location, CacheBytes: -1,
		})
	}
	if err != nil {
		return fmt.Errorf("reload gateway: %w", err)
	}
	return nil
}

// prepareReload checks all that the verifiers do not check.
func (g *Gateway) prepareReload(cfg *Config) (*token.Sealer, error) {
	if err := cfg.checkReloadable(); err != nil {
		return nil, err
	}
	if cfg.UpstreamTLS != nil && g.upstream.Scheme != "https" {
		return nil, errTLSWithoutHTTPS
	}
	return token.NewSealer(cfg.Keys, cfg.Retired)
}

func (g *Gateway) reload(cfg Config) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	sealer, err := g.prepareReload(&cfg)
	if err != nil {
		return err
	}
	keys := homeserver.Config{Keys: cfg.Keys, Retired: cfg.Retired, KeyPair: cfg.KeyPair, Discharger: cfg.Discharger}
	if err := g.lenient.Reload(keys); err != nil {
		return err
	}
	if err := g.hs.Reload(keys); err != nil {
		return err // never: the other one has just taken the same keys
	}
	g.sealer.Replace(sealer)
	g.client.SetAPIKey(cfg.APIKey)
	g.once.SetAPIKey(cfg.APIKey)
	if before := g.live(); !sameTLS(before.UpstreamTLS, cfg.UpstreamTLS) {
		g.toUpstream.replace(g.newUpstreamTransport(cfg.UpstreamTLS))
	}
	g.current.Store(&cfg)
	select {
	case g.reconfigured <- struct{}{}:
	default:
	}
	return nil
}

// live returns the configuration that was loaded last. In g.cfg the fields that
// [Gateway.Reload] replaces are zero.
func (g *Gateway) live() *Config { return g.current.Load() }

// withoutReloadable returns a configuration in which the parts that Reload
// replaces are zero.
func (cfg Config) withoutReloadable() Config {
	cfg.Keys, cfg.Retired, cfg.KeyPair, cfg.Discharger, cfg.APIKey = nil, nil, caveat.KeyPair{}, caveat.PublicKey{}, nil
	cfg.UpstreamTLS, cfg.PublicURL = nil, ""
	cfg.TrustedProxies, cfg.Legacy, cfg.ForeignTokens = nil, Legacy{}, nil
	cfg.Reconcile, cfg.ForgetAfter = 0, 0
	return cfg
}

var errTLSWithoutHTTPS = errors.New("upstream: TLS goes with https")

// publicScheme returns the scheme of PublicURL; empty if it is not configured.
func (cfg *Config) publicScheme() string {
	scheme, _, _ := strings.Cut(cfg.PublicURL, "://")
	return strings.ToLower(scheme)
}

// checkReloadable checks those parts, and brings them into the form in which they
// are used.
func (cfg *Config) checkReloadable() error {
	if cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/"); cfg.PublicURL != "" {
		if _, err := parseBase(cfg.PublicURL); err != nil {
			return fmt.Errorf("public URL: %w", err)
		}
	}
	if len(cfg.APIKey) == 0 {
		return errors.New("no API key")
	}
	return nil
}

// swappedTransport sends each request by the transport that is the current one
// then.
type swappedTransport struct {
	current atomic.Pointer[http.Transport]
}

// RoundTrip sends a request.
func (s *swappedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return s.current.Load().RoundTrip(r)
}

// CloseIdleConnections closes those that no request is on.
func (s *swappedTransport) CloseIdleConnections() { s.current.Load().CloseIdleConnections() }

// replace puts another transport in the place of the current one, whose
// connections end with the requests that are on them.
func (s *swappedTransport) replace(t *http.Transport) {
	if before := s.current.Swap(t); before != nil {
		before.CloseIdleConnections()
	}
}

// sameTLS reports whether two configurations trust the same authorities and show
// the same certificates.
func sameTLS(a, b *tls.Config) bool {
	if a == nil || b == nil {
		return a == b
	}
	sameCertificate := func(a, b tls.Certificate) bool {
		return slices.EqualFunc(a.Certificate, b.Certificate, slices.Equal[[]byte])
	}
	return a.ServerName == b.ServerName && samePool(a.RootCAs, b.RootCAs) &&
		slices.EqualFunc(a.Certificates, b.Certificates, sameCertificate)
}

func samePool(a, b *x509.CertPool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(b)
}
