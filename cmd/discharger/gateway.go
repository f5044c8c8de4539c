package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/config/keyfile"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway"
	"github.com/discharger/discharger/discharger/homeserver"
)

// front is a gateway with its listener.
type front struct {
	cfg      *config.Config
	ring     *keyfile.Ring
	listener net.Listener
	gateway  *gateway.Gateway
	ready    *readiness
	http     *http.Server
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
	case cfg.Gateway.KeysFile != "":
		return nil, false, err // it was named, so it should be there
	case vaultErr == nil:
		return nil, false, mark(fmt.Errorf("there are no keys in %s, but there were: %s is from a gateway that had some; "+
			"restore the key file, or remove that one to begin anew, with every client logged out", file, cfg.GatewayVaultFile()), errConfig)
	case cfg.Store.Redis != nil:
		return nil, false, mark(fmt.Errorf("there are no keys in %s; with Redis, every process needs the same ones: make them once, "+
			"with discharger keys new --kind homeserver, and give each process that file", file), errConfig)
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
func withGateway(cfg *config.Config, g *config.Gateway, ring *keyfile.Ring) *config.Config {
	if g == nil {
		return cfg
	}
	seal := ring.Of(keyfile.Seal)
	h := config.Homeserver{Name: g.Name, PublicKey: seal[0].Public, Policy: g.Policy, SecurityEvents: g.SecurityEvents}
	for _, k := range seal[1:] {
		h.PreviousKeys = append(h.PreviousKeys, k.Public)
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
	service    string           // URL
	serviceKey caveat.PublicKey //
	leeway     time.Duration
	registerer prometheus.Registerer
	log        *slog.Logger
	access     *slog.Logger // for the line of each request
	now        func() time.Time
}

// newFront makes a gateway and opens its port. Nothing is answered before
// [front.serve].
func newFront(ctx context.Context, cfg *config.Config, ring *keyfile.Ring, p gatewayParts) (*front, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Gateway.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for Matrix clients: %w", err)
	}
	var keys homeserver.Keys
	for _, k := range ring.Of(keyfile.Root) {
		keys = append(keys, k.Secret())
	}
	gc := gateway.Config{
		Upstream: cfg.Gateway.Upstream, PublicURL: cfg.Gateway.PublicURL, Service: p.service,
		APIKey: ring.Of(keyfile.API)[0].APIKey(), Keys: keys, KeyPair: ring.Of(keyfile.Seal)[0].Pair(), Discharger: p.serviceKey,
		Vault: cfg.GatewayVaultFile(), TrustedProxies: cfg.TrustedProxies, Leeway: p.leeway,
		Legacy: gateway.Legacy{
			Reject: cfg.Gateway.Legacy == config.LegacyReject, Until: cfg.Gateway.LegacyUntil, OnceNew: cfg.Gateway.OnceNew,
		},
		Reconcile: cfg.Gateway.Reconcile, ForgetAfter: cfg.Gateway.ForgetAfter, Registerer: p.registerer, Log: p.log, Access: p.access, Clock: p.now,
	}
	if t := cfg.Gateway.UpstreamTLS; t != nil {
		if gc.UpstreamTLS, err = t.Load(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	for _, d := range cfg.Gateway.ForeignTokens {
		gc.ForeignTokens = append(gc.ForeignTokens, [sha256.Size]byte(d))
	}
	g, err := gateway.New(gc)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &front{
		cfg: cfg, ring: ring, listener: l, gateway: g, ready: &readiness{gateway: g, log: p.log}, log: p.log, http: gatewayHTTP(g, p.log),
	}, nil
}

// gatewayHTTP has no limit for how long a request or an answer takes: a long
// poll waits for minutes, and a large file takes as long as it takes.
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
	go func() { failed <- f.http.Serve(f.listener) }()
	f.log.Info("gateway", slog.String("matrix", "http://"+f.listener.Addr().String()),
		slog.String("homeserver", f.cfg.Gateway.Upstream), slog.String("name", f.cfg.Gateway.Name))
}

// shutdown stops taking requests, waits for those under way, and cuts those
// that wait for longer: long polls come back by themselves. It is not ready from
// the beginning.
func (f *front) shutdown(timeout time.Duration) error {
	f.ready.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := f.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		f.log.Info("cut the requests that were still waiting")
		err = f.http.Close()
	}
	return errors.Join(err, f.gateway.Close())
}
