package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

// prepareGateway reads the gateway's keys, making them if there are none, and
// registers it with the service of this process. Operators use its key file too,
// to list and revoke sessions.
func (d *daemon) prepareGateway() error {
	if d.cfg.Gateway == nil {
		return nil
	}
	ring, made, err := gatewayKeysOrNew(d.cfg, gatewayPeer(d.cfg, d.keys), d.t.now())
	if err != nil {
		return err
	}
	if made {
		d.log.Info("made the gateway's keys", slog.String("file", d.cfg.GatewayKeyFile()), slog.String("mode", "0600"))
	}
	d.gatewayKeys = ring
	return nil
}

// gatewayPeer is the service as a gateway's key file describes it.
func gatewayPeer(cfg *config.Config, keys *keyfile.Ring) keyfile.Peer {
	service := "http://" + dialable(cfg.Listen)
	if cfg.PublicURL != "" {
		service = cfg.PublicURL
	}
	return keyfile.Peer{Name: cfg.Gateway.Name, Service: service, ServiceKey: keys.Of(keyfile.Discharger)[0].Public}
}

// startGateway begins to answer Matrix clients, once the service answers.
func (d *daemon) startGateway(ctx context.Context) error {
	if d.cfg.Gateway == nil {
		return nil
	}
	f, err := newFront(ctx, d.cfg, d.gatewayKeys, gatewayParts{
		name:       d.cfg.Gateway.Name,
		service:    "http://" + dialable(d.listeners.client.Addr().String()),
		serviceKey: d.keys.Of(keyfile.Discharger)[0].Public,
		registerer: d.parts.registry, log: d.log, access: d.logs.access, now: d.t.now, sockets: d.sockets,
	})
	if err != nil {
		return errors.Join(err, d.listeners.shutdown(d.cfg.ShutdownTimeout))
	}
	d.front = f
	d.listeners.admin.Handle("GET "+pathGatewayReady, f.ready)
	f.serve(d.listeners.failed)
	if err := f.checkUpstream(ctx); err != nil {
		return errors.Join(err, d.stopGateway(), d.listeners.shutdown(d.cfg.ShutdownTimeout))
	}
	return nil
}

// stopGateway comes before the service stops, which it needs until then.
func (d *daemon) stopGateway() error {
	if d.front == nil {
		return nil
	}
	return d.front.shutdown(d.cfg.ShutdownTimeout)
}
