package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/discharger/discharger/cmd/discharger/bench"
	"github.com/discharger/discharger/cmd/discharger/bench/reference"
)

// benchCommands are those that measure. The one that stands alone comes last, or
// the others would not be found.
func benchCommands() []command {
	return []command{benchNumbersCommand(), benchGrowthCommand(), benchSoakCommand(), benchReferenceCommand(), benchCommand()}
}

func benchCommand() command {
	return command{
		name: "bench", args: "[flags]", about: "Measure what the service costs.",
		more: `
Starts a service of its own, in a process of its own, and sends it requests; or
with --service sends them to one that runs. Sessions are of users made up for the
run. A Redis of its own needs redis-server.

Workloads:
  open     discharges of sessions that need nothing but the caveat
  rotate   refreshes with refresh tokens
  held     discharges that a homeserver fetches with its API key
  logout   sessions that begin and end
  mix      what many sessions do: mostly refreshes, some logouts, some misuse
  gateway  requests of Matrix clients to a homeserver behind the gateway
  verify   bundles, verified as a homeserver does, beside the macaroon library

Without --rate every connection sends when it has its answer. With it, requests
are due at random times, and their latency counts from then.

--compare does the same with something else, in alternating rounds:
  bakery   the bakery library's discharger, which knows no sessions
  echo     an echo handler with a constant answer
  nethttp  a net/http handler with a constant answer
  bbolt    the same, which puts a record into a bbolt file first
  reverseproxy   httputil.ReverseProxy, for the workload gateway
  fosite   the refresh grant of the library fosite on its store in memory, for the
           workload rotate; it is a program of its own, which is built with
           go build -C cmd/discharger/bench/fosite -o fosite .`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			b := benchRun{t: t}
			b.declare(f)
			return func(ctx context.Context, _ []string) error { return b.run(ctx) }
		},
	}
}

// benchRun is one run of bench.
type benchRun struct {
	t        *terminal
	cfg      bench.Config
	workload string
	store    string
	compare  string
	key      string
	json     bool
}

func (b *benchRun) declare(f *flag.FlagSet) {
	f.StringVar(&b.workload, "workload", string(bench.Open), "`what` is asked of the service")
	f.StringVar(&b.store, "store", string(bench.Bolt), "`bolt|redis`: where the service started here keeps sessions")
	f.StringVar(&b.compare, "compare", "", "`references`, separated by commas")
	f.IntVar(&b.cfg.Load.Connections, "connections", 64, "`number` of connections")
	f.Float64Var(&b.cfg.Load.Rate, "rate", 0, "open loop with as many `requests` a second, over all connections")
	f.DurationVar(&b.cfg.Load.For, "for", 0, "how `long` a round takes (default 3s)")
	f.IntVar(&b.cfg.Rounds, "rounds", 3, "`number` of rounds")
	f.IntVar(&b.cfg.Sessions, "sessions", 1000, "`number` of sessions, over all connections")
	f.IntVar(&b.cfg.PerUser, "per-user", 3, "`sessions` of each user")
	f.IntVar(&b.cfg.Procs, "procs", 1, "`processors` that what is measured may use; 0 is all")
	f.StringVar(&b.cfg.URL, "service", "", "`URL` of a service that runs already; --key is a homeserver's that it knows")
	f.StringVar(&b.cfg.Admin, "admin", "", "`URL` where that service has its metrics; without, its costs are not known")
	b.keyFlag(f)
	fositeFlag(f, &b.cfg.Fosite)
	f.BoolVar(&b.json, "json", false, "write JSON")
}

func (b *benchRun) keyFlag(f *flag.FlagSet) {
	f.StringVar(&b.key, "key", "", "key `file` of the homeserver")
}

func fositeFlag(f *flag.FlagSet, program *string) {
	f.StringVar(program, "fosite", "", "program `file` of the reference fosite")
}

func (b *benchRun) run(ctx context.Context) (err error) {
	if err := b.complete(); err != nil {
		return err
	}
	report, err := bench.Run(ctx, b.cfg)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if b.json {
		return writeJSON(b.t.out, report)
	}
	return report.WriteText(b.t.out)
}

// complete checks the flags.
func (b *benchRun) complete() (err error) {
	if b.cfg.Workload = bench.Workload(b.workload); !slices.Contains(bench.Workloads(), b.cfg.Workload) {
		return usagef("bench: --workload is one of %s", words(bench.Workloads()))
	}
	if b.cfg.Store = bench.Store(b.store); b.cfg.Store != bench.Bolt && b.cfg.Store != bench.Redis {
		return usagef("bench: --store is bolt or redis")
	}
	for _, name := range strings.FieldsFunc(b.compare, func(r rune) bool { return r == ',' }) {
		kind := reference.Kind(name)
		if !slices.Contains(bench.References(), kind) {
			return usagef("bench: --compare is some of %s", words(bench.References()))
		}
		b.cfg.Compare = append(b.cfg.Compare, kind)
	}
	if slices.Contains(b.cfg.Compare, reference.Fosite) != (b.cfg.Fosite != "") {
		return usagef("bench: --compare fosite and --fosite need each other; %s", bench.HowToFosite)
	}
	if b.cfg.Load.Connections < 1 || b.cfg.Rounds < 1 || b.cfg.Sessions < 1 || b.cfg.PerUser < 1 {
		return usagef("bench: --connections, --rounds, --sessions and --per-user are 1 or more")
	}
	if b.cfg.Load.Rate < 0 || b.cfg.Load.For < 0 || b.cfg.Procs < 0 {
		return usagef("bench: --rate, --for and --procs are not below 0")
	}
	if (b.cfg.URL == "") != (b.key == "") || b.cfg.URL == "" && b.cfg.Admin != "" {
		return usagef("bench: a service that runs already needs both --service and --key, and without one there is no --admin")
	}
	if b.key != "" {
		if b.cfg.Keys, err = loadHomeserverKeys(b.key); err != nil {
			return err
		}
	}
	b.cfg.Progress = b.t.progress()
	b.cfg.Program, err = program()
	return err
}

// words lists texts for people.
func words[T ~string](all []T) string {
	var b strings.Builder
	for i, w := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}

// program is how to run this program.
func program() ([]string, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []string{path}, nil
}

// progress is where to write what goes on: standard error if somebody looks at
// it.
func (t *terminal) progress() io.Writer {
	f, ok := t.err.(*os.File)
	if !ok {
		return io.Discard
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return io.Discard
	}
	return f
}

func benchReferenceCommand() command {
	return command{
		name: "bench reference", about: "Be what bench compares the service with.", hidden: true,
		more: "What to be comes on standard input.",
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(ctx context.Context, _ []string) error {
				err := reference.Run(ctx, t.in, t.out)
				if errors.Is(err, io.EOF) {
					return usagef("bench reference: only bench runs this")
				}
				return err
			}
		},
	}
}
