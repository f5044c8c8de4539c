package main

import (
	"context"
	"io"
	"net/http"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/discharger/wire"
)

func healthCommand() command.Command {
	return command.Command{
		Name: "health", Args: "[flags]", Short: "Print the health of a running service.",
		Example: "discharger health --config discharger.yaml --ready",
		Long:    "Calls the service at admin_listen. Exit code 3: not healthy, or no answer.",
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			address := f.String("address", "", "`host:port` of the service for operators, instead of admin_listen")
			ready := f.Bool("ready", false, "check that it can answer clients, and not only that it runs")
			timeout := f.Duration("timeout", 2*time.Second, "`duration` of the wait for an answer")
			return func(ctx context.Context, _ []string) error {
				ctx, cancel := context.WithTimeout(ctx, *timeout)
				defer cancel()
				if *address == "" {
					cfg, err := setup.LoadConfig(options)
					if err != nil {
						return err
					}
					*address = httpd.Dialable(cfg.AdminListen)
				}
				path := wire.PathHealth
				if *ready {
					path = wire.PathReady
				}
				if err := httpd.Fetch(ctx, http.MethodGet, "http://"+*address+path, "", io.Discard); err != nil {
					return err
				}
				return t.Output("", "ok")
			}
		},
	}
}
