package main

import (
	"github.com/spf13/cobra"

	"github.com/discharger/discharger/cmd/bench/measure"
)

func newNumbers(p *program) *cobra.Command {
	var cfg measure.NumbersConfig
	var asJSON bool
	c := &cobra.Command{
		Use: "numbers", Short: "Measure every number that has a bound.", Args: cobra.NoArgs,
		Long: `Measure every number that has a bound.

Each number is measured beside its reference, in alternating rounds of one run, and
printed with its bound: the median of the rounds, with the smallest and the largest.
A run takes some minutes and needs redis-server. Exit code 0 means that everything
was measured, not that every bound holds.`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if cfg.For < 0 || cfg.Rounds < 1 || cfg.Sessions < 1 {
				return usagef("--rounds and --sessions are 1 or more, and --for is not below 0")
			}
			if cfg.Self, err = self(); err != nil {
				return err
			}
			if cfg.Program, err = p.file(c.Context()); err != nil {
				return err
			}
			cfg.Progress = progress()
			found, err := measure.MeasureNumbers(c.Context(), cfg)
			if err != nil {
				return err
			}
			return write(c.OutOrStdout(), asJSON, found)
		},
	}
	f := c.Flags()
	f.DurationVar(&cfg.For, "for", 0, "`duration` of a round (default 2s)")
	f.IntVar(&cfg.Rounds, "rounds", 5, "`number` of rounds; latency takes twice as many, and at least 10")
	f.IntVar(&cfg.Sessions, "sessions", 30_000, "`number` of sessions for the memory of one")
	f.BoolVar(&asJSON, "json", false, "write JSON")
	return c
}
