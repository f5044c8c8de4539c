package serve

import (
	"context"
	"log/slog"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

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
