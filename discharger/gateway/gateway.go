package gateway

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/metrics"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/uia"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/loglimit"
)

// noExpiry is a leeway beyond the lifetime of any token.
const noExpiry = 100 * 365 * 24 * time.Hour

// Memory of the caches. How full each gets depends on the mode of most sessions.
const (
	defaultCacheBytes = 256 << 20
	wholeCache        = 64        // shares of Config.CacheBytes
	verifiedParts     = 16        // shares of the verifier's cache
	openedIdle        = time.Hour // of an unused entry; a polling client returns every 30 seconds
)

// Gateway is an HTTP handler in front of a homeserver. It is safe for concurrent use.
type Gateway struct {
	cfg            Config                 // without the fields that Reload replaces
	current        atomic.Pointer[Config] // latest; see live
	homeserver     *upstream.Client
	hs             *homeserver.Homeserver
	untimed        *homeserver.Homeserver // ignores expiries
	client         *client.Client
	sealer         *token.Sealer
	proxy          *httputil.ReverseProxy
	metrics        *metrics.Metrics
	outbox         *outbox.Outbox
	service        *service.Client
	limiter        *admission.Limiter
	bodies         *jsonbody.Room
	upstreamTokens *cache.Cache[caveat.SessionID, openedToken]
	owners         *cache.Cache[[sha256.Size]byte, owner]
	leases         admission.Leases
	// parameters of user-interactive authentication, of users and of registrations
	uiaUsers, uiaRegistrations *uia.Sessions
	polls                      admission.Polls
	// canonical caches bundles that are in the one accepted form.
	canonical     *cache.Cache[string, struct{}]
	nonce         [32]byte  // per process, for request ids
	warnForwarded sync.Once // malformed X-Forwarded-For
	warnLifetime  sync.Once // lifetime of the homeserver's tokens

	homeserverProbe, outboxProbe probe

	feed       *homeserver.Feed
	feedLost   chan struct{}      // signals that the feed's connection has ended
	cancel     context.CancelFunc // stops the background goroutines
	background sync.WaitGroup
	caches     *cache.Budget
	closeIdle  func() // to the service
	reloading  sync.Mutex
}

// openedToken is an unsealed token of the homeserver.
type openedToken struct {
	payload string // the sealed form
	token   string
}

// New returns a gateway that runs in the background until [Gateway.Close]. It waits for
// no connection.
func New(cfg Config) (_ *Gateway, err error) {
	defer wrap(&err, "new gateway")
	cfg.Upstream = strings.TrimSuffix(cfg.Upstream, "/")
	if err := cfg.checkReloadable(); err != nil {
		return nil, err
	}
	if cfg.Outbox == "" {
		return nil, errors.New("outbox is empty")
	}
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	cfg.Access = cmp.Or(cfg.Access, cfg.Log)
	cfg.timeouts = cmp.Or(cfg.timeouts, defaultTimeouts())
	if cfg.clock == nil {
		cfg.clock = time.Now
	}
	cfg.Log = loglimit.New(cfg.Log, cfg.clock)
	if cfg.jitter == nil {
		cfg.jitter = rand.Float64
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = defaultCacheBytes
	}
	g := &Gateway{cfg: cfg.withoutReloadable(), caches: cache.NewBudget(cfg.CacheBytes/wholeCache, cfg.clock)}
	g.current.Store(&cfg)
	g.homeserver, err = upstream.New(upstream.Config{
		Address: cfg.Upstream, TLS: cfg.UpstreamTLS, Dial: cfg.dial, Timeout: cfg.timeouts.upstream,
		Scheme: func() string { return g.live().publicScheme() },
	})
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	if g.sealer, err = token.NewSealer(cfg.Keys, cfg.Retired); err != nil {
		return nil, err
	}
	if err := g.newVerifiers(); err != nil {
		return nil, err
	}
	if err := g.connect(); err != nil {
		return nil, err
	}
	if g.metrics, err = metrics.New(cfg.Registerer, metrics.Gauges{
		Sessions: g.service.Discharges.Sessions.Len, Bytes: g.caches.Bytes, Waiting: g.service.Waiting.Size, Busy: g.limiter.Busy,
		Feed: func() homeserver.FeedStatus { return g.feed.Status() },
	}); err != nil {
		return nil, err
	}
	if err := g.openOutbox(&cfg); err != nil {
		return nil, err
	}
	g.feed, err = homeserver.NewFeed(homeserver.FeedConfig{
		Client: g.client, OnEvent: g.outbox.Revoked, OnGap: g.outbox.Missed, OnCurrent: g.recovered, OnDisconnect: g.disconnected,
		Log: cfg.Log, Leeway: cfg.Leeway,
	}.WithClock(cfg.clock))
	if err != nil {
		return nil, errors.Join(err, g.outbox.Close())
	}
	g.start()
	return g, nil
}

