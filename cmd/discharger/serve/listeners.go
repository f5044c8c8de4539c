package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/cmd/discharger/gatewayd"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/server"
)

// listeners are the two open ports with their servers.
type listeners struct {
	client, operators httpd.Port
	current           atomic.Pointer[server.Server] // replaced by a reload
	admin             *http.ServeMux                // paths for operators
	clientWeb         *httpd.Server
	adminWeb          *httpd.Server
	failed            chan error // of serving, that of a gateway included
}

// listen opens both ports, or takes over their sockets. Requests are answered from
// [listeners.serve] on.
func listen(ctx context.Context, cfg *config.Config, s *httpd.Sockets) (*listeners, error) {
	client, err := httpd.Listen(ctx, s, httpd.SocketClient, cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	operators, err := httpd.Listen(ctx, s, httpd.SocketAdmin, cfg.AdminListen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for operators: %w", err), client.Close())
	}
	return &listeners{client: client, operators: operators, admin: http.NewServeMux(), failed: make(chan error, 1)}, nil
}

// serve begins to answer.
func (l *listeners) serve(s *server.Server, log *slog.Logger) {
	l.current.Store(s)
	l.clientWeb = httpd.New(l.client, server.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.current.Load().Client().ServeHTTP(w, r)
	}), log))
	l.admin.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { l.current.Load().Admin().ServeHTTP(w, r) })
	l.adminWeb = httpd.New(l.operators, server.HTTPServer(l.admin, log))
	l.clientWeb.Serve(l.failed)
	l.adminWeb.Serve(l.failed)
}

// url returns the URL of the service for clients: public_url, or the bound address.
func (l *listeners) url(cfg *config.Config) string {
	return cmp.Or(cfg.PublicURL, "http://"+httpd.Dialable(l.client.Addr().String()))
}

// shutdown stops accepting requests, and waits for those in progress. /readyz is 503
// from its beginning, and is answered until the last request is done.
func (l *listeners) shutdown(timeout time.Duration) error {
	l.current.Load().Drain()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := l.clientWeb.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests did not finish in %v: %w", timeout, err), l.clientWeb.Close())
	}
	return errors.Join(err, httpd.EndAdmin(l.adminWeb))
}

// withGateway returns the configuration with the gateway of this process, if there is
// one, registered as a homeserver.
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

// startGateway starts the gateway after the service, which it needs.
func (d *Daemon) startGateway(ctx context.Context) error {
	if d.cfg.Gateway == nil {
		return nil
	}
	f, err := gatewayd.NewServer(ctx, d.cfg, d.gatewayKeys, gatewayd.Params{
		Name:       d.cfg.Gateway.Name,
		Service:    "http://" + httpd.Dialable(d.listeners.client.Addr().String()),
		ServiceKey: d.keys.Of(keyfile.Discharger)[0].Public,
		Registerer: d.parts.registry, Log: d.log, Access: d.logs.Access, Now: d.t.Now, Sockets: d.sockets,
	})
	if err != nil {
		return errors.Join(err, d.listeners.shutdown(d.cfg.ShutdownTimeout))
	}
	d.front = f
	d.listeners.admin.Handle("GET "+gatewayd.PathGatewayReady, f.Ready)
	f.Serve(d.listeners.failed)
	if err := f.CheckUpstream(ctx); err != nil {
		return errors.Join(err, d.stopGateway(), d.listeners.shutdown(d.cfg.ShutdownTimeout))
	}
	return nil
}

// stopGateway stops the gateway before the service, which it needs.
func (d *Daemon) stopGateway() error {
	if d.front == nil {
		return nil
	}
	return d.front.Shutdown(d.cfg.ShutdownTimeout)
}
