package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/cmd/bench/server"
	"github.com/discharger/discharger/cmd/bench/workload"
	"github.com/discharger/discharger/discharger/caveat"
)

// Dimension is a size that may grow.
type Dimension string

// The dimensions.
const (
	Sessions    Dimension = "sessions"    // in the store
	PerUser     Dimension = "per-user"    // sessions of each user
	Rules       Dimension = "rules"       // of the policy, none of which matches
	Homeservers Dimension = "homeservers" // registered
)

// Dimensions lists them.
func Dimensions() []Dimension { return []Dimension{Sessions, PerUser, Rules, Homeservers} }

// GrowthConfig is one run of [MeasureGrowth]. Program is required.
type GrowthConfig struct {
	Program    string
	Dimensions []Dimension   // nil: all
	Store      server.Store  // empty: Bolt
	Most       int           // largest number of sessions, by powers of ten from 1 000; 0: 100 000
	For        time.Duration // of a round; 0: 1 s
	Rounds     int           // 0: 3
	Progress   io.Writer     // nil: nowhere
}

// Growth is the cost of requests along the dimensions.
type Growth struct {
	Machine Machine      `json:"machine"`
	Store   server.Store `json:"store"`
	Busy    [2]string    `json:"load_average"`
	Points  []Point      `json:"points"`
}

// Point is the result at one size of a dimension. Start is the time from running the
// program until it listens.
type Point struct {
	Dimension Dimension `json:"dimension"`
	At        int       `json:"at"`
	Open      Sample    `json:"open"`
	Rotate    Sample    `json:"rotate"`
	Start     float64   `json:"start_ms"`
	PerItem   float64   `json:"store_bytes"` // of the store, for a session; 0: not measured
}

// growth is a run.
type growth struct {
	GrowthConfig
	out *Growth
}

// MeasureGrowth measures along each dimension.
func MeasureGrowth(ctx context.Context, cfg GrowthConfig) (*Growth, error) {
	if cfg.Dimensions == nil {
		cfg.Dimensions = Dimensions()
	}
	cfg.Store = cmp.Or(cfg.Store, server.Bolt)
	cfg.Most = cmp.Or(cfg.Most, 100_000)
	cfg.For = cmp.Or(cfg.For, time.Second)
	cfg.Rounds = cmp.Or(cfg.Rounds, 3)
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	g := &growth{cfg, &Growth{Machine: thisMachine(), Store: cfg.Store}}
	g.out.Busy[0] = loadAverage()
	for _, d := range cfg.Dimensions {
		if err := g.along(ctx, d); err != nil {
			return nil, fmt.Errorf("%s: %w", d, err)
		}
	}
	g.out.Busy[1] = loadAverage()
	return g.out, nil
}

func (g *growth) along(ctx context.Context, d Dimension) error {
	switch d {
	case Sessions:
		return g.sessions(ctx)
	case PerUser:
		at := slices.DeleteFunc([]int{1, 10, 100, 1000}, func(n int) bool { return n*usersThen > g.Most })
		return g.each(ctx, d, at, func(n int, _ *server.Config) (perUser int, err error) { return n, nil })
	case Rules:
		return g.each(ctx, d, []int{1, 10, 100, 200}, manyRules) // a policy has no more than 200
	case Homeservers:
		return g.each(ctx, d, []int{1, 100, 10_000}, func(n int, c *server.Config) (int, error) { c.Homeservers = n - 1; return 1, nil })
	}
	return fmt.Errorf("dimension %q is unknown", d)
}

// usersThen is the number of users where each has many sessions.
const usersThen = 10

