package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/server"
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

/readyz, at admin_listen, is 503 if the homeserver does not answer, if the file in
data_dir cannot be written, and while the gateway stops. Without the service it is
200: what has a discharge goes on. The body says how each of them is.`,
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

func runGateway(ctx context.Context, t *terminal, o *config.Options) error {
	cfg, err := loadConfig(o)
	if err != nil {
		return err
	}
	if cfg.Gateway == nil {
		return mark(errors.New("there is no section gateway in the configuration"), errConfig)
	}
	level := new(slog.LevelVar)
	level.Set(cfg.Log.Level)
	logs := newLogs(t.err, cfg.Log.Format, level)
	defer logs.out.flush()
	log := logs.main
	ring, err := gatewayKeys(cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return mark(fmt.Errorf("there are no keys in %[1]s; make them, and register them with the service: "+
			"discharger keys new --kind homeserver --name %[2]s --service URL %[1]s", cfg.GatewayKeyFile(), cfg.Gateway.Name), errConfig)
	}
	if err != nil {
		return err
	}
	if _, err := prepareDataDir(cfg); err != nil {
		return err
	}
	service := cfg.Gateway.Service
	if service == "" {
		service = ring.Peer.Service
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	f, err := newFront(ctx, cfg, ring, gatewayParts{
		service: service, serviceKey: ring.Peer.ServiceKey, leeway: clocksLeeway, registerer: registry, log: log, access: logs.access, now: t.now,
	})
	if err != nil {
		return err
	}
	return serveGateway(ctx, cfg, f, registry, log)
}

// serveGateway goes through the life of a gateway on its own.
func serveGateway(ctx context.Context, cfg *config.Config, f *front, registry *prometheus.Registry, log *slog.Logger) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.AdminListen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for operators: %w", err), f.listener.Close(), f.gateway.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathHealth, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.Handle("GET "+api.PathReady, f.ready)
	mux.Handle("GET "+pathGatewayReady, f.ready)
	mux.Handle("GET "+api.PathMetrics, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	admin := server.HTTPServer(mux, log)
	failed := make(chan error, 2)
	go func() { failed <- admin.Serve(l) }()
	f.serve(failed)
	log.Info("operators", slog.String("address", "http://"+l.Addr().String()))
	select {
	case <-ctx.Done():
		log.Info("draining", slog.Duration("timeout", cfg.ShutdownTimeout))
		err = nil
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	}
	err = errors.Join(err, f.shutdown(cfg.ShutdownTimeout), admin.Close())
	if err == nil {
		log.Info("stopped")
	}
	return err
}
