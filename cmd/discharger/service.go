package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/policy"
)

// parts are what a service is put together from, once for its whole life. What
// a reload may change is in the server that [parts.server] makes.
type parts struct {
	log      *slog.Logger
	access   *slog.Logger // for the line of each request; nil: log
	now      func() time.Time
	store    openStore
	metrics  *server.Metrics
	registry *prometheus.Registry
	rules    *ruleParts
	told     *secevent.Metrics
	streams  *server.Streams // of all servers

	announcer atomic.Pointer[discharger.Announcer] // of the server that was made last
}

// openStore is a store with what only operators ask of it.
type openStore interface {
	discharger.Store
	discharger.Feed
	AcceptLoss(context.Context) error
}

// prepareDataDir makes the directory for keys and sessions. It reports whether
// there was none.
func prepareDataDir(cfg *config.Config) (made bool, err error) {
	if _, err := os.Stat(cfg.DataDir); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return false, fmt.Errorf("make data directory: %w", err)
	}
	return true, nil
}

// loadRing reads a key file that may be as open as the configuration allows.
func loadRing(cfg *config.Config, file string) (*keyfile.Ring, error) {
	access := keyfile.OwnerOnly
	if cfg.Keys.GroupReadable {
		access = keyfile.GroupToo
	}
	return keyfile.Load(file, access)
}

// loadKeys reads the service's keys.
func loadKeys(cfg *config.Config) (*keyfile.Ring, error) {
	ring, err := loadRing(cfg, cfg.KeyFile())
	if err == nil && ring.Owner != keyfile.Service {
		err = fmt.Errorf("key file %s: the keys in it are a %s's", cfg.KeyFile(), ring.Owner)
	}
	return ring, mark(err, errConfig)
}

// loadOrMakeKeys reads the service's keys, and makes them first if there are
// none and never were. It reports whether it did.
func loadOrMakeKeys(cfg *config.Config, now time.Time) (ring *keyfile.Ring, made bool, err error) {
	ring, err = loadKeys(cfg)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, false, err
	}
	// Keys without which sessions that are there already could not be found or
	// go on must not be replaced quietly.
	if _, err := os.Stat(markerFile(cfg)); err == nil {
		return nil, false, mark(fmt.Errorf("there are no keys in %s, but there were: %s is from a service that had some; "+
			"restore the key file, or remove that one to begin anew, with no session left",
			cfg.KeyFile(), markerFile(cfg)), errConfig)
	}
	if cfg.Store.Redis != nil {
		return nil, false, noSharedKeys(cfg.KeyFile())
	}
	if ring, err = keyfile.NewService(now, nil); err != nil {
		return nil, false, err
	}
	err = keyfile.Create(cfg.KeyFile(), ring)
	if errors.Is(err, fs.ErrExist) { // another process was quicker
		ring, err = loadKeys(cfg)
		return ring, false, err
	}
	return ring, true, err
}

// markerFile remembers which store belongs to the service.
func markerFile(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "store.id") }

// open opens the store and registers the metrics.
func open(ctx context.Context, cfg *config.Config, keys *keyfile.Ring, log *slog.Logger, now func() time.Time) (*parts, error) {
	p := &parts{log: log, now: now, registry: prometheus.NewRegistry(), streams: server.NewStreams()}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	} {
		if err := p.registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	var err error
	if p.metrics, err = server.NewMetrics(p.registry); err != nil {
		return nil, err
	}
	policies, err := server.NewPolicyMetrics(p.registry, log, now)
	if err != nil {
		return nil, err
	}
	if p.told, err = secevent.NewMetrics(p.registry, now); err != nil {
		return nil, err
	}
	p.announcer.Store(announcerOf(cfg))
	p.rules = &ruleParts{metrics: policies, log: log, now: now, audits: make(map[string]*policy.Audit)}
	if r := cfg.Store.Redis; r != nil {
		p.store, err = openRedis(ctx, cfg, r, keys, p)
	} else {
		p.store, err = openBolt(cfg, keys, p)
	}
	if err != nil {
		return nil, mark(err, errUnavailable)
	}
	return p, nil
}