// sessions measures one store as it fills.
func (g *growth) sessions(ctx context.Context) (err error) {
	s, err := server.Start(ctx, server.Config{Program: g.Program, Store: g.Store, Procs: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	l, err := workload.NewLogins(s.Ring, s.Ring.Peer.ServiceKey, 3)
	if err != nil {
		return err
	}
	empty, err := s.StoreSize()
	if err != nil {
		return err
	}
	filled := 0
	for n := 1000; n <= g.Most; n *= 10 {
		g.progress("filling up to %d sessions", n)
		if err := l.Fill(ctx, s.Client, 256, n-filled, caveat.ModeRotate); err != nil {
			return err
		}
		filled = n
		size, err := s.StoreSize()
		if err != nil {
			return err
		}
		if err := g.point(ctx, s, Sessions, n, 3, float64(size-empty)/float64(n)); err != nil {
			return err
		}
	}
	return nil
}

// each starts a service for every size of a dimension.
func (g *growth) each(ctx context.Context, d Dimension, at []int, change func(int, *server.Config) (perUser int, err error)) error {
	for _, n := range at {
		cfg := server.Config{Program: g.Program, Store: g.Store, Procs: 1}
		perUser, err := change(n, &cfg)
		if err != nil {
			return err
		}
		g.progress("starting with %d %s", n, d)
		s, err := server.Start(ctx, cfg)
		if err != nil {
			return err
		}
		if err := errors.Join(g.point(ctx, s, d, n, perUser, 0), s.Stop()); err != nil {
			return err
		}
	}
	return nil
}

// point restarts the service and measures at one size.
func (g *growth) point(ctx context.Context, s *server.Service, d Dimension, n, perUser int, perItem float64) error {
	p := Point{Dimension: d, At: n, PerItem: perItem}
	if err := s.End(); err != nil {
		return err
	}
	began := time.Now()
	if err := s.Restart(ctx); err != nil {
		return err
	}
	p.Start = micros(time.Since(began)) / 1000
	for _, w := range []struct {
		workload Workload
		to       *Sample
	}{{Open, &p.Open}, {Rotate, &p.Rotate}} {
		g.progress("%d %s: %s", n, d, w.workload)
		var err error
		if *w.to, err = g.send(ctx, s, w.workload, max(1000, perUser*usersThen), perUser); err != nil {
			return err
		}
	}
	g.progress("")
	g.out.Points = append(g.out.Points, p)
	return nil
}

// send sends a workload to the service.
func (g *growth) send(ctx context.Context, s *server.Service, w Workload, sessions, perUser int) (Sample, error) {
	l, err := workload.NewLogins(s.Ring, s.Ring.Peer.ServiceKey, perUser)
	if err != nil {
		return Sample{}, err
	}
	closed := load.Load{Connections: 64, For: g.For}
	r := &run{cfg: Config{Sessions: sessions, Load: closed}}
	sub := &subject{name: string(w), target: s}
	if sub.client, err = load.NewClient(s.Client, closed.Connections, r.player(l, w)); err != nil {
		return Sample{}, err
	}
	defer sub.client.Close()
	if _, err := sub.measure(ctx, closed); err != nil { // activates them
		return Sample{}, err
	}
	for range g.Rounds {
		if err := sub.round(ctx, closed); err != nil {
			return Sample{}, err
		}
	}
	return sub.middle(), nil
}

func (g *growth) progress(format string, args ...any) {
	fmt.Fprintf(g.Progress, "\r\x1b[K"+format, args...)
}

// manyRules configures a policy of rules, none of which matches.
func manyRules(n int, c *server.Config) (perUser int, err error) {
	f, err := os.CreateTemp("", "discharger-bench-*.yaml")
	if err != nil {
		return 0, err
	}
	var b strings.Builder
	b.WriteString("version: 1\npolicies:\n  default:\n    rules:\n")
	for i := range n {
		fmt.Fprintf(&b, "      - {name: rule-%d, when: session.device == \"OTHER-%d\", then: deny}\n", i, i)
	}
	b.WriteString("    otherwise: allow\n")
	_, err = f.WriteString(b.String())
	c.More = fmt.Sprintf("policy:\n  files: [%q]\n", f.Name())
	c.Remove = f.Name()
	return 1, errors.Join(err, f.Close())
}

// WriteText writes a table for each dimension.
func (g *Growth) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s; store %s, 64 connections, one processor; load average %s before, %s after\n",
		g.Machine, g.Store, g.Busy[0], g.Busy[1])
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	last := Dimension("")
	for _, p := range g.Points {
		if p.Dimension != last {
			fmt.Fprintf(t, "\n%s\topen cpu µs\tp50 µs\tp99 µs\trotate cpu µs\tp50 µs\tp99 µs\tstore ops\tserver MB\tstore bytes/session\tstart ms\t\n", p.Dimension)
			last = p.Dimension
		}
		fmt.Fprintf(t, "%d\t%.1f\t%.0f\t%.0f\t%.1f\t%.0f\t%.0f\t%.2f\t%.1f\t%.0f\t%.0f\t\n", p.At, p.Open.CPU, p.Open.P50, p.Open.P99,
			p.Rotate.CPU, p.Rotate.P50, p.Rotate.P99, p.Rotate.Ops, float64(p.Rotate.Memory)/1e6, p.PerItem, p.Start)
	}
	return t.Flush()
}

// along returns the points of one dimension.
func (g *Growth) along(d Dimension) []Point {
	return slices.DeleteFunc(slices.Clone(g.Points), func(p Point) bool { return p.Dimension != d })
}
