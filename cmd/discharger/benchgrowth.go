package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/discharger/discharger/cmd/discharger/bench"
	"github.com/discharger/discharger/config/atomicfile"
)

func benchGrowthCommand() command {
	return command{
		name: "bench growth", args: "[flags]", about: "Measure what requests cost as there is more of something.",
		more: `
Sessions in the store, by powers of ten; sessions of each user; rules of the policy,
none of which matches; registered homeservers. For each it measures discharges in
mode open and refreshes, how long the service takes to start with what is there,
and what a session takes in the store.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			var cfg bench.GrowthConfig
			along := f.String("along", "", "`dimensions`, separated by commas: "+words(bench.Dimensions())+" (default all)")
			store := f.String("store", string(bench.Bolt), "`bolt|redis`")
			f.IntVar(&cfg.Most, "most", 100_000, "`number` of sessions to go up to")
			f.DurationVar(&cfg.For, "for", 0, "how `long` a round takes (default 1s)")
			f.IntVar(&cfg.Rounds, "rounds", 3, "`number` of rounds")
			svg := f.String("svg", "", "`file` to make, with plots")
			asJSON := f.Bool("json", false, "write JSON")
			return func(ctx context.Context, _ []string) (err error) {
				if cfg.Store = bench.Store(*store); cfg.Store != bench.Bolt && cfg.Store != bench.Redis {
					return usagef("bench growth: --store is bolt or redis")
				}
				for _, name := range strings.FieldsFunc(*along, func(r rune) bool { return r == ',' }) {
					if !slices.Contains(bench.Dimensions(), bench.Dimension(name)) {
						return usagef("bench growth: --along is some of %s", words(bench.Dimensions()))
					}
					cfg.Dimensions = append(cfg.Dimensions, bench.Dimension(name))
				}
				if cfg.Most < 1000 || cfg.Rounds < 1 || cfg.For < 0 {
					return usagef("bench growth: --most is 1000 or more, --rounds is 1 or more, and --for is not below 0")
				}
				if cfg.Program, err = program(); err != nil {
					return err
				}
				if _, err := os.Stat(*svg); err == nil { // said before the measuring, not after it
					return fmt.Errorf("bench growth: %s is there already, and stays", *svg)
				}
				cfg.Progress = t.progress()
				found, err := bench.MeasureGrowth(ctx, cfg)
				if err != nil {
					return fmt.Errorf("bench growth: %w", err)
				}
				if *svg != "" {
					if err := drawGrowth(*svg, found); err != nil {
						return err
					}
				}
				if *asJSON {
					return writeJSON(t.out, found)
				}
				return found.WriteText(t.out)
			}
		},
	}
}

func drawGrowth(path string, found *bench.Growth) error {
	var b bytes.Buffer
	if err := found.WriteSVG(&b); err != nil {
		return err
	}
	return atomicfile.Create(path, b.Bytes())
}
