package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/discharger/discharger/cmd/bench/measure"
	"github.com/discharger/discharger/cmd/bench/server"
)

func newGrowth(p *program) *cobra.Command {
	var cfg measure.GrowthConfig
	var along, store, svg string
	var asJSON bool
	c := &cobra.Command{
		Use: "growth", Short: "Measure the cost of requests against the number of sessions, rules and homeservers.", Args: cobra.NoArgs,
		Long: `Measure the cost of requests as the service grows along some dimensions: sessions
in the store, by powers of ten; sessions of each user; rules of the policy, none of
which matches; registered homeservers.

For each it measures discharges in mode open and refreshes, the time that the service
takes to start, and the size of a session in the store.`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if cfg.Store = server.Store(store); cfg.Store != server.Bolt && cfg.Store != server.Redis {
				return usagef("growth: --store is bolt or redis")
			}
			for _, name := range list(along) {
				if !slices.Contains(measure.Dimensions(), measure.Dimension(name)) {
					return usagef("growth: --along is some of %s", words(measure.Dimensions()))
				}
				cfg.Dimensions = append(cfg.Dimensions, measure.Dimension(name))
			}
			if cfg.Most < 1000 || cfg.Rounds < 1 || cfg.For < 0 {
				return usagef("growth: --most is 1000 or more, --rounds is 1 or more, and --for is not below 0")
			}
			if _, err := os.Stat(svg); svg != "" && err == nil { // before the measuring, not after it
				return fmt.Errorf("growth: file %s exists", svg)
			}
			if cfg.Program, err = p.file(c.Context()); err != nil {
				return err
			}
			cfg.Progress = progress()
			found, err := measure.MeasureGrowth(c.Context(), cfg)
			if err != nil {
				return err
			}
			if svg != "" {
				if err := drawGrowth(svg, found); err != nil {
					return err
				}
			}
			return write(c.OutOrStdout(), asJSON, found)
		},
	}
	f := c.Flags()
	f.StringVar(&along, "along", "", "`dimensions`, separated by commas: "+words(measure.Dimensions())+" (default all)")
	f.StringVar(&store, "store", string(server.Bolt), "`bolt|redis`")
	f.IntVar(&cfg.Most, "most", 100_000, "largest `number` of sessions")
	f.DurationVar(&cfg.For, "for", 0, "`duration` of a round (default 1s)")
	f.IntVar(&cfg.Rounds, "rounds", 3, "`number` of rounds")
	f.StringVar(&svg, "svg", "", "new `file` for plots")
	f.BoolVar(&asJSON, "json", false, "write JSON")
	return c
}

// drawGrowth writes the plots to a new file.
func drawGrowth(path string, found *measure.Growth) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(found.WriteSVG(f), f.Close())
}
