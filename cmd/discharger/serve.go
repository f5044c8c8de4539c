package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

func serveCommand() command {
	return command{
		name: "serve", args: "[flags]", about: "Run the service.",
		more: `
Without a configuration file it keeps keys and sessions in ./discharger-data and
knows no homeserver yet; it says what to do next. "discharger config example"
prints a file to start from.

SIGHUP reads the configuration and every file that it names again: homeservers,
lifetimes, keys, rules, passwords, certificates and most settings of the gateway
change without a pause. The log has the settings that changed, and those that take
a restart. Rule files are also read again when they change. If a file cannot be
used, nothing changes. SIGTERM and SIGINT finish the requests under way and end the
program; a second one ends it at once.

Sockets that systemd hands over under the names client, admin and gateway take the
place of the configured addresses: a restart then refuses no connection.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			d := daemon{t: t}
			d.options = configFlags(t, f)
			f.Func("listen", "`host:port` for clients, over what is configured", setting(&d.options, "listen"))
			f.Func("admin-listen", "`host:port` for operators, over what is configured", setting(&d.options, "admin_listen"))
			f.BoolVar(&d.acceptLoss, "accept-loss", false, "go on although the store has lost its data: sessions in it are over, "+
				"and logouts that the journal does not have forgotten; for one start")
			return func(ctx context.Context, _ []string) error { return d.run(ctx) }
		},
	}
}

// configFlags declares the flag that names the configuration file.
func configFlags(t *terminal, f *flag.FlagSet) *config.Options {
	o := &config.Options{LookupEnv: t.lookupEnv, Flags: make(map[string]string)}
	f.StringVar(&o.File, "config", t.env("DISCHARGER_CONFIG", ""), "configuration `file`; or $DISCHARGER_CONFIG")
	return o
}

func setting(o **config.Options, key string) func(string) error {
	return func(text string) error {
		(*o).Flags[key] = text
		return nil
	}
}

// loadConfig reads the configuration. One that is not there cannot be used.
func loadConfig(o *config.Options) (*config.Config, error) {
	cfg, err := config.Load(*o)
	return cfg, mark(err, errConfig)
}

// daemon is one run of the serve command.
type daemon struct {
	t          *terminal
	options    *config.Options
	acceptLoss bool

	cfg       *config.Config // keys that take a restart have the values of the start
	files     *reading       // cfg with the digests of its files
	log       *slog.Logger
	logs      logs
	level     slog.LevelVar
	keys      *keyfile.Ring
	parts     *parts
	rules     *rules
	listeners *listeners

	sockets     *sockets
	gatewayKeys *keyfile.Ring // nil: there is no gateway
	front       *front

	signing *secevent.Keys // nil: nobody is told what is revoked
	sending *sending
}

// run goes through the life of the service.
func (d *daemon) run(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	d.t.spendMemory()
	made, err := d.prepare()
	if err != nil {
		return explainKeys(err, d.cfg, d.options)
	}
	defer d.logs.out.flush()
	if err := d.start(ctx); err != nil {
		return err
	}
	d.announce(made)
	err = d.wait(ctx, hangup)
	return errors.Join(err, d.stop())
}

// gcPercent is how much the heap may grow, in percent of what is in use, before
// it is collected. Little is in use here, and much of it for one request only:
// collecting a quarter as often as Go does saves a tenth of a request's cost and
// takes some 30 MB.
const gcPercent = 400

// spendMemory sets the above, unless Go's own variables say something.
func (t *terminal) spendMemory() {
	if t.env("GOGC", "") == "" && t.env("GOMEMLIMIT", "") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// prepare reads configuration and keys, making the keys if there are none.
func (d *daemon) prepare() (madeKeys bool, err error) {
	if d.cfg, err = loadConfig(d.options); err != nil {
		return false, err
	}
	d.level.Set(d.cfg.Log.Level)
	d.logs = newLogs(d.t.err, d.cfg.Log.Format, &d.level)
	d.log = d.logs.main
	if _, err := prepareDataDir(d.cfg); err != nil {
		return false, err
	}
	d.keys, madeKeys, err = loadOrMakeKeys(d.cfg, d.t.now())
	if madeKeys {
		d.log.Info("made keys", slog.String("file", d.cfg.KeyFile()), slog.String("mode", "0600"))
	}
	if err != nil {
		return madeKeys, err
	}
	if err := d.prepareGateway(); err != nil {
		return madeKeys, err
	}
	if d.sockets, err = d.inheritSockets(); err != nil {
		return madeKeys, err
	}
	d.signing, err = loadOrMakeSigning(d.registered(), d.log)
	d.files = newReading(d.cfg, scopeServe)
	return madeKeys, err
}

// inheritSockets takes over what a service manager listens at for this service.
func (d *daemon) inheritSockets() (*sockets, error) {
	names := []string{socketClient, socketAdmin}
	if d.cfg.Gateway != nil {
		names = append(names, socketGateway)
	}
	return inheritSockets(d.log, names...)
}

// registered is the configuration with the gateway of this process registered.
func (d *daemon) registered() *config.Config { return withGateway(d.cfg, d.gatewayKeys) }

// start opens the store and both ports, and begins to answer.
func (d *daemon) start(ctx context.Context) (err error) {
	if d.parts, err = open(ctx, d.registered(), d.keys, d.log, d.t.now); err != nil {
		return err
	}
	d.parts.access = d.logs.access
	defer func() {
		if err != nil {
			err = errors.Join(err, d.parts.store.Close())
		}
	}()
	if d.acceptLoss {
		if err := d.parts.store.AcceptLoss(ctx); err != nil {
			return mark(err, errUnavailable)
		}
	}
	if err := d.parts.store.Ready(ctx); err != nil {
		d.log.Error("store is not ready", slog.Any("error", err))
	}
	if d.rules, err = d.parts.rules.make(d.cfg, d.options.File); err != nil {
		return err
	}
	srv, err := d.parts.server(d.registered(), d.keys, d.rules, d.signing)
	if err != nil {
		return err
	}
	sender, err := d.parts.sender(d.registered(), d.signing)
	if err != nil {
		return err
	}
	if d.listeners, err = listen(ctx, d.cfg, d.sockets); err != nil {
		return err
	}
	d.parts.rules.begin(d.rules)
	d.listeners.admin.Handle("POST "+pathBackup, d.backups())
	d.listeners.serve(srv, d.log)
	if err := d.startGateway(ctx); err != nil {
		return err
	}
	d.sending = send(sender, nil)
	return nil
}

// wait returns when the service is to end, and reloads whenever it is told to.
func (d *daemon) wait(ctx context.Context, hangup <-chan os.Signal) error {
	m := manager{d.log}
	m.ready()
	defer m.stopping()
	for {
		select {
		case <-ctx.Done():
			d.log.Info("draining", slog.Duration("timeout", d.cfg.ShutdownTimeout))
			return nil
		case err := <-d.listeners.failed:
			return fmt.Errorf("serve: %w", err)
		case <-hangup:
			m.reloading()
			if err := d.reload(); err != nil {
				d.log.Error("reload failed, going on as before", slog.Any("error", err))
			}
			m.ready()
		}
	}
}

// stop finishes requests and closes audit log and store.
func (d *daemon) stop() error {
	begun := time.Now()
	err := d.stopGateway()
	timeout := d.cfg.ShutdownTimeout
	if d.front != nil {
		timeout = max(timeout-time.Since(begun), time.Second)
	}
	err = errors.Join(err, d.listeners.shutdown(timeout))
	d.sending.end()
	d.rules.end()
	err = errors.Join(err, d.parts.rules.close(), d.parts.store.Close())
	if err == nil {
		d.log.Info("stopped")
	}
	return err
}
