package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
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
	"github.com/discharger/discharger/discharger/secret"
)

// Config configures a [Gateway]. Upstream, ServiceURL, APIKey, Keys, KeyPair, Discharger
// and Outbox are required.
type Config struct {
	// Upstream is the address of the homeserver: http or https and a host, or unix:
	// and the path of a socket.
	Upstream string
	// UpstreamTLS holds the trusted authorities for an https homeserver, and the
	// gateway's own certificate. Nil: the system's authorities, no certificate.
	UpstreamTLS *tls.Config
	// PublicURL is the gateway's URL for clients. It replaces base_url in responses,
	// and its scheme is forwarded to the homeserver. Empty: responses are unchanged,
	// and the scheme is that of the connection or of a trusted proxy.
	PublicURL string
	// ServiceURL is the URL of the service.
	ServiceURL string
	// APIKey authenticates the gateway to the service.
	APIKey secret.Bytes
	// Keys are master keys. The first mints access macaroons, and tokens are sealed
	// with keys derived from it.
	Keys homeserver.Keys
	// Retired are the ids of master keys removed from Keys. Their sessions ended
	// softly. A token of a key in neither is answered 503.
	Retired [][4]byte
	// KeyPair seals caveats. Its public key identifies the gateway to the service.
	KeyPair caveat.KeyPair
	// Discharger is the service's public key.
	Discharger caveat.PublicKey

	// Reconcile is the interval of comparisons with the service's sessions. 0: never.
	Reconcile time.Duration
	// ForgetAfter is how long the device of a softly ended session stays at the
	// homeserver, by the service's clock. It is checked when reconciling. 0: forever.
	ForgetAfter time.Duration
	// Outbox is the path of the file of pending calls; see package outbox.
	Outbox string

	// Legacy controls tokens that the homeserver issued. The zero value forwards them.
	Legacy Legacy
	// ForeignTokens holds the SHA-256 of tokens that are always forwarded, such as
	// those of application services.
	ForeignTokens [][sha256.Size]byte

	// TrustedProxies are the peers whose X-Forwarded-For, -Proto and -Host are
	// accepted. Nil: none.
	TrustedProxies []netip.Prefix
	// Leeway is how long a discharge is accepted after its expiry, for clock skew.
	Leeway time.Duration
	// CacheBytes bounds the memory for discharges, verified tokens and ended sessions.
	// A session takes 5 to 10 KB. 0: 256 MiB.
	CacheBytes int
	// Limits bounds concurrent requests.
	Limits admission.Limits

	Registerer prometheus.Registerer // nil: metrics are not registered
	Log        *slog.Logger          // nil: no log
	Access     *slog.Logger          // access log; nil: Log

	clock    func() time.Time // nil: time.Now
	jitter   func() float64   // in [0, 1), spreads refreshes; nil: math/rand/v2
	timeouts timeouts         // zero: defaultTimeouts
	dial     upstream.Dialer  // nil: net.Dialer
}

// WithClock returns a copy of the configuration that takes the time from now, for tests
// of programs. Nil is time.Now.
func (cfg Config) WithClock(now func() time.Time) Config {
	cfg.clock = now
	return cfg
}

// timeouts bounds the gateway's calls.
type timeouts struct {
	attempt  time.Duration // one request to the service
	revoke   time.Duration // a revocation at the service, before it is left to the outbox
	upstream time.Duration // a request to the homeserver
	health   time.Duration // a health check
	race     time.Duration // a login through another gateway, until it reaches the service
	leased   time.Duration // a forwarded request that holds the lease of a device
	wait     time.Duration // a request that waits for the service; 0: it does not
}

func defaultTimeouts() timeouts {
	return timeouts{
		attempt: 5 * time.Second, revoke: 4 * time.Second, upstream: 10 * time.Second, health: 2 * time.Second, race: time.Second,
		leased: 2 * time.Minute, wait: 10 * time.Second,
	}
}