// server puts core and HTTP together for a configuration, keys and rules, and
// for what security events are signed with.
func (p *parts) server(cfg *config.Config, keys *keyfile.Ring, r *rules, signing *secevent.Keys) (*server.Server, error) {
	opener, err := newOpener(cfg, keys)
	if err != nil {
		return nil, mark(err, errConfig)
	}
	announcer := announcerOf(cfg)
	policies := make(map[string]string)
	apiKeys := make(map[string][][sha256.Size]byte)
	for _, h := range cfg.Homeservers {
		if h.Policy != "" {
			policies[h.Name] = h.Policy
		}
		for _, d := range h.APIKeys {
			apiKeys[h.Name] = append(apiKeys[h.Name], d)
		}
	}
	var refresh []discharger.RefreshKey
	for _, k := range keys.Of(keyfile.Refresh) {
		refresh = append(refresh, discharger.RefreshKey(k.Secret()))
	}
	var retired [][4]byte
	for _, k := range keys.RetiredOf(keyfile.Refresh) {
		retired = append(retired, k.ID)
	}
	service, err := discharger.New(discharger.Config{
		Opener: opener, Store: p.metrics.Store(p.store), RefreshKeys: refresh, RetiredKeys: retired,
		Policy: r.evaluator, Policies: policies,
		TTL: cfg.Discharge.TTL, MaxTTL: announcer.MaxTTL,
		Limits: session.Limits{
			Activation: cfg.Discharge.ActivationWindow, Grace: cfg.Discharge.Grace, Skew: announcer.Skew,
			Idle: cfg.Session.Idle, Absolute: cfg.Session.Absolute, Remember: cfg.Session.RememberEnded,
		},
		Observer: p.metrics, Log: p.log, Now: p.now,
	})
	if err != nil {
		return nil, fmt.Errorf("make service: %w", err)
	}
	var jwks []byte
	if signing != nil {
		jwks = signing.JWKS()
	}
	srv, err := server.New(server.Config{
		Service: service, JWKS: jwks, PublicKey: opener.PublicKey(), Ready: p.store.Ready, APIKeys: apiKeys,
		TrustedProxies: cfg.TrustedProxies, AllowOrigins: cfg.CORSOrigins, Timeout: cfg.RequestTimeout,
		Limits:  server.Limits{InFlight: cfg.Limits.InFlight, PerAddress: cfg.Limits.PerAddress},
		Feed:    server.FeedConfig{Source: p.store, Heartbeat: cfg.Feed.Heartbeat, Subscribers: cfg.Feed.Subscribers, Streams: p.streams},
		Metrics: p.metrics, Gatherer: p.registry, Log: p.log, Access: p.access, Now: p.now,
	})
	if err == nil {
		p.announcer.Store(announcer)
	}
	return srv, err
}

// announcerOf is what a replay of the journal writes events with, which are like
// those of the service.
func announcerOf(cfg *config.Config) *discharger.Announcer {
	return &discharger.Announcer{MaxTTL: cfg.Discharge.MaxTTL, Skew: cfg.Discharge.ClockSkew}
}

// newOpener registers the homeservers with all of their keys.
func newOpener(cfg *config.Config, keys *keyfile.Ring) (*caveat.Opener, error) {
	oc := caveat.OpenerConfig{Keys: pairs(keys, keyfile.Discharger)}
	for _, k := range keys.RetiredOf(keyfile.Discharger) {
		oc.Retired = append(oc.Retired, k.ID)
	}
	for _, h := range cfg.Homeservers {
		for _, key := range h.RetiredKeys {
			oc.Homeservers = append(oc.Homeservers, caveat.Homeserver{Name: h.Name, Key: key, Retired: true})
		}
		for _, key := range append([]caveat.PublicKey{h.PublicKey}, h.PreviousKeys...) {
			oc.Homeservers = append(oc.Homeservers, caveat.Homeserver{Name: h.Name, Key: key})
		}
	}
	return caveat.NewOpener(oc)
}

func pairs(keys *keyfile.Ring, kind keyfile.Kind) []caveat.KeyPair {
	var all []caveat.KeyPair
	for _, k := range keys.Of(kind) {
		all = append(all, k.Pair())
	}
	return all
}
