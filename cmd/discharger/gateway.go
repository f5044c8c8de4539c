package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// front is a gateway with its listener.
type front struct {
	cfg      *config.Config // at the start
	parts    gatewayParts   // likewise
	listener port
	gateway  *gateway.Gateway
	ready    *readiness
	web      *web
	log      *slog.Logger
}

// gatewayKeys reads the gateway's keys.
func gatewayKeys(cfg *config.Config) (*keyfile.Ring, error) {
	ring, err := loadRing(cfg, cfg.GatewayKeyFile())
	if err == nil && ring.Owner != keyfile.Homeserver {
		err = fmt.Errorf("key file %s: the keys in it are the %s's", cfg.GatewayKeyFile(), ring.Owner)
	}
	return ring, mark(err, errConfig)
}

// gatewayKeysOrNew reads them too, and makes them first if there are none.
func gatewayKeysOrNew(cfg *config.Config, p keyfile.Peer, now time.Time) (ring *keyfile.Ring, made bool, err error) {
	ring, err = gatewayKeys(cfg)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, false, err
	}
	file := cfg.GatewayKeyFile()
	_, vaultErr := os.Stat(cfg.GatewayVaultFile())
	switch {
	case vaultErr == nil:
		return nil, false, mark(fmt.Errorf("there are no keys in %s, but there were: %s is from a gateway that had some; "+
			"restore the key file, or remove that one to begin anew, with every client logged out", file, cfg.GatewayVaultFile()), errConfig)
	case cfg.Store.Redis != nil:
		return nil, false, noSharedKeys(file)
	case cfg.Gateway.KeysFile != "":
		return nil, false, err // it was named, so it should be there
	}
	if ring, err = keyfile.NewHomeserver(p, now, nil); err != nil {
		return nil, false, err
	}
	if err := keyfile.Create(file, ring); err != nil {
		return nil, false, err
	}
	return ring, true, nil
}

// withGateway gives a configuration in which the gateway of this process, if
// there is one, is registered as a homeserver.
func withGateway(cfg *config.Config, ring *keyfile.Ring) *config.Config {
	g := cfg.Gateway
	if g == nil {
		return cfg
	}
	seal := ring.Of(keyfile.Seal)
	h := config.Homeserver{Name: g.Name, PublicKey: seal[0].Public, Policy: g.Policy, SecurityEvents: g.SecurityEvents}
	for _, k := range seal[1:] {
		h.PreviousKeys = append(h.PreviousKeys, k.Public)
	}
	for _, k := range ring.RetiredOf(keyfile.Seal) {
		h.RetiredKeys = append(h.RetiredKeys, k.Public)
	}
	for _, k := range ring.Of(keyfile.API) {
		h.APIKeys = append(h.APIKeys, k.APIDigest())
	}
	c := *cfg
	c.Homeservers = append(append([]config.Homeserver(nil), cfg.Homeservers...), h)
	return &c
}

// gatewayParts is what a gateway is told beside its configuration.
type gatewayParts struct {
	name       string           // at the service
	service    string           // URL
	serviceKey caveat.PublicKey //
	leeway     time.Duration
	registerer prometheus.Registerer
	log        *slog.Logger
	access     *slog.Logger // for the line of each request
	now        func() time.Time
	sockets    *sockets // nil: none were handed over
}

