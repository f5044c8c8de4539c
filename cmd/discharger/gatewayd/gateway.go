package gatewayd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/cmd/discharger/logging"
	"github.com/discharger/discharger/cmd/discharger/reload"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/wire"
)

// Command returns the command "gateway".
func Command() command.Command {
	return command.Command{
		Name: "gateway", Args: "--config <file>", Short: "Run a gateway before a Matrix homeserver, beside a separate service.",
		Example: "discharger gateway --config gateway.yaml",
		Long: `
Reads the same configuration file as "serve": the section gateway, admin_listen,
data_dir, trusted_proxies, shutdown_timeout and log. "discharger keys new --kind
homeserver" makes the key file, gateway.keys_file, and prints the entry for the
service's configuration.

"serve" with a section gateway runs both in one process.

SIGHUP reads the configuration, the keys and the certificates again. The log lists
the keys that changed, and those that take a restart. If a file is unusable, nothing
changes.

Sockets that systemd hands over under the names gateway and admin take the place of
the configured addresses.

/readyz, at admin_listen, is 503 if the homeserver does not answer, if the file in
data_dir cannot be written, and while the gateway stops. Without the service it is
200 and degraded: sessions go on until their discharges run out. The body has the
state of each part.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			f.Func("admin-listen", "`host:port` for operators, instead of admin_listen", setup.Setting(options, "admin_listen"))
			return func(ctx context.Context, _ []string) error { return runGateway(ctx, t, options) }
		},
	}
}

// aloneGateway is one run of the gateway command.
type aloneGateway struct {
	t       *command.Terminal
	options *config.Options

	cfg      *config.Config  // keys that take a restart have the values of the start
	files    *reload.Reading // cfg with the digests of its files
	log      *slog.Logger
	logs     logging.Loggers
	level    slog.LevelVar
	registry *prometheus.Registry
	service  string // URL
	front    *Server
	sockets  *httpd.Sockets
}

func runGateway(ctx context.Context, t *command.Terminal, o *config.Options) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	a := &aloneGateway{t: t, options: o, registry: prometheus.NewRegistry()}
	if err := a.prepare(ctx); err != nil {
		return err
	}
	defer a.logs.Flush()
	return a.serve(ctx, hangup)
}

// prepare reads configuration and keys, and makes the gateway.
func (a *aloneGateway) prepare(ctx context.Context) (err error) {
	if a.cfg, err = setup.LoadConfig(a.options); err != nil {
		return err
	}
	if a.cfg.Gateway == nil {
		return command.Mark(errors.New("the configuration has no section gateway"), command.ErrConfig)
	}
	a.level.Set(a.cfg.Log.Level)
	a.logs = logging.New(a.t.Err, a.cfg.Log.Format, &a.level)
	a.log = a.logs.Main
	ring, err := setup.GatewayKeys(a.cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return command.Mark(fmt.Errorf("no keys in %[1]s; make them, and register them with the service: "+
			"discharger keys new --kind homeserver --name %[2]s --service URL %[1]s", a.cfg.GatewayKeyFile(), a.cfg.Gateway.Name), command.ErrConfig)
	}
	if err != nil {
		return err
	}
	if err := setup.DataDir(a.cfg); err != nil {
		return err
	}
	if a.sockets, err = httpd.Inherit(a.log, httpd.SocketAdmin, httpd.SocketGateway); err != nil {
		return err
	}
	a.files = reload.New(a.cfg, reload.ScopeGateway)
	a.service = serviceURL(a.cfg, ring)
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.front, err = NewServer(ctx, a.cfg, ring, Params{
		Name: ring.Peer.Name, Service: a.service, ServiceKey: ring.Peer.ServiceKey, leeway: 5 * time.Second, Registerer: a.registry,
		Log: a.log, Access: a.logs.Access, Now: a.t.Now, Sockets: a.sockets,
	})
	return err
}

// serviceURL returns the URL of the service.
func serviceURL(cfg *config.Config, ring *keyfile.Ring) string {
	return cmp.Or(cfg.Gateway.Service, ring.Peer.Service)
}

// serve runs the gateway from start to end.
func (a *aloneGateway) serve(ctx context.Context, hangup <-chan os.Signal) error {
	l, err := httpd.Listen(ctx, a.sockets, httpd.SocketAdmin, a.cfg.AdminListen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for operators: %w", err), a.front.listener.Close(), a.front.Gateway.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathHealth, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.Handle("GET "+wire.PathReady, a.front.Ready)
	mux.Handle("GET "+PathGatewayReady, a.front.Ready)
	mux.Handle("GET "+wire.PathMetrics, promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	admin := httpd.New(l, server.HTTPServer(mux, a.log))
	failed := make(chan error, 1)
	admin.Serve(failed)
	a.front.Serve(failed)
	a.log.Info("operators", slog.String("address", "http://"+l.Addr().String()))
	if err = a.front.CheckUpstream(ctx); err == nil {
		err = httpd.Manager{Log: a.log}.Run(ctx, failed, hangup, a.reload)
		if err == nil {
			a.log.Info("draining", slog.Duration("timeout", a.cfg.ShutdownTimeout))
		}
	}
	err = errors.Join(err, a.front.Shutdown(a.cfg.ShutdownTimeout), httpd.EndAdmin(admin))
	if err == nil {
		a.log.Info("stopped")
	}
	return err
}

// reload reads the configuration and all files that it names again and applies them. If
// one is unusable, nothing changes.
func (a *aloneGateway) reload() error {
	files, diff, err := reload.Again(a.options, a.files, reload.ScopeGateway)
	if err != nil {
		return err
	}
	ring, err := setup.GatewayKeys(files.Config)
	if err != nil {
		return err
	}
	gc, err := a.front.PrepareReload(files.Config, ring, ring.Peer.ServiceKey)
	if err != nil {
		return err
	}
	if err := a.front.Gateway.Reload(gc); err != nil {
		return err
	}
	a.level.Set(files.Config.Log.Level)
	a.files, a.cfg = files, files.Config
	const keyService = "gateway.service"
	if serviceURL(files.Config, ring) != a.service && !slices.Contains(diff.Restart, keyService) {
		diff.Restart = append(diff.Restart, keyService) // as the key file has it
	}
	a.log.Info("reloaded", append([]any{slog.Int("keys", len(ring.Keys))}, diff.Attrs(a.options, files)...)...)
	return nil
}
