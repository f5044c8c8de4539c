// Package gatewayd runs a gateway: its port, its readiness and its reload. The
// service embeds one, and the command "gateway" runs one beside a separate service.
package gatewayd

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
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
	"github.com/discharger/discharger/discharger/wire"
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
	Name       string // at the service
	Service    string // URL
	ServiceKey caveat.PublicKey
	leeway     time.Duration // between the clocks of service and gateway
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
		Upstream: cfg.Gateway.Upstream, PublicURL: cfg.Gateway.PublicURL, ServiceURL: p.Service,
		APIKey: ring.Of(keyfile.API)[0].APIKey(), Keys: keys.Keys, Retired: keys.Retired, KeyPair: keys.KeyPair, Discharger: p.ServiceKey,
		Outbox: cfg.GatewayOutboxFile(), TrustedProxies: cfg.TrustedProxies, Leeway: p.leeway,
		Legacy: gateway.Legacy{
			Reject: cfg.Gateway.Legacy == config.LegacyReject, Until: cfg.Gateway.LegacyUntil, RejectAfterUpgrade: cfg.Gateway.RejectLegacyAfterUpgrade,
		},
		CacheBytes: cfg.Gateway.Limits.CacheMiB << 20,
		Limits: admission.Limits{
			Requests: cfg.Gateway.Limits.Requests, RequestsPerAddress: cfg.Gateway.Limits.RequestsPerAddress,
			Lasting: cfg.Gateway.Limits.Lasting, LastingPerAddress: cfg.Gateway.Limits.LastingPerAddress,
		},
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

// PathGatewayReady is the path of a gateway's readiness, at admin_listen of its process.
// A gateway beside a separate service has it at /readyz too.
const PathGatewayReady = wire.PathReady + "/gateway"

// readiness answers 200 if the gateway takes requests, and 503 if they should go to
// another one. The body has the state of each part. Without the service the gateway is
// degraded and still takes requests: sessions with a discharge go on, and the other
// gateways have the same service.
type readiness struct {
	gateway  *gateway.Gateway
	draining atomic.Bool
	log      *slog.Logger
}

// readyBody is the body of the answer.
type readyBody struct {
	Status     string `json:"status"`     // ready, degraded, not ready or draining
	Homeserver string `json:"homeserver"` // these are ok or a problem
	File       string `json:"gateway_db"` // whether gateway.db in data_dir can be written
	Service    string `json:"service"`
}

// ServeHTTP checks the parts and answers.
func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := r.gateway.Health(req.Context())
	body := readyBody{"ready", partStatus(h.Homeserver), partStatus(h.Outbox), partStatus(h.Service)}
	code := http.StatusOK
	switch {
	case r.draining.Load():
		body.Status, code = "draining", http.StatusServiceUnavailable
	case !h.Ready():
		body.Status, code = "not ready", http.StatusServiceUnavailable
		r.log.WarnContext(req.Context(), "not ready", slog.String("homeserver", body.Homeserver), slog.String("gateway_db", body.File))
	case h.Service != nil:
		body.Status = "degraded"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}

func partStatus(problem error) string {
	if problem != nil {
		return problem.Error()
	}
	return "ok"
}
