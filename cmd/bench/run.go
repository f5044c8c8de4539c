package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/discharger/discharger/cmd/bench/measure"
	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/cmd/bench/server"
	"github.com/discharger/discharger/discharger/keyfile"
)

func newRun(p *program) *cobra.Command {
	r := runCommand{program: p}
	c := &cobra.Command{
		Use: "bench", Short: "Measure the cost of requests to the discharger.", Args: cobra.NoArgs,
		Long: `Measure the cost of requests to the discharger.

Starts a service in a process of its own and sends it requests, or sends them to a
running one with --service. Sessions belong to users made up for the run.

Workloads:
  open     discharges of sessions that need nothing but the caveat
  rotate   refreshes with refresh tokens
  held     discharges fetched by a homeserver with its API key
  logout   activations, each followed by a logout
  mix      a day of many sessions: mostly refreshes, some logouts, some misuse
  gateway  requests of Matrix clients to a homeserver behind the gateway
  verify   verification of bundles, beside the macaroon library

Without --rate, each connection sends a request when the previous one is answered.
With it, requests are due at random times, and latency counts from then.

--compare measures references in alternating rounds:
  bakery   the bakery library's discharger, which keeps no sessions
  echo     an echo handler with a constant answer
  nethttp  a net/http handler with a constant answer
  bbolt    nethttp that first writes a record to a bbolt file
  reverseproxy   httputil.ReverseProxy, for the workload gateway
  fosite   the refresh grant of the library fosite on its in-memory store, for the
           workload rotate`,
		RunE: func(c *cobra.Command, _ []string) error { return r.run(c) },
	}
	f := c.Flags()
	f.StringVar(&r.workload, "workload", string(measure.Open), "`workload` to send")
	f.StringVar(&r.store, "store", string(server.Bolt), "`bolt|redis`: store of the service that bench starts")
	f.StringVar(&r.compare, "compare", "", "`references`, separated by commas")
	f.IntVar(&r.cfg.Load.Connections, "connections", 64, "`number` of connections")
	f.Float64Var(&r.cfg.Load.Rate, "rate", 0, "open loop: `requests` per second over all connections")
	f.DurationVar(&r.cfg.Load.For, "for", 0, "`duration` of a round (default 3s)")
	f.IntVar(&r.cfg.Rounds, "rounds", 3, "`number` of rounds")
	f.IntVar(&r.cfg.Sessions, "sessions", 1000, "`number` of sessions over all connections")
	f.IntVar(&r.cfg.PerUser, "per-user", 3, "`sessions` of each user")
	f.IntVar(&r.cfg.Procs, "procs", 1, "`processors` for the measured process; 0: all")
	f.StringVar(&r.cfg.URL, "service", "", "`URL` of a running service in which the homeserver of --key is registered")
	f.StringVar(&r.cfg.Admin, "admin", "", "`URL` of that service's metrics; without it, its costs are unknown")
	f.StringVar(&r.key, "key", "", "key `file` of the homeserver")
	f.BoolVar(&r.json, "json", false, "write JSON")
	return c
}

// runCommand is one run of one workload.
type runCommand struct {
	program  *program
	cfg      measure.Config
	workload string
	store    string
	compare  string
	key      string
	json     bool
}

func (r *runCommand) run(c *cobra.Command) error {
	if err := r.complete(); err != nil {
		return err
	}
	var err error
	if r.cfg.Self, err = self(); err != nil {
		return err
	}
	if r.cfg.URL == "" {
		if r.cfg.Program, err = r.program.file(c.Context()); err != nil {
			return err
		}
	}
	report, err := measure.Run(c.Context(), r.cfg)
	if err != nil {
		return err
	}
	return write(c.OutOrStdout(), r.json, report)
}

// complete checks the flags.
func (r *runCommand) complete() (err error) {
	if r.cfg.Workload = measure.Workload(r.workload); !slices.Contains(measure.Workloads(), r.cfg.Workload) {
		return usagef("--workload is one of %s", words(measure.Workloads()))
	}
	if r.cfg.Store = server.Store(r.store); r.cfg.Store != server.Bolt && r.cfg.Store != server.Redis {
		return usagef("--store is bolt or redis")
	}
	for _, name := range list(r.compare) {
		kind := reference.Kind(name)
		if !slices.Contains(measure.References(), kind) {
			return usagef("--compare is some of %s", words(measure.References()))
		}
		r.cfg.Compare = append(r.cfg.Compare, kind)
	}
	if r.cfg.Load.Connections < 1 || r.cfg.Rounds < 1 || r.cfg.Sessions < 1 || r.cfg.PerUser < 1 {
		return usagef("--connections, --rounds, --sessions and --per-user are 1 or more")
	}
	if r.cfg.Load.Rate < 0 || r.cfg.Load.For < 0 || r.cfg.Procs < 0 {
		return usagef("--rate, --for and --procs are not below 0")
	}
	if (r.cfg.URL == "") != (r.key == "") || r.cfg.URL == "" && r.cfg.Admin != "" {
		return usagef("a running service needs both --service and --key, and --admin needs them")
	}
	if r.key != "" {
		if r.cfg.Keys, err = homeserverKeys(r.key); err != nil {
			return err
		}
	}
	r.cfg.Progress = progress()
	return nil
}

// homeserverKeys reads a key file of a homeserver.
func homeserverKeys(path string) (*keyfile.Ring, error) {
	ring, err := keyfile.Load(path, keyfile.OwnerOnly)
	if err == nil && ring.Owner != keyfile.Homeserver {
		err = fmt.Errorf("key file %s: keys of a %s, want those of a homeserver", path, ring.Owner)
	}
	return ring, err
}
