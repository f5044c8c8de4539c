package main

import (
	"github.com/spf13/cobra"

	"github.com/discharger/discharger/cmd/bench/measure"
	"github.com/discharger/discharger/cmd/bench/server"
)

func newSoak(p *program) *cobra.Command {
	var cfg measure.SoakConfig
	var stores string
	var asJSON bool
	c := &cobra.Command{
		Use: "soak", Short: "Run the service under load through restarts and crashes.", Args: cobra.NoArgs,
		Long: `Run the service under load through restarts and crashes.

Sends the requests of a day to a service on each store, at the same time, and
restarts the services again and again, in turn gracefully and by killing them.
Requests without an answer are sent again, as clients do.

The exit code is 1 if a session is refused wrongly, if a request is never answered,
or if memory, store or latency grow.`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			for _, name := range list(stores) {
				store := server.Store(name)
				if store != server.Bolt && store != server.Redis {
					return usagef("soak: --store is bolt, redis or both")
				}
				cfg.Stores = append(cfg.Stores, store)
			}
			if cfg.For < 0 || cfg.Restart < 0 || cfg.Rate <= 0 || cfg.Sessions < 1 || cfg.Stores == nil {
				return usagef("soak: --rate is above 0, --sessions is 1 or more, --store is not empty, and no time is below 0")
			}
			if cfg.Program, err = p.file(c.Context()); err != nil {
				return err
			}
			cfg.Progress = progress()
			found, err := measure.Soak(c.Context(), cfg)
			if err != nil {
				return err
			}
			return write(c.OutOrStdout(), asJSON, found)
		},
	}
	f := c.Flags()
	f.StringVar(&stores, "store", "bolt,redis", "`stores`, separated by commas")
	f.DurationVar(&cfg.For, "for", 0, "`duration` of the run (default 1h)")
	f.DurationVar(&cfg.Restart, "restart", 0, "`duration` between restarts (default 2m)")
	f.Float64Var(&cfg.Rate, "rate", 200, "`requests` per second to each service")
	f.IntVar(&cfg.Sessions, "sessions", 2000, "`number` of sessions of each service")
	f.BoolVar(&asJSON, "json", false, "write JSON")
	return c
}
