package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"github.com/discharger/discharger/cmd/discharger/bench"
)

func benchNumbersCommand() command {
	return command{
		name: "bench numbers", args: "[flags]", about: "Measure everything that has a bound.",
		more: `
Each number beside what it is compared with, in alternating rounds of one run, and
whether it holds: the median of the rounds, with the smallest and the largest.
It takes some minutes, and needs redis-server. Without --fosite one of the numbers
is not measured. Exit code 0 says that the rest was, not that everything holds.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			var cfg bench.NumbersConfig
			f.DurationVar(&cfg.For, "for", 0, "how `long` a round takes (default 2s)")
			f.IntVar(&cfg.Rounds, "rounds", 5, "`number` of rounds; twice as many, and at least 10, for latency")
			f.IntVar(&cfg.Sessions, "sessions", 30_000, "`number` of sessions, to see what memory one takes")
			fositeFlag(f, &cfg.Fosite)
			asJSON := f.Bool("json", false, "write JSON")
			return func(ctx context.Context, _ []string) (err error) {
				if cfg.For < 0 || cfg.Rounds < 1 || cfg.Sessions < 1 {
					return usagef("bench numbers: --rounds and --sessions are 1 or more, and --for is not below 0")
				}
				if cfg.Program, err = program(); err != nil {
					return err
				}
				cfg.Progress = t.progress()
				found, err := bench.MeasureNumbers(ctx, cfg)
				if err != nil {
					return fmt.Errorf("bench numbers: %w", err)
				}
				if *asJSON {
					return writeJSON(t.out, found)
				}
				return found.WriteText(t.out)
			}
		},
	}
}

// writeJSON writes what a program reads and people may look at.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
