// Package serve runs the service: the command "serve".
//
// The process goes through five steps: it prepares configuration, keys and sockets;
// starts store, rules, server, gateway and sender; waits for a signal; reloads at SIGHUP;
// and stops in the reverse order of the start. A reload makes all replacements before it
// applies the first one, so that a file that cannot be used changes nothing.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/backup"
	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/gatewayd"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/cmd/discharger/logging"
	"github.com/discharger/discharger/cmd/discharger/reload"
	"github.com/discharger/discharger/cmd/discharger/ruleset"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

// Command returns the command "serve".
func Command() command.Command {
	return command.Command{
		Name: "serve", Args: "[flags]", Short: "Run the service.",
		Example: "discharger serve --config discharger.yaml",
		Long: `
Without a configuration file it keeps keys and sessions in ./discharger-data and
has no homeserver yet, and prints the next steps. "discharger config example" prints
a file to start from.

SIGHUP reads the configuration and every file that it names again: homeservers,
lifetimes, keys, rules, passwords, certificates and most settings of the gateway
change without a pause. The log lists the keys that changed, and those that take a
restart. Rule files are also read again when they change. If a file is unusable,
nothing changes. SIGTERM and SIGINT finish the requests in progress and end the
program; a second one ends it at once.

Sockets that systemd hands over under the names client, admin and gateway take the
place of the configured addresses: a restart then refuses no connection.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			d := Daemon{t: t}
			d.options = setup.ConfigFlags(t, f)
			f.Func("listen", "`host:port` for clients, instead of listen", setup.Setting(d.options, "listen"))
			f.Func("admin-listen", "`host:port` for operators, instead of admin_listen", setup.Setting(d.options, "admin_listen"))
			f.BoolVar(&d.acceptLoss, "accept-loss", false, "start although the store has lost its data, once: its sessions have ended, "+
				"and revocations that are not in the journal are lost")
			return func(ctx context.Context, _ []string) error { return d.run(ctx) }
		},
	}
}

// Daemon is one run of the service.
type Daemon struct {
	t          *command.Terminal
	options    *config.Options
	acceptLoss bool

	cfg       *config.Config  // keys that take a restart have the values of the start
	files     *reload.Reading // cfg with the digests of its files
	log       *slog.Logger
	logs      logging.Loggers
	level     slog.LevelVar
	keys      *keyfile.Ring
	parts     *parts
	rules     *ruleset.Rules
	listeners *listeners

	sockets     *httpd.Sockets
	gatewayKeys *keyfile.Ring // nil: there is no gateway
	front       *gatewayd.Server

	signing *secevent.Keys // nil: no receivers
	sending *sending
}

// run runs the service from start to end.
func (d *Daemon) run(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	spendMemory(d.t)
	made, err := d.prepare()
	if err != nil {
		return setup.ExplainKeys(err, d.cfg, d.options)
	}
	defer d.logs.Flush()
	if err := d.start(ctx); err != nil {
		return err
	}
	d.announce(made)
	err = httpd.Manager{Log: d.log}.Run(ctx, d.listeners.failed, hangup, d.reload)
	if err == nil {
		d.log.Info("draining", slog.Duration("timeout", d.cfg.ShutdownTimeout))
	}
	return errors.Join(err, d.Stop())
}

// spendMemory lets the heap grow further before a garbage collection, unless Go's own
// variables are set. The heap is small, and most of it lives for one request: a quarter
// of the default's collections saves a tenth of a request's cost and takes some 30 MB.
func spendMemory(t *command.Terminal) {
	if t.Env("GOGC", "") == "" && t.Env("GOMEMLIMIT", "") == "" {
		debug.SetGCPercent(400)
	}
}

// prepare reads configuration and keys, and makes missing keys.
func (d *Daemon) prepare() (madeKeys bool, err error) {
	if d.cfg, err = setup.LoadConfig(d.options); err != nil {
		return false, err
	}
	d.level.Set(d.cfg.Log.Level)
	d.logs = logging.New(d.t.Err, d.cfg.Log.Format, &d.level)
	d.log = d.logs.Main
	if err := setup.DataDir(d.cfg); err != nil {
		return false, err
	}
	if d.keys, madeKeys, err = setup.KeysOrNew(d.cfg, d.t.Now(), d.log); err != nil {
		return madeKeys, err
	}
	sockets := []string{httpd.SocketClient, httpd.SocketAdmin}
	if d.cfg.Gateway != nil {
		sockets = append(sockets, httpd.SocketGateway)
		if d.gatewayKeys, err = setup.GatewayKeysOrNew(d.cfg, d.keys, d.t.Now(), d.log); err != nil {
			return madeKeys, err
		}
	}
	if d.sockets, err = httpd.Inherit(d.log, sockets...); err != nil {
		return madeKeys, err
	}
	d.signing, err = setup.SigningOrNew(d.cfg, d.log)
	d.files = reload.New(d.cfg, reload.ScopeServe)
	return madeKeys, err
}

// registered returns the configuration with the gateway of this process as a homeserver.
func (d *Daemon) registered() *config.Config { return withGateway(d.cfg, d.gatewayKeys) }

// start opens the store and both ports, and begins to answer.
func (d *Daemon) start(ctx context.Context) (err error) {
	if d.parts, err = open(ctx, d.registered(), d.keys, d.log, d.t.Now); err != nil {
		return err
	}
	d.parts.access = d.logs.Access
	defer func() {
		if err != nil {
			err = errors.Join(err, d.parts.store.Close())
		}
	}()
	if d.acceptLoss {
		if err := d.parts.store.AcceptLoss(ctx); err != nil {
			return command.Mark(err, command.ErrUnavailable)
		}
	}
	if err := d.parts.store.Ready(ctx); err != nil {
		d.log.Error("store is not ready", slog.Any("error", err))
	}
	if d.rules, err = d.parts.rules.Load(d.cfg, d.options.File); err != nil {
		return err
	}
	srv, err := d.parts.server(d.registered(), d.keys, d.rules, d.signing)
	if err != nil {
		return err
	}
	sender, err := d.parts.sender(d.cfg, d.signing)
	if err != nil {
		return err
	}
	if d.listeners, err = listen(ctx, d.cfg, d.sockets); err != nil {
		return err
	}
	d.parts.rules.Begin(d.rules)
	d.listeners.admin.Handle("POST "+backup.PathBackup, backup.Handler(d.cfg, d.keys, d.parts.store, d.log))
	d.listeners.serve(srv, d.log)
	if err := d.startGateway(ctx); err != nil {
		return err
	}
	d.sending = send(sender, nil)
	return nil
}

// Stop finishes requests and closes audit log and store.
func (d *Daemon) Stop() error {
	begun := time.Now()
	err := d.stopGateway()
	timeout := d.cfg.ShutdownTimeout
	if d.front != nil {
		timeout = max(timeout-time.Since(begun), time.Second)
	}
	err = errors.Join(err, d.listeners.shutdown(timeout))
	d.sending.end()
	d.rules.End()
	err = errors.Join(err, d.parts.rules.Close(), d.parts.store.Close())
	if err == nil {
		d.log.Info("stopped")
	}
	return err
}

// announce logs that the service is up. Without a configuration file it also prints the
// paths, the files and the next steps.
func (d *Daemon) announce(madeKeys bool) {
	url := d.listeners.url(d.cfg)
	d.log.Info("listening",
		slog.String("clients", "http://"+d.listeners.client.Addr().String()),
		slog.String("operators", "http://"+d.listeners.operators.Addr().String()),
		slog.String("public_url", url), slog.Int("homeservers", len(d.registered().Homeservers)))
	if d.options.File != "" {
		return
	}
	keysAre := "read from"
	if madeKeys {
		keysAre = "new:"
	}
	store := d.cfg.BoltFile()
	if d.cfg.Store.Redis != nil {
		store = fmt.Sprint("Redis at ", d.cfg.Store.Redis.Addresses)
	}
	fmt.Fprintf(d.t.Err, welcome, url, d.listeners.operators.Addr(), keysAre, d.cfg.KeyFile(), store,
		d.keys.Of(keyfile.Discharger)[0].Public)
}

const welcome = `
discharger runs at %[1]s, without a configuration file.

  operators     http://%[2]s/metrics, /healthz, /readyz
  keys          %[3]s %[4]s
  sessions      %[5]s
  public key    %[6]s

No homeserver is registered, so nothing is discharged yet.

To watch a session from login to logout, without this service:

    discharger demo

To register a homeserver and be its client, in another terminal:

    discharger keys new --kind homeserver --name example.org --service %[1]s homeserver.json > discharger.yaml
    # stop this one with ^C, and start it again with: discharger serve --config discharger.yaml
    discharger mint --key homeserver.json --user @alice:example.org > access
    discharger discharge --service %[1]s -o alice.json access
    discharger verify --key homeserver.json alice.json
    discharger refresh alice.json
    discharger logout alice.json

Programs in other languages use HTTP:

    curl %[1]s/discharge/info

`
