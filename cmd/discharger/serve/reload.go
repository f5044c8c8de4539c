package serve

import (
	"fmt"
	"log/slog"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/reload"
	"github.com/discharger/discharger/cmd/discharger/ruleset"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/cmd/discharger/storage"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/gateway"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/store/redis/conn"
)

// reload reads the configuration and all files that it names again and applies them
// between two requests. If one is unusable, nothing changes. Audit logs are opened again
// in any case, since a rotated file must be released.
func (d *Daemon) reload() error {
	if err := d.parts.rules.Reopen(); err != nil {
		d.log.Error("audit log cannot be reopened, writing to the old file", slog.Any("error", err))
	}
	return d.change()
}

func (d *Daemon) change() error {
	files, diff, err := reload.Again(d.options, d.files, reload.ScopeServe)
	if err != nil {
		return err
	}
	n, err := d.prepareReload(files)
	if err != nil {
		return err
	}
	if err := d.apply(n); err != nil {
		return err
	}
	d.log.Info("reloaded", append([]any{
		slog.Int("homeservers", len(d.registered().Homeservers)), slog.Int("keys", len(d.keys.Keys)),
	}, diff.Attrs(d.options, files)...)...)
	return nil
}

// next holds the replacements that a reload applies.
type next struct {
	files       *reload.Reading
	keys        *keyfile.Ring
	gatewayKeys *keyfile.Ring  // nil: there is no gateway
	gateway     gateway.Config // zero: likewise
	redis       *conn.Access
	signing     *secevent.Keys
	rules       *ruleset.Rules
	sender      *secevent.Sender
	server      *server.Server
}

// prepareReload makes all replacements, so that nothing can fail afterwards.
func (d *Daemon) prepareReload(files *reload.Reading) (n *next, err error) {
	n = &next{files: files}
	cfg := files.Config
	if n.keys, err = setup.Keys(cfg); err != nil {
		return nil, err
	}
	if n.keys.Of(keyfile.Store)[0].Secret() != d.keys.Of(keyfile.Store)[0].Secret() {
		return nil, command.Mark(fmt.Errorf("key file %s: the key of kind store has changed, and no session would be found with it", cfg.KeyFile()), command.ErrConfig)
	}
	if r := cfg.Store.Redis; r != nil {
		access, err := storage.RedisAccess(r)
		if err != nil {
			return nil, command.Mark(err, command.ErrConfig)
		}
		n.redis = &access
	}
	if d.front != nil {
		if n.gatewayKeys, err = setup.GatewayKeys(cfg); err != nil {
			return nil, err
		}
		if n.gateway, err = d.front.PrepareReload(cfg, n.gatewayKeys, n.keys.Of(keyfile.Discharger)[0].Public); err != nil {
			return nil, err
		}
	}
	if n.rules, err = d.parts.rules.Load(cfg, d.options.File); err != nil {
		d.parts.rules.Metrics.ReloadRefused()
		return nil, err
	}
	if err := d.prepareService(cfg, n); err != nil {
		n.rules.End()
		return nil, err
	}
	return n, nil
}

// prepareService makes the server and the sender of security events.
func (d *Daemon) prepareService(cfg *config.Config, n *next) (err error) {
	if n.signing, err = setup.SigningOrNew(cfg, d.log); err != nil {
		return err
	}
	if n.sender, err = d.parts.sender(cfg, n.signing); err != nil {
		return err
	}
	n.server, err = d.parts.server(withGateway(cfg, n.gatewayKeys), n.keys, n.rules, n.signing)
	return err
}

// apply changes over. The service comes before the gateway, whose new keys it has
// to know first.
func (d *Daemon) apply(n *next) error {
	if s := d.parts.store.Redis; s != nil {
		s.SetAccess(*n.redis)
	}
	d.level.Set(n.files.Config.Log.Level)
	n.server.Succeed() // streams of the feed go on
	d.listeners.current.Store(n.server)
	d.sending = send(n.sender, d.sending)
	d.rules.End()
	d.rules = n.rules
	d.parts.rules.Begin(n.rules)
	d.files, d.cfg, d.keys, d.gatewayKeys, d.signing = n.files, n.files.Config, n.keys, n.gatewayKeys, n.signing
	if d.front == nil {
		return nil
	}
	return d.front.Gateway.Reload(n.gateway)
}