// openOutbox opens the outbox, before the feed, which calls it.
func (g *Gateway) openOutbox(cfg *Config) (err error) {
	g.outbox, err = outbox.Open(outbox.Config{
		Path: cfg.Outbox, Client: g.service.API, Patient: g.client, Homeserver: g.homeserver, Sealer: g.sealer, Leases: &g.leases,
		Caches: g.caches, Log: cfg.Log, Clock: cfg.clock, Jitter: cfg.jitter,
		Timeouts: outbox.Timeouts{Service: cfg.timeouts.revoke, Homeserver: cfg.timeouts.upstream, Race: cfg.timeouts.race},
		Periods:  func() (time.Duration, time.Duration) { live := g.live(); return live.Reconcile, live.ForgetAfter },
		Revoked:  func(id homeserver.Identity) (soft, revoked bool) { return g.feed.RevokedKind(id) },
		OnEnd: func(id caveat.SessionID) {
			g.service.Discharges.Drop(id)
			g.upstreamTokens.Remove(id)
		},
		OnChange:          g.service.Link.Changed,
		ObserveRevocation: func(err error) { g.metrics.Revocations.WithLabelValues(metrics.Result(err)).Inc() },
		ObserveLogout:     func(err error) { g.metrics.Logouts.WithLabelValues(metrics.Result(err)).Inc() },
	})
	return err
}

// newVerifiers creates the two verifiers of tokens.
func (g *Gateway) newVerifiers() (err error) {
	keys := g.live()
	hc := homeserver.Config{
		Keys: keys.Keys, Retired: keys.Retired, KeyPair: keys.KeyPair, Discharger: keys.Discharger, Location: token.Location,
		Check: checkCondition, MaxConditions: token.MaxConditions, MaxCondition: token.MaxCondition, Leeway: g.cfg.Leeway,
		CacheBytes: max(1, g.cfg.CacheBytes/wholeCache*verifiedParts),
	}.WithClock(g.cfg.clock)
	if g.hs, err = homeserver.New(hc); err != nil {
		return err
	}
	hc.Check, hc.Leeway, hc.CacheBytes = checkLogout, noExpiry, -1
	g.untimed, err = homeserver.New(hc)
	return err
}

// connect creates the clients of the service, the proxy and the caches.
func (g *Gateway) connect() (err error) {
	cfg := &g.cfg
	toService := upstream.NewTransport(cfg.dial)
	g.closeIdle = toService.CloseIdleConnections
	ac := client.Config{
		URL: cfg.ServiceURL, Location: token.Location, APIKey: g.live().APIKey, UserAgent: upstream.UserAgent,
		Timeout: cfg.timeouts.attempt, Patience: 3 * time.Second,
		HTTPClient: &http.Client{Transport: toService},
	}
	if g.client, err = client.New(ac); err != nil {
		return err
	}
	ac.Patience = -1
	once, err := client.New(ac) // the outbox retries
	if err != nil {
		return err
	}
	g.service, err = service.New(service.Config{
		Client: once, Caches: g.caches, Log: cfg.Log, Clock: cfg.clock, Jitter: cfg.jitter,
		ObserveDischarge: func(op string, err error) { g.metrics.Discharge(op, err) },
		ObserveSeen:      func(n int, err error) { g.metrics.Seen.WithLabelValues(metrics.Result(err)).Add(float64(n)) },
	})
	if err != nil {
		return err
	}
	_, _ = cryptorand.Read(g.nonce[:])
	g.bodies = jsonbody.NewRoom(jsonbody.DefaultRoom)
	g.limiter = admission.NewLimiter(cfg.Limits, cfg.clock)
	if err := g.newCaches(); err != nil {
		return err
	}
	g.uiaUsers, g.uiaRegistrations = uia.NewSessions(uia.Memory), uia.NewSessions(uia.Memory)
	g.proxy = g.newProxy(g.homeserver)
	g.homeserverProbe = probe{life: homeserverLife, timeout: cfg.timeouts.health, check: g.probeHomeserver}
	g.outboxProbe = probe{life: outboxProbeLife, timeout: cfg.timeouts.health, check: func(context.Context) error { return g.outbox.Store.Probe(cfg.clock()) }}
	g.feedLost = make(chan struct{}, 1)
	return nil
}

