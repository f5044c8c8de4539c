package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"github.com/discharger/discharger/discharger/secret"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
)

// Config configures a [Gateway]. Upstream, Service, APIKey, Keys, KeyPair, Discharger
// and Outbox are required.
type Config struct {
	// Upstream is the address of the homeserver: http or https and a host, or unix:
	// and the path of a socket.
	Upstream string
	// UpstreamTLS has the authorities that the gateway trusts for a homeserver by
	// https, and its own certificate. Nil: the system's authorities, no certificate.
	UpstreamTLS *tls.Config
	// PublicURL is the gateway's URL for clients. It replaces base_url in answers, and
	// its scheme is reported to the homeserver. Empty: answers are unchanged, and the
	// scheme is that of the connection or of a trusted proxy.
	PublicURL string
	// Service is the URL of the service.
	Service string
	// APIKey authenticates the gateway to the service.
	APIKey secret.Bytes
	// Keys are master keys. Access macaroons are minted with the first, and tokens are
	// sealed with keys derived from it.
	Keys homeserver.Keys
	// Retired are the ids of master keys removed from Keys. Their sessions ended
	// softly. A token of a key in neither is answered 503.
	Retired [][4]byte
	// KeyPair seals caveats. Its public key identifies the gateway to the service.
	KeyPair caveat.KeyPair
	// Discharger is the service's public key.
	Discharger caveat.PublicKey

	// Reconcile is the time between two comparisons with the service's sessions. 0:
	// never.
	Reconcile time.Duration
	// ForgetAfter is how long the device of a softly ended session stays at the
	// homeserver, by the service's clock. It is checked when reconciling. 0: for ever.
	ForgetAfter time.Duration
	// Outbox is the file of calls still to be made; see package outbox.
	Outbox string

	// Legacy is the treatment of tokens that the homeserver issued. The zero value:
	// they are passed on.
	Legacy Legacy
	// ForeignTokens holds the SHA-256 of tokens that are passed on in any case, such as
	// those of application services.
	ForeignTokens [][sha256.Size]byte

	// TrustedProxies are the peers whose X-Forwarded-For, -Proto and -Host count. Nil:
	// none.
	TrustedProxies []netip.Prefix
	// Leeway is how long a discharge is accepted after its expiry, for clocks that
	// differ.
	Leeway time.Duration
	// CacheBytes bounds the memory for sessions in use: discharges, verified tokens,
	// ends. A session takes 5 to 10 KB. 0: 256 MiB.
	CacheBytes int
	// Limits bound the requests in progress.
	Limits admission.Limits

	Registerer prometheus.Registerer // of the metrics; nil: they are not registered
	Log        *slog.Logger          // nil: no log
	Access     *slog.Logger          // for the line of each request; nil: Log

	clock    func() time.Time // nil: time.Now
	jitter   func() float64   // in [0, 1), spreads refreshes; nil: math/rand/v2
	timeouts timeouts         // zero: defaultTimeouts
	dial     upstream.Dialer  // nil: by the network
}

// WithClock returns a copy of the configuration in which now returns the time. It is
// for tests of programs; nil is time.Now.
func (cfg Config) WithClock(now func() time.Time) Config {
	cfg.clock = now
	return cfg
}

// timeouts bound calls of the gateway.
type timeouts struct {
	attempt  time.Duration // one request to the service
	order    time.Duration // a revocation at the service, before it is kept for later
	upstream time.Duration // a request to the homeserver
	health   time.Duration // a health check
	race     time.Duration // a login through another gateway, until it reaches the service
	leased   time.Duration // a request that holds the lease of a device
	wait     time.Duration // a request that waits for the service; 0: none
}

func defaultTimeouts() timeouts {
	return timeouts{
		attempt: 5 * time.Second, order: 4 * time.Second, upstream: 10 * time.Second, health: 2 * time.Second, race: time.Second,
		leased: 2 * time.Minute, wait: 10 * time.Second,
	}
}

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
	if err := g.homeserver.CheckTLS(cfg.UpstreamTLS); err != nil {
		return nil, err
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
	g.service.API.SetAPIKey(cfg.APIKey)
	g.homeserver.SetTLS(cfg.UpstreamTLS)
	g.current.Store(&cfg)
	g.outbox.Reconfigure()
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

// publicScheme returns the scheme of PublicURL; empty if it is not configured.
func (cfg *Config) publicScheme() string {
	scheme, _, _ := strings.Cut(cfg.PublicURL, "://")
	return strings.ToLower(scheme)
}

// checkReloadable checks those parts, and brings them into the form in which they
// are used.
func (cfg *Config) checkReloadable() error {
	if cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/"); cfg.PublicURL != "" {
		if _, err := upstream.ParseBase(cfg.PublicURL); err != nil {
			return fmt.Errorf("public URL: %w", err)
		}
	}
	if len(cfg.APIKey) == 0 {
		return errors.New("no API key")
	}
	return nil
}
