// Package gatewayd runs a gateway: its port, its readiness and its reload. The
// service embeds one, and the command "gateway" runs one beside a separate service.
package gatewayd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// Server is a gateway with its port.
type Server struct {
	cfg      *config.Config // at the start
	parts    Params         // likewise
	listener httpd.Port
	Gateway  *gateway.Gateway
	Ready    *readiness
	web      *httpd.Server
	log      *slog.Logger
}

// Params are the parts of the process that a gateway uses.
type Params struct {
	Name       string           // at the service
	Service    string           // URL
	ServiceKey caveat.PublicKey //
	leeway     time.Duration
	Registerer prometheus.Registerer
	Log        *slog.Logger
	Access     *slog.Logger // for the line of each request
	Now        func() time.Time
	Sockets    *httpd.Sockets // nil: none were handed over
}

// config returns the settings of a gateway, for its start and its reloads.
func (p *Params) config(cfg *config.Config, ring *keyfile.Ring) (gc gateway.Config, err error) {
	keys := homeserver.ConfigFromRing(ring)
	gc = gateway.Config{
		Upstream: cfg.Gateway.Upstream, PublicURL: cfg.Gateway.PublicURL, Service: p.Service,
		APIKey: ring.Of(keyfile.API)[0].APIKey(), Keys: keys.Keys, Retired: keys.Retired, KeyPair: keys.KeyPair, Discharger: p.ServiceKey,
		Outbox: cfg.GatewayOutboxFile(), TrustedProxies: cfg.TrustedProxies, Leeway: p.leeway,
		Legacy: gateway.Legacy{
			Reject: cfg.Gateway.Legacy == config.LegacyReject, Until: cfg.Gateway.LegacyUntil, RejectAfterUpgrade: cfg.Gateway.RejectLegacyAfterUpgrade,
		},
		CacheBytes: cfg.Gateway.Limits.CacheMiB << 20, Limits: gatewayLimits(&cfg.Gateway.Limits),
		Reconcile: cfg.Gateway.Reconcile, ForgetAfter: cfg.Gateway.ForgetAfter, Registerer: p.Registerer, Log: p.Log, Access: p.Access,
	}.WithClock(p.Now)
	if t := cfg.Gateway.UpstreamTLS; t != nil {
		if gc.UpstreamTLS, err = t.Load(); err != nil {
			return gc, command.Mark(err, command.ErrConfig)
		}
	}
	for _, d := range cfg.Gateway.ForeignTokens {
		gc.ForeignTokens = append(gc.ForeignTokens, [sha256.Size]byte(d))
	}
	return gc, nil
}

// NewServer makes a gateway and opens its port. Requests are answered from
// [Server.Serve] on.
func NewServer(ctx context.Context, cfg *config.Config, ring *keyfile.Ring, p Params) (*Server, error) {
	gc, err := p.config(cfg, ring)
	if err != nil {
		return nil, err
	}
	l, err := httpd.Listen(ctx, p.Sockets, httpd.SocketGateway, cfg.Gateway.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for Matrix clients: %w", err)
	}
	g, err := gateway.New(gc)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Server{
		cfg: cfg, parts: p, listener: l, Gateway: g, Ready: &readiness{gateway: g, log: p.Log}, log: p.Log, web: httpd.New(l, gatewayHTTP(g, p.Log)),
	}, nil
}

// PrepareReload returns the settings for a reload, after the gateway has checked them.
func (f *Server) PrepareReload(cfg *config.Config, ring *keyfile.Ring, serviceKey caveat.PublicKey) (gateway.Config, error) {
	p := f.parts
	p.ServiceKey = serviceKey
	gc, err := p.config(cfg, ring)
	if err == nil {
		err = command.Mark(f.Gateway.CheckReload(gc), command.ErrConfig)
	}
	return gc, err
}

func gatewayLimits(l *config.GatewayLimits) admission.Limits {
	return admission.Limits{
		Requests: l.Requests, RequestsPerAddress: l.RequestsPerAddress, Lasting: l.Lasting, LastingPerAddress: l.LastingPerAddress,
	}
}

// gatewayHTTP bounds neither the time of a request nor that of an answer: a long poll
// takes minutes, and a large file longer. The gateway ends requests whose clients stall.
func gatewayHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// Serve begins to answer. The error that ends serving goes to failed.
func (f *Server) Serve(failed chan<- error) {
	f.web.Serve(failed)
	f.log.Info("gateway", slog.String("matrix", "http://"+f.listener.Addr().String()),
		slog.String("homeserver", f.cfg.Gateway.Upstream), slog.String("name", f.parts.Name))
}

// CheckUpstream returns an error if the upstream is this gateway.
func (f *Server) CheckUpstream(ctx context.Context) error {
	if err := f.Gateway.CheckUpstream(ctx); err != nil {
		return command.Mark(fmt.Errorf("gateway.upstream %s: %w", f.cfg.Gateway.Upstream, err), command.ErrConfig)
	}
	return nil
}

// Shutdown stops accepting requests, ends long polls, and waits for the other requests
// in progress. The gateway is not ready from its beginning.
func (f *Server) Shutdown(timeout time.Duration) error {
	f.Ready.draining.Store(true)
	f.Gateway.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := f.web.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		f.log.Info("shutdown timed out, cutting requests in progress")
		err = f.web.Close()
	}
	return errors.Join(err, f.Gateway.Close())
}