// Reload replaces the configuration that can change while the gateway runs: Keys,
// Retired, KeyPair, Discharger, APIKey, UpstreamTLS, PublicURL, TrustedProxies, Legacy,
// ForeignTokens, Reconcile and ForgetAfter. Other fields are ignored. Requests in
// progress end as they began, and long polls continue. After an error nothing has
// changed.
func (g *Gateway) Reload(cfg Config) (err error) {
	defer wrap(&err, "reload gateway")
	g.reloading.Lock()
	defer g.reloading.Unlock()
	sealer, err := g.prepareReload(&cfg)
	if err != nil {
		return err
	}
	keys := homeserver.Config{Keys: cfg.Keys, Retired: cfg.Retired, KeyPair: cfg.KeyPair, Discharger: cfg.Discharger}
	if err := g.untimed.Reload(keys); err != nil {
		return err
	}
	if err := g.hs.Reload(keys); err != nil {
		return err // unreachable: g.untimed has accepted the same keys
	}
	g.sealer.Replace(sealer)
	g.client.SetAPIKey(cfg.APIKey)
	g.service.API.SetAPIKey(cfg.APIKey)
	g.homeserver.SetTLS(cfg.UpstreamTLS)
	g.current.Store(&cfg)
	g.outbox.Reconfigure()
	return nil
}

// CheckReload returns the error that Reload would return, and changes nothing. A
// program that reloads several components checks all of them first.
func (g *Gateway) CheckReload(cfg Config) (err error) {
	defer wrap(&err, "reload gateway")
	if _, err = g.prepareReload(&cfg); err != nil {
		return err
	}
	_, err = homeserver.New(homeserver.Config{
		Keys: cfg.Keys, Retired: cfg.Retired, KeyPair: cfg.KeyPair, Discharger: cfg.Discharger, Location: token.Location, CacheBytes: -1,
	})
	return err
}

// wrap adds an operation to an error.
func wrap(err *error, op string) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", op, *err)
	}
}

// prepareReload checks the fields that the verifiers do not check.
func (g *Gateway) prepareReload(cfg *Config) (*token.Sealer, error) {
	if err := cfg.checkReloadable(); err != nil {
		return nil, err
	}
	if err := g.homeserver.CheckTLS(cfg.UpstreamTLS); err != nil {
		return nil, err
	}
	return token.NewSealer(cfg.Keys, cfg.Retired)
}

// live returns the latest configuration. In g.cfg the fields that [Gateway.Reload]
// replaces are zero.
func (g *Gateway) live() *Config { return g.current.Load() }

// withoutReloadable returns the configuration with the fields that Reload replaces
// zeroed.
func (cfg Config) withoutReloadable() Config {
	cfg.Keys, cfg.Retired, cfg.KeyPair, cfg.Discharger, cfg.APIKey = nil, nil, caveat.KeyPair{}, caveat.PublicKey{}, nil
	cfg.UpstreamTLS, cfg.PublicURL = nil, ""
	cfg.TrustedProxies, cfg.Legacy, cfg.ForeignTokens = nil, Legacy{}, nil
	cfg.Reconcile, cfg.ForgetAfter = 0, 0
	return cfg
}

// publicScheme returns the scheme of PublicURL; empty if there is none.
func (cfg *Config) publicScheme() string {
	scheme, _, _ := strings.Cut(cfg.PublicURL, "://")
	return strings.ToLower(scheme)
}

// checkReloadable checks and normalizes the fields that Reload replaces.
func (cfg *Config) checkReloadable() error {
	if cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/"); cfg.PublicURL != "" {
		if _, err := upstream.ParseBase(cfg.PublicURL); err != nil {
			return fmt.Errorf("public URL: %w", err)
		}
	}
	if len(cfg.APIKey) == 0 {
		return errors.New("API key is empty")
	}
	return nil
}
