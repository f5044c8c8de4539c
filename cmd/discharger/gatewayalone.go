package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/wire"
)

func gatewayCommand() command {
	return command{
		name: "gateway", args: "--config <file>", about: "Run a gateway to a Matrix homeserver, beside a separate service.",
		more: `
Reads the same configuration file as "serve", but of it only the section gateway,
admin_listen, data_dir, trusted_proxies, shutdown_timeout and log. The key file,
gateway.keys_file, is made by "discharger keys new --kind homeserver", which also
prints what to put into the service's configuration.

"serve" with a section gateway does all of this in one process.

SIGHUP reads the configuration, the keys and the certificates again. The log has the
settings that changed, and those that take a restart. If a file cannot be used,
nothing changes.

Sockets that systemd hands over under the names gateway and admin take the place of
the configured addresses.

/readyz, at admin_listen, is 503 if the homeserver does not answer, if the file in
data_dir cannot be written, and while the gateway stops. Without the service it is
200 and degraded: sessions go on until their discharges run out. The body has the
state of each part.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			f.Func("admin-listen", "`host:port` for operators, over what is configured", setting(&options, "admin_listen"))
			return func(ctx context.Context, _ []string) error { return runGateway(ctx, t, options) }
		},
	}
}

// clocksLeeway is how far the clocks of a service and of a gateway elsewhere
// may be apart.
const clocksLeeway = 5 * time.Second

// aloneGateway is one run of the gateway command.
type aloneGateway struct {
	t       *terminal
	options *config.Options

	cfg      *config.Config // keys that take a restart have the values of the start
	files    *reading       // cfg with the digests of its files
	log      *slog.Logger
	logs     logs
	level    slog.LevelVar
	registry *prometheus.Registry
	service  string // URL
	front    *front
	sockets  *sockets
}

func runGateway(ctx context.Context, t *terminal, o *config.Options) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	a := &aloneGateway{t: t, options: o, registry: prometheus.NewRegistry()}
	if err := a.prepare(ctx); err != nil {
		return err
	}
	defer a.logs.out.flush()
	return a.serve(ctx, hangup)
}

// prepare reads configuration and keys, and makes the gateway.
func (a *aloneGateway) prepare(ctx context.Context) (err error) {
	if a.cfg, err = loadConfig(a.options); err != nil {
		return err
	}
	if a.cfg.Gateway == nil {
		return mark(errors.New("there is no section gateway in the configuration"), errConfig)
	}
	a.level.Set(a.cfg.Log.Level)
	a.logs = newLogs(a.t.err, a.cfg.Log.Format, &a.level)
	a.log = a.logs.main
	ring, err := gatewayKeys(a.cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return mark(fmt.Errorf("there are no keys in %[1]s; make them, and register them with the service: "+
			"discharger keys new --kind homeserver --name %[2]s --service URL %[1]s", a.cfg.GatewayKeyFile(), a.cfg.Gateway.Name), errConfig)
	}
	if err != nil {
		return err
	}
	if _, err := prepareDataDir(a.cfg); err != nil {
		return err
	}
	if a.sockets, err = inheritSockets(a.log, socketAdmin, socketGateway); err != nil {
		return err
	}
	a.files = newReading(a.cfg, scopeGateway)
	a.service = serviceURL(a.cfg, ring)
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.front, err = newFront(ctx, a.cfg, ring, gatewayParts{
		name: ring.Peer.Name, service: a.service, serviceKey: ring.Peer.ServiceKey, leeway: clocksLeeway, registerer: a.registry,
		log: a.log, access: a.logs.access, now: a.t.now, sockets: a.sockets,
	})
	return err
}

// serviceURL is where a gateway on its own finds the service.
func serviceURL(cfg *config.Config, ring *keyfile.Ring) string {
	if cfg.Gateway.Service != "" {
		return cfg.Gateway.Service
	}
	return ring.Peer.Service
}

// serve goes through the life of a gateway on its own.
func (a *aloneGateway) serve(ctx context.Context, hangup <-chan os.Signal) error {
	l, err := openPort(ctx, a.sockets, socketAdmin, a.cfg.AdminListen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for operators: %w", err), a.front.listener.Close(), a.front.gateway.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathHealth, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.Handle("GET "+wire.PathReady, a.front.ready)
	mux.Handle("GET "+pathGatewayReady, a.front.ready)
	mux.Handle("GET "+wire.PathMetrics, promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	admin := newWeb(l, server.HTTPServer(mux, a.log))
	failed := make(chan error, 1)
	admin.serve(failed)
	a.front.serve(failed)
	a.log.Info("operators", slog.String("address", "http://"+l.Addr().String()))
	if err = a.front.checkUpstream(ctx); err == nil {
		err = a.wait(ctx, failed, hangup)
	}
	err = errors.Join(err, a.front.shutdown(a.cfg.ShutdownTimeout), endAdmin(admin))
	if err == nil {
		a.log.Info("stopped")
	}
	return err
}

// wait returns when the gateway is to end, and reloads at every SIGHUP.
func (a *aloneGateway) wait(ctx context.Context, failed <-chan error, hangup <-chan os.Signal) error {
	m := manager{a.log}
	m.ready()
	defer m.stopping()
	for {
		select {
		case <-ctx.Done():
			a.log.Info("draining", slog.Duration("timeout", a.cfg.ShutdownTimeout))
			return nil
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case <-hangup:
			m.reloading()
			if err := a.reload(); err != nil {
				a.log.Error("reload failed, going on as before", slog.Any("error", err))
			}
			m.ready()
		}
	}
}

// reload reads the configuration and all that it names again and changes over to
// it. If anything is wrong with it, nothing changes.
func (a *aloneGateway) reload() error {
	files, diff, err := reread(a.options, a.files, scopeGateway)
	if err != nil {
		return err
	}
	ring, err := gatewayKeys(files.cfg)
	if err != nil {
		return err
	}
	gc, err := a.front.prepareReload(files.cfg, ring, ring.Peer.ServiceKey)
	if err != nil {
		return err
	}
	if err := a.front.gateway.Reload(gc); err != nil {
		return err
	}
	a.level.Set(files.cfg.Log.Level)
	a.files, a.cfg = files, files.cfg
	const keyService = "gateway.service"
	if serviceURL(files.cfg, ring) != a.service && !slices.Contains(diff.restart, keyService) {
		diff.restart = append(diff.restart, keyService) // as the key file has it
	}
	a.log.Info("reloaded", append([]any{slog.Int("keys", len(ring.Keys))}, diff.attrs(a.options, files)...)...)
	return nil
}