// config puts together what a gateway is made from, or reloads.
func (p *gatewayParts) config(cfg *config.Config, ring *keyfile.Ring) (gc gateway.Config, err error) {
	var keys homeserver.Keys
	for _, k := range ring.Of(keyfile.Root) {
		keys = append(keys, homeserver.Key{Key: k.Secret()})
	}
	var retired [][4]byte
	for _, k := range ring.RetiredOf(keyfile.Root) {
		retired = append(retired, k.ID)
	}
	gc = gateway.Config{
		Upstream: cfg.Gateway.Upstream, PublicURL: cfg.Gateway.PublicURL, Service: p.service,
		APIKey: ring.Of(keyfile.API)[0].APIKey(), Keys: keys, Retired: retired, KeyPair: ring.Of(keyfile.Seal)[0].Pair(), Discharger: p.serviceKey,
		Vault: cfg.GatewayVaultFile(), TrustedProxies: cfg.TrustedProxies, Leeway: p.leeway,
		Legacy: gateway.Legacy{
			Reject: cfg.Gateway.Legacy == config.LegacyReject, Until: cfg.Gateway.LegacyUntil, OnceNew: cfg.Gateway.OnceNew,
		},
		CacheBytes: cfg.Gateway.Limits.CacheMiB << 20, Limits: gatewayLimits(&cfg.Gateway.Limits),
		Reconcile: cfg.Gateway.Reconcile, ForgetAfter: cfg.Gateway.ForgetAfter, Registerer: p.registerer, Log: p.log, Access: p.access, Clock: p.now,
	}
	if t := cfg.Gateway.UpstreamTLS; t != nil {
		if gc.UpstreamTLS, err = t.Load(); err != nil {
			return gc, mark(err, errConfig)
		}
	}
	for _, d := range cfg.Gateway.ForeignTokens {
		gc.ForeignTokens = append(gc.ForeignTokens, [sha256.Size]byte(d))
	}
	return gc, nil
}

// newFront makes a gateway and opens its port. Nothing is answered before
// [front.serve].
func newFront(ctx context.Context, cfg *config.Config, ring *keyfile.Ring, p gatewayParts) (*front, error) {
	gc, err := p.config(cfg, ring)
	if err != nil {
		return nil, err
	}
	l, err := openPort(ctx, p.sockets, socketGateway, cfg.Gateway.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for Matrix clients: %w", err)
	}
	g, err := gateway.New(gc)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &front{
		cfg: cfg, parts: p, listener: l, gateway: g, ready: &readiness{gateway: g, log: p.log}, log: p.log, web: newWeb(l, gatewayHTTP(g, p.log)),
	}, nil
}

// prepareReload returns what a reload hands to the gateway, if the gateway takes
// it.
func (f *front) prepareReload(cfg *config.Config, ring *keyfile.Ring, serviceKey caveat.PublicKey) (gateway.Config, error) {
	p := f.parts
	p.serviceKey = serviceKey
	gc, err := p.config(cfg, ring)
	if err == nil {
		err = mark(f.gateway.CheckReload(gc), errConfig)
	}
	return gc, err
}

func gatewayLimits(l *config.GatewayLimits) gateway.Limits {
	return gateway.Limits{
		Requests: l.Requests, RequestsPerAddress: l.RequestsPerAddress, Lasting: l.Lasting, LastingPerAddress: l.LastingPerAddress,
	}
}

// gatewayHTTP has no limit for how long a request or an answer takes: a long
// poll waits for minutes, and a large file takes as long as it takes. The gateway
// itself ends those whose clients stand still.
func gatewayHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// serve begins to answer. What ends it goes to failed.
func (f *front) serve(failed chan<- error) {
	f.web.serve(failed)
	f.log.Info("gateway", slog.String("matrix", "http://"+f.listener.Addr().String()),
		slog.String("homeserver", f.cfg.Gateway.Upstream), slog.String("name", f.parts.name))
}

// checkUpstream returns an error if the upstream is this gateway.
func (f *front) checkUpstream(ctx context.Context) error {
	if err := f.gateway.CheckUpstream(ctx); err != nil {
		return mark(fmt.Errorf("gateway.upstream %s: %w", f.cfg.Gateway.Upstream, err), errConfig)
	}
	return nil
}

// shutdown stops taking requests, has long polls come back, and waits for the
// other requests under way. It is not ready from the beginning.
func (f *front) shutdown(timeout time.Duration) error {
	f.ready.draining.Store(true)
	f.gateway.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := f.web.shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		f.log.Info("cut the requests that were still waiting")
		err = f.web.close()
	}
	return errors.Join(err, f.gateway.Close())
}
