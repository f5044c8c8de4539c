package serve

import (
	"context"
	"errors"

	"github.com/discharger/discharger/cmd/discharger/gatewayd"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

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
