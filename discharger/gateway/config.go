package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"github.com/discharger/discharger/discharger/secret"
	"io"
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

// Config is what a [Gateway] is made from. Upstream, Service, APIKey, Keys,
// KeyPair, Discharger and Vault are required.
type Config struct {
	// Upstream is where the homeserver is: http or https, and a host; or unix:
	// and the path of a socket.
	Upstream string
	// UpstreamTLS is for a homeserver by https: whom to trust, and with which
	// certificate the gateway shows who it is. Nil: the system's authorities,
	// and none.
	UpstreamTLS *tls.Config
	// PublicURL is where clients reach the gateway. Answers that tell clients
	// where the homeserver is are changed to it, and its scheme is reported to the
	// homeserver. Empty: answers stay as they are, and the scheme is that of the
	// connection or of a trusted proxy.
	PublicURL string
	// Service is the URL of the service.
	Service string
	// APIKey is the one under which the service knows the gateway.
	APIKey secret.Bytes
	// Keys are master keys: access macaroons are minted with the first, and
	// what clients carry for the gateway is sealed with keys derived from it.
	Keys homeserver.Keys
	// Retired are the ids of master keys that were taken out of Keys. Sessions that
	// depend on one are over, softly; about those that depend on a key in neither,
	// nothing is decided.
	Retired [][4]byte
	// KeyPair seals caveats. The service knows the gateway by its public key.
	KeyPair caveat.KeyPair
	// Discharger is the service's public key.
	Discharger caveat.PublicKey

	// Reconcile is how often the service is asked which sessions there still
	// are. 0: never.
	Reconcile time.Duration
	// ForgetAfter is how long after a soft end a session's device stays at the
	// homeserver, by the service's clock. It is compared when reconciling. 0:
	// for ever.
	ForgetAfter time.Duration
	// Vault is the file in which the gateway keeps what it owes to the service
	// and to the homeserver; see the package comment.
	Vault string

	// Legacy says what becomes of tokens that are not the gateway's. The zero
	// value: they are the homeserver's business.
	Legacy Legacy
	// ForeignTokens holds the SHA-256 of tokens that are not the gateway's and
	// are passed on in any case: those of application services.
	ForeignTokens [][sha256.Size]byte

	// TrustedProxies are those whose X-Forwarded-For, -Proto and -Host are
	// believed. Nil: nobody's.
	TrustedProxies []netip.Prefix
	// Leeway is for how long a discharge is accepted after its time, for
	// clocks that differ. 0: not at all.
	Leeway time.Duration
	// CacheBytes is how much memory is used for what is kept of sessions in use:
	// their discharges, verified tokens, ends. A session takes 5 to 10 KB. A
	// session without room costs the service and the gateway more. 0: 256 MiB.
	CacheBytes int
	// Limits bound the requests that are answered at a time.
	Limits admission.Limits

	Registerer prometheus.Registerer // of the metrics; nil: they are not shown
	Log        *slog.Logger          // nil: nothing is logged
	Access     *slog.Logger          // for the line of each request; nil: Log
	Clock      func() time.Time      // nil: time.Now
	Rand       io.Reader             // nil: crypto/rand
	Jitter     func() float64        // from 0 up to 1, spreads refreshes over time; nil: math/rand/v2

	patience patience // for others; zero: usualPatience
	// dial connects to the service and the homeserver; nil: by the network.
	dial upstream.Dialer
}

// patience is how long the gateway waits for an answer to what it asks by
// itself.
type patience struct {
	attempt  time.Duration // to one request to the service
	order    time.Duration // to an end of sessions that the service is told of, before it is kept for later
	upstream time.Duration // of the homeserver's
	health   time.Duration // before something is taken for broken
	race     time.Duration // for a login through another gateway to come to the service
	leased   time.Duration // with a request that others wait for
	wait     time.Duration // of a request, while the service decides nothing; 0: none
}

func usualPatience() patience {
	return patience{
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