// Format writes the upstream URL and no secret, for every verb.
func (g *Gateway) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, "gateway to "+g.cfg.Upstream)
}

// start starts the background goroutines.
func (g *Gateway) start() {
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.outbox.Start()
	g.background.Go(func() { g.service.Epochs.Run(ctx) })
	g.background.Go(func() { g.reconnect(ctx) })
	g.background.Go(func() {
		if err := g.feed.Run(ctx); err != nil {
			g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot follow revocations", slog.Any("error", err))
		}
	})
	g.background.Go(func() { g.inspectUpstream(ctx) })
}

// Close stops the background goroutines, reports the epochs seen in use, and closes the
// outbox. Requests should have ended: revocations of later ones are only logged.
func (g *Gateway) Close() error {
	g.cancel()
	g.outbox.Stop()
	g.background.Wait()
	g.closeIdle()
	g.homeserver.Close()
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.timeouts.revoke)
	defer cancel()
	g.service.Epochs.Flush(ctx)
	return g.outbox.Close()
}

// newCaches creates the gateway's own caches.
func (g *Gateway) newCaches() (err error) {
	if g.upstreamTokens, err = cache.NewShared(g.caches, 4, cache.ByID[caveat.SessionID](openedIdle, func(o openedToken) int { return len(o.payload) + len(o.token) })); err != nil {
		return err
	}
	if g.owners, err = cache.NewShared(g.caches, 1, cache.Config[[32]byte, owner]{
		Idle: whoamiLife, Size: func(_ [32]byte, o owner) int { return len(o.user) },
	}); err != nil {
		return err
	}
	g.canonical, err = cache.NewShared(g.caches, 6, cache.Config[string, struct{}]{
		Idle: openedIdle, Hash: service.TokenHash, Size: func(token string, _ struct{}) int { return len(token) },
	})
	return err
}

// recovered is called when the feed has become current. It ends the pauses between
// retries at the service.
func (g *Gateway) recovered() {
	if outage := g.service.Link.Connected(); outage > 0 {
		g.cfg.Log.LogAttrs(context.Background(), slog.LevelInfo, "service is available again", slog.Duration("outage", outage))
	}
	g.service.Epochs.Wake()
	g.outbox.Wake()
}

// disconnected is called when the feed's connection has ended or failed. It logs an
// outage after the second failure in a row: a restart or reload of the service ends the
// connection too.
func (g *Gateway) disconnected(err error) {
	if g.service.Link.Disconnected() && !g.polls.IsDrained() {
		g.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, "service is unavailable, retrying; sessions continue until their discharges expire",
			slog.Any("error", err))
	}
	select {
	case g.feedLost <- struct{}{}:
	default:
	}
}

// reconnect ends the feed's pauses early, until ctx is done.
func (g *Gateway) reconnect(ctx context.Context) {
	for {
		select {
		case <-g.feedLost:
		case <-ctx.Done():
			return
		}
		if g.service.Link.WaitFeed(ctx, service.FeedPause) != nil {
			return
		}
		g.feed.Reconnect()
	}
}
