package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/discharger/discharger/config/keyfile"
)

// prepareGateway reads the gateway's keys, making them if there are none, and
// registers it with the service of this process. Operators use its key file too,
// to list and revoke sessions.
func (d *daemon) prepareGateway() error {
	if d.cfg.Gateway == nil {
		return nil
	}
	service := "http://" + dialable(d.cfg.Listen)
	if d.cfg.PublicURL != "" {
		service = d.cfg.PublicURL
	}
	ring, made, err := gatewayKeysOrNew(d.cfg, keyfile.Peer{
		Name: d.cfg.Gateway.Name, Service: service, ServiceKey: d.keys.Of(keyfile.Discharger)[0].Public,
	}, d.t.now())
	if err != nil {
		return err
	}
	if made {
		d.log.Info("made the gateway's keys", slog.String("file", d.cfg.GatewayKeyFile()), slog.String("mode", "0600"))
	}
	d.gatewayKeys = ring
	return nil
}

// startGateway begins to answer Matrix clients, once the service answers.
func (d *daemon) startGateway(ctx context.Context) error {
	if d.cfg.Gateway == nil {
		return nil
	}
	f, err := newFront(ctx, d.cfg, d.gatewayKeys, gatewayParts{
		service:    "http://" + dialable(d.listeners.client.Addr().String()),
		serviceKey: d.keys.Of(keyfile.Discharger)[0].Public,
		registerer: d.parts.registry, log: d.log, access: d.logs.access, now: d.t.now,
	})
	if err != nil {
		return errors.Join(err, d.listeners.shutdown(d.cfg.ShutdownTimeout))
	}
	d.front = f
	d.listeners.admin.Handle("GET "+pathGatewayReady, f.ready)
	f.serve(d.listeners.failed)
	return nil
}

// stopGateway comes before the service stops, which it needs until then.
func (d *daemon) stopGateway() error {
	if d.front == nil {
		return nil
	}
	return d.front.shutdown(d.cfg.ShutdownTimeout)
}
