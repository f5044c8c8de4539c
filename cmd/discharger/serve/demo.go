package serve

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

// Stage starts a service for the demo, with one homeserver, whose keys it returns.
func Stage(ctx context.Context, cfg *config.Config, now func() time.Time) (d *Daemon, home *keyfile.Ring, err error) {
	d = &Daemon{cfg: cfg, log: slog.New(slog.DiscardHandler), t: &command.Terminal{Now: now}}
	home, err = d.stage(ctx)
	return d, home, err
}

func (d *Daemon) stage(ctx context.Context) (home *keyfile.Ring, err error) {
	if _, err := setup.DataDir(d.cfg); err != nil {
		return nil, err
	}
	if d.keys, _, err = setup.KeysOrNew(d.cfg, d.t.Now()); err != nil {
		return nil, err
	}
	if d.parts, err = open(ctx, d.cfg, d.keys, d.log, d.t.Now); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.parts.store.Close())
		}
	}()
	l, err := listen(ctx, d.cfg, nil)
	if err != nil {
		return nil, err
	}
	home, err = keyfile.NewHomeserver(keyfile.Peer{
		Name: "example.org", Service: l.url(d.cfg), ServiceKey: d.keys.Of(keyfile.Discharger)[0].Public,
	}, d.t.Now())
	if err != nil {
		return nil, errors.Join(err, l.client.Close(), l.operators.Close())
	}
	d.cfg.Homeservers = []config.Homeserver{{Name: home.Peer.Name, PublicKey: home.Of(keyfile.Seal)[0].Public}}
	if d.rules, err = d.parts.rules.Load(d.cfg, ""); err != nil {
		return nil, errors.Join(err, l.client.Close(), l.operators.Close())
	}
	srv, err := d.parts.server(d.cfg, d.keys, d.rules, nil)
	if err != nil {
		return nil, errors.Join(err, l.client.Close(), l.operators.Close())
	}
	d.parts.rules.Begin(d.rules)
	d.listeners = l
	l.serve(srv, d.log)
	return home, nil
}
