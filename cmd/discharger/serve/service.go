package serve

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/ruleset"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/cmd/discharger/storage"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/policy/check"
)

// parts are the parts of a service that a reload keeps. [parts.server] makes a server
// from them with the parts that a reload replaces.
type parts struct {
	log      *slog.Logger
	access   *slog.Logger // for the line of each request; nil: log
	now      func() time.Time
	store    *storage.Store
	metrics  *server.Metrics
	registry *prometheus.Registry
	rules    *ruleset.Loader
	told     *secevent.Metrics
	streams  *server.Streams // of all servers

	replayer *failover.Replayer // of the store
}

// open opens the store and registers the metrics.
func open(ctx context.Context, cfg *config.Config, keys *keyfile.Ring, log *slog.Logger, now func() time.Time) (*parts, error) {
	p := &parts{log: log, now: now, registry: prometheus.NewRegistry(), streams: server.NewStreams()}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector())
	var err error
	if p.metrics, err = server.NewMetrics(p.registry); err != nil {
		return nil, err
	}
	policies, err := server.NewPolicyMetrics(p.registry, log, now)
	if err != nil {
		return nil, err
	}
	if p.told, err = secevent.NewMetrics(p.registry); err != nil {
		return nil, err
	}
	p.replayer = failover.New(storage.Lifetime(cfg), log)
	p.rules = &ruleset.Loader{Metrics: policies, Log: log, Audits: make(map[string]*check.Audit)}
	p.store, err = storage.Open(ctx, cfg, keys, &storage.Params{Registry: p.registry, Log: log, Now: now, Replayer: p.replayer})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// server makes core and HTTP API for a configuration, keys and rules, and the keys that
// sign security events.
func (p *parts) server(cfg *config.Config, keys *keyfile.Ring, r *ruleset.Rules, signing *secevent.Keys) (*server.Server, error) {
	opener, err := setup.Opener(cfg, keys)
	if err != nil {
		return nil, err
	}
	life := storage.Lifetime(cfg)
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
		refresh = append(refresh, discharger.RefreshKey{Key: k.Secret()})
	}
	var retired [][4]byte
	for _, k := range keys.RetiredOf(keyfile.Refresh) {
		retired = append(retired, k.ID)
	}
	service, err := discharger.New(discharger.Config{
		Opener: opener, Store: p.metrics.Store(p.store), RefreshKeys: refresh, RetiredKeys: retired,
		Policy: r.Evaluator, Policies: policies,
		TTL: cfg.Discharge.TTL, MaxTTL: life.MaxTTL,
		Limits: session.Limits{
			Activation: cfg.Discharge.ActivationWindow, Grace: cfg.Discharge.Grace, Skew: life.Skew,
			Idle: cfg.Session.Idle, Absolute: cfg.Session.Absolute, Remember: cfg.Session.RememberEnded,
		},
		Observer: p.metrics, Log: p.log,
	}.WithClock(p.now))
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
		Metrics: p.metrics, Gatherer: p.registry, Log: p.log, Access: p.access,
	}.WithClock(p.now))
	if err == nil {
		p.replayer.SetLifetime(life)
	}
	return srv, err
}

// sender returns the sender of security events; nil: no receivers are configured.
func (p *parts) sender(cfg *config.Config, keys *secevent.Keys) (*secevent.Sender, error) {
	if keys == nil {
		return nil, nil
	}
	s, err := secevent.New(secevent.Config{
		Feed: p.store, Receivers: setup.Receivers(cfg), Issuer: cfg.PublicURL, Keys: keys, Dir: cfg.DataDir,
		Metrics: p.told, Log: p.log,
	})
	return s, command.Mark(err, command.ErrConfig)
}

// sending is a running sender. A nil sending is none.
type sending struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// send runs a sender in the background, after the one before has ended; either may be
// nil. The end may take seconds, since it may have to interrupt a read of the feed.
func send(s *secevent.Sender, before *sending) *sending {
	if s == nil && before == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := &sending{cancel: cancel, done: make(chan struct{})}
	if before != nil {
		before.cancel()
	}
	go func() {
		defer close(running.done)
		if before != nil {
			<-before.done
		}
		if s != nil {
			s.Run(ctx)
		}
	}()
	return running
}

// end stops the sender and waits for it. Undelivered events stay in the feed.
func (s *sending) end() {
	if s != nil {
		s.cancel()
		<-s.done
	}
}

// Stage starts a service for the demo, with one homeserver, whose keys it returns.
func Stage(ctx context.Context, cfg *config.Config, now func() time.Time) (d *Daemon, home *keyfile.Ring, err error) {
	d = &Daemon{cfg: cfg, options: &config.Options{}, log: slog.New(slog.DiscardHandler), t: &command.Terminal{Now: now}}
	if err := setup.DataDir(cfg); err != nil {
		return nil, nil, err
	}
	if d.keys, _, err = setup.KeysOrNew(cfg, now(), d.log); err != nil {
		return nil, nil, err
	}
	p := keyfile.Peer{Name: "example.org", Service: "http://" + cfg.Listen, ServiceKey: d.keys.Of(keyfile.Discharger)[0].Public}
	if home, err = keyfile.NewHomeserver(p, now()); err != nil {
		return nil, nil, err
	}
	cfg.Homeservers = []config.Homeserver{{Name: p.Name, PublicKey: home.Of(keyfile.Seal)[0].Public}}
	if err := d.start(ctx); err != nil {
		return nil, nil, err
	}
	home.Peer.Service = d.listeners.url(cfg) // its port is known now
	return d, home, nil
}
