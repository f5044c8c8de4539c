package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"syscall"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/config/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/server"
)

func serveCommand() command {
	return command{
		name: "serve", args: "[flags]", about: "Run the service.",
		more: `
Without a configuration file it keeps keys and sessions in ./discharger-data and
knows no homeserver yet; it says what to do next. "discharger config example"
prints a file to start from.

SIGHUP reads the configuration, the keys and the policies again: homeservers,
lifetimes, keys and rules change without a pause. Rule files are also read again
when they change. What is wrong changes nothing. SIGTERM and SIGINT finish what
is under way, and end the program; a second one ends it at once.`,
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

	cfg       *config.Config
	log       *slog.Logger
	logs      logs
	level     slog.LevelVar
	keys      *keyfile.Ring
	parts     *parts
	rules     *rules
	listeners *listeners

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
		return err
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
	d.signing, err = loadOrMakeSigning(d.registered(d.cfg), d.log)
	return madeKeys, err
}

// registered is a configuration with the gateway of this process registered.
func (d *daemon) registered(cfg *config.Config) *config.Config {
	return withGateway(cfg, d.cfg.Gateway, d.gatewayKeys)
}

// start opens the store and both ports, and begins to answer.
func (d *daemon) start(ctx context.Context) (err error) {
	if d.parts, err = open(ctx, d.registered(d.cfg), d.keys, d.log, d.t.now); err != nil {
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
	srv, err := d.parts.server(d.registered(d.cfg), d.keys, d.rules, d.signing)
	if err != nil {
		return err
	}
	sender, err := d.parts.sender(d.registered(d.cfg), d.signing)
	if err != nil {
		return err
	}
	if d.listeners, err = listen(ctx, d.cfg); err != nil {
		return err
	}
	d.parts.rules.begin(d.rules)
	d.listeners.admin.Handle("POST "+pathBackup, d.backups())
	d.listeners.serve(srv, d.log)
	if err := d.startGateway(ctx); err != nil {
		return err
	}
	d.sending = send(sender)
	return nil
}

// wait returns when the service is to end, and reloads whenever it is told to.
func (d *daemon) wait(ctx context.Context, hangup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			d.log.Info("draining", slog.Duration("timeout", d.cfg.ShutdownTimeout))
			return nil
		case err := <-d.listeners.failed:
			return fmt.Errorf("serve: %w", err)
		case <-hangup:
			if err := d.reload(); err != nil {
				d.log.Error("reload failed, going on as before", slog.Any("error", err))
			}
		}
	}
}

// reload reads configuration, keys and rules again and changes over to them,
// between two requests. If anything is wrong with them, nothing changes. Audit
// logs are opened anew in any case: whoever renamed them waits for that.
func (d *daemon) reload() error {
	return errors.Join(d.parts.rules.reopen(), d.change())
}

func (d *daemon) change() error {
	cfg, err := loadConfig(d.options)
	if err != nil {
		return err
	}
	keys, err := loadKeys(cfg)
	if err != nil {
		return err
	}
	rules, err := d.parts.rules.make(cfg, d.options.File)
	if err != nil {
		d.parts.rules.metrics.ReloadRefused()
		return err
	}
	srv, sender, err := d.anew(d.registered(cfg), keys, rules)
	if err != nil {
		rules.end()
		return err
	}
	if fixed(cfg) != fixed(d.cfg) || cfg.Feed.Events != d.cfg.Feed.Events || !reflect.DeepEqual(cfg.Store, d.cfg.Store) ||
		!reflect.DeepEqual(cfg.Gateway, d.cfg.Gateway) {
		d.log.Warn("addresses, the gateway, the store, its directory and the log's format change with a restart only")
	}
	d.level.Set(cfg.Log.Level)
	d.listeners.current.Swap(srv).Drain() // ends its streams, which come back to this one
	d.sending.end()
	d.sending = send(sender)
	d.rules.end()
	d.rules = rules
	d.parts.rules.begin(rules)
	d.cfg.ShutdownTimeout = cfg.ShutdownTimeout
	d.log.Info("reloaded", slog.Int("homeservers", len(cfg.Homeservers)), slog.Int("keys", len(keys.Keys)))
	return nil
}

// anew makes what a reload puts in the place of what there is.
func (d *daemon) anew(cfg *config.Config, keys *keyfile.Ring, r *rules) (*server.Server, *secevent.Sender, error) {
	signing, err := loadOrMakeSigning(cfg, d.log)
	if err != nil {
		return nil, nil, err
	}
	sender, err := d.parts.sender(cfg, signing)
	if err != nil {
		return nil, nil, err
	}
	srv, err := d.parts.server(cfg, keys, r, signing)
	return srv, sender, err
}

// fixed is what a reload cannot change, beside the store.
func fixed(c *config.Config) [4]string {
	return [4]string{c.Listen, c.AdminListen, c.DataDir, string(c.Log.Format)}
}

// stop finishes requests and closes audit log and store.
func (d *daemon) stop() error {
	err := errors.Join(d.stopGateway(), d.listeners.shutdown(d.cfg.ShutdownTimeout))
	d.sending.end()
	d.rules.end()
	err = errors.Join(err, d.parts.rules.close(), d.parts.store.Close())
	if err == nil {
		d.log.Info("stopped")
	}
	return err
}
