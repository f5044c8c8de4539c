package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/discharger/discharger/cmd/discharger/bench"
)

func benchSoakCommand() command {
	return command{
		name: "bench soak", args: "[flags]", about: "See whether the service lasts.",
		more: `
Sends what a day brings to a service on each store, at the same time, and restarts
them again and again: once they may finish, once they are killed. What is not
answered is sent again, as clients do.

It fails with exit code 1 if a session is refused that should not be, if a request
is never answered, or if memory, store or latency grow.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			var cfg bench.SoakConfig
			stores := f.String("store", "bolt,redis", "`stores`, separated by commas")
			f.DurationVar(&cfg.For, "for", 0, "for how `long` (default 1h)")
			f.DurationVar(&cfg.Restart, "restart", 0, "how `long` from restart to restart (default 2m)")
			f.Float64Var(&cfg.Rate, "rate", 200, "`requests` a second, to each service")
			f.IntVar(&cfg.Sessions, "sessions", 2000, "`number` of sessions of each service")
			asJSON := f.Bool("json", false, "write JSON")
			return func(ctx context.Context, _ []string) (err error) {
				for _, name := range strings.FieldsFunc(*stores, func(r rune) bool { return r == ',' }) {
					store := bench.Store(name)
					if store != bench.Bolt && store != bench.Redis {
						return usagef("bench soak: --store is bolt, redis or both")
					}
					cfg.Stores = append(cfg.Stores, store)
				}
				if cfg.For < 0 || cfg.Restart < 0 || cfg.Rate <= 0 || cfg.Sessions < 1 || cfg.Stores == nil {
					return usagef("bench soak: --rate is above 0, --sessions is 1 or more, there is a --store, and no time is below 0")
				}
				if cfg.Program, err = program(); err != nil {
					return err
				}
				cfg.Progress = t.progress()
				found, err := bench.Soak(ctx, cfg)
				if err != nil {
					return fmt.Errorf("bench soak: %w", err)
				}
				if *asJSON {
					return writeJSON(t.out, found)
				}
				return found.WriteText(t.out)
			}
		},
	}
}
