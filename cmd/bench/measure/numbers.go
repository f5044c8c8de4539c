package measure

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/cmd/bench/server"
)

// Number is a number with its bound, as measured.
type Number struct {
	What      string  `json:"what"`
	Reference string  `json:"reference,omitempty"` // measured in the same run
	AtLeast   float64 `json:"at_least,omitempty"`  // zero: no such bound
	AtMost    float64 `json:"at_most,omitempty"`
	Unit      string  `json:"unit"` // "×" for a ratio
	Found     Spread  `json:"found"`
	Note      string  `json:"note,omitempty"`
}

// unitAllocations is the unit of a number that can be 0 when it was measured.
const unitAllocations = "allocations"

// measured reports whether there is a measurement.
func (n Number) measured() bool { return n.Found != Spread{} || n.Unit == unitAllocations }

// Holds reports whether the median is within the bound. A number without a
// measurement is not.
func (n Number) Holds() bool {
	return n.measured() && (n.AtLeast == 0 || n.Found.Median >= n.AtLeast) && (n.AtMost == 0 || n.Found.Median <= n.AtMost)
}

// Numbers are all numbers with a bound.
type Numbers struct {
	Machine Machine   `json:"machine"`
	Busy    [2]string `json:"load_average"`
	Numbers []Number  `json:"numbers"`
}

// NumbersConfig is one run of [MeasureNumbers]. Program and Self are required.
type NumbersConfig struct {
	Program  string        // file of the discharger
	Self     string        // file of this program, which runs the references
	For      time.Duration // of a round; 0: 2 s
	Rounds   int           // 0: 5; latency is measured in at least twice as many
	Sessions int           // for the memory of one; 0: 30 000
	Progress io.Writer     // nil: nowhere
}

// MeasureNumbers measures all numbers with a bound, each beside its reference.
func MeasureNumbers(ctx context.Context, cfg NumbersConfig) (*Numbers, error) {
	cfg.For = cmp.Or(cfg.For, 2*time.Second)
	cfg.Rounds = cmp.Or(cfg.Rounds, 5)
	cfg.Sessions = cmp.Or(cfg.Sessions, 30_000)
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	n := &Numbers{Machine: thisMachine()}
	n.Busy[0] = loadAverage()
	for _, measure := range []func(context.Context, NumbersConfig) ([]Number, error){
		throughput, processorTime, latency, durableRefreshes, throughGateway, microscopic, memoryOfSessions,
	} {
		found, err := measure(ctx, cfg)
		if err != nil {
			return nil, err
		}
		n.Numbers = append(n.Numbers, found...)
	}
	n.Busy[1] = loadAverage()
	return n, nil
}

// compared runs a workload on Redis with one processor, beside a reference.
func compared(ctx context.Context, cfg NumbersConfig, w Workload, ref reference.Kind, l load.Load, rounds int) (*Report, error) {
	l.For = cfg.For
	return Run(ctx, Config{
		Program: cfg.Program, Self: cfg.Self, Workload: w, Store: server.Redis, Procs: 1, Compare: []reference.Kind{ref},
		Load: l, Rounds: rounds, Progress: cfg.Progress,
	})
}

func throughput(ctx context.Context, cfg NumbersConfig) (found []Number, err error) {
	for _, row := range []struct {
		workload  Workload
		kind      reference.Kind
		reference string
		least     float64
	}{
		{Open, reference.Bakery, "the bakery's discharger, open", 3.6},
		{Rotate, reference.Bakery, "the bakery's discharger, open", 2.8},
		{Rotate, reference.Fosite, "fosite's refresh grant on its in-memory store", 1.5},
	} {
		n := Number{
			What:      fmt.Sprintf("%s with Redis: throughput per core, 64 connections", row.workload),
			Reference: row.reference, AtLeast: row.least, Unit: "×",
		}
		r, err := compared(ctx, cfg, row.workload, row.kind, load.Load{}, cfg.Rounds)
		if err != nil {
			return nil, err
		}
		ours, theirs := &r.Subjects[0].Middle, &r.Subjects[1].Middle
		n.Found, n.Note = r.ratio(ofCore), fmt.Sprintf("%.0f and %.0f a second", perCore(ours), perCore(theirs))
		found = append(found, n)
	}
	return found, nil
}

func processorTime(ctx context.Context, cfg NumbersConfig) (found []Number, err error) {
	for _, l := range []struct {
		load load.Load
		how  string
	}{{load.Load{}, "64 connections that never pause"}, {load.Load{Rate: 5000}, "5 000 a second"}} {
		r, err := compared(ctx, cfg, Open, reference.Echo, l.load, cfg.Rounds)
		if err != nil {
			return nil, err
		}
		found = append(found, Number{
			What: "open with Redis: processor time per request, " + l.how, Reference: "an echo handler with a constant answer",
			AtMost: 1.7, Unit: "×", Found: r.ratio(ofCPU),
			Note: fmt.Sprintf("%.1f and %.1f µs", r.Subjects[0].Middle.CPU, r.Subjects[1].Middle.CPU),
		})
	}
	return found, nil
}

func latency(ctx context.Context, cfg NumbersConfig) ([]Number, error) {
	r, err := compared(ctx, cfg, Open, reference.NetHTTP, load.Load{Rate: 5000}, max(10, 2*cfg.Rounds))
	if err != nil {
		return nil, err
	}
	return []Number{{
		What: "open with Redis: p99 at 5 000 a second on one core, open loop", Reference: "a net/http handler with a constant answer",
		AtMost: 2, Unit: "×", Found: r.ratio(ofP99),
		Note: fmt.Sprintf("%.0f and %.0f µs; load average %s", r.Subjects[0].Middle.P99, r.Subjects[1].Middle.P99, r.Busy[1]),
	}}, nil
}

// durableRefreshes compares refreshes, which are on disk when they are answered, with
// the least code around a write to disk.
func durableRefreshes(ctx context.Context, cfg NumbersConfig) ([]Number, error) {
	r, err := Run(ctx, Config{
		Program: cfg.Program, Self: cfg.Self, Workload: Rotate, Store: server.Bolt, Compare: []reference.Kind{reference.Bbolt},
		Load: load.Load{For: cfg.For}, Rounds: cfg.Rounds, Progress: cfg.Progress,
	})
	if err != nil {
		return nil, err
	}
	return []Number{{
		What: "rotate with a bbolt file: refreshes per second, 64 connections", Reference: "net/http and bare bbolt with Batch",
		Unit: "×", Found: r.ratio(ofRate),
		Note: fmt.Sprintf("%.0f and %.0f a second, %.0f and %.0f µs p50", r.Subjects[0].Middle.PerSecond, r.Subjects[1].Middle.PerSecond,
			r.Subjects[0].Middle.P50, r.Subjects[1].Middle.P50),
	}}, nil
}

func throughGateway(ctx context.Context, cfg NumbersConfig) ([]Number, error) {
	r, err := compared(ctx, cfg, Gateway, reference.ReverseProxy, load.Load{}, cfg.Rounds)
	if err != nil {
		return nil, err
	}
	return []Number{{
		What: "a request through the gateway: processor time", Reference: "httputil.ReverseProxy",
		AtMost: 1.25, Unit: "×", Found: r.ratio(ofCPU),
		Note: fmt.Sprintf("%.1f and %.1f µs", r.Subjects[0].Middle.CPU, r.Subjects[1].Middle.CPU),
	}}, nil
}

// WriteText writes the table.
func (n *Numbers) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s; load average %s before, %s after\n\n", n.Machine, n.Busy[0], n.Busy[1])
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, x := range n.Numbers {
		verdict, found := "holds", x.Found.String()
		switch {
		case !x.measured():
			verdict, found = "is unknown", "-"
		case !x.Holds():
			verdict = "does not hold"
		}
		bound := fmt.Sprintf("≤ %.3g %s", x.AtMost, x.Unit)
		switch {
		case x.AtLeast == 0 && x.AtMost == 0:
			bound, verdict = "in "+x.Unit, "is shown"
		case x.AtLeast > 0:
			bound = fmt.Sprintf("≥ %.3g %s", x.AtLeast, x.Unit)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", x.What, bound, found, verdict)
		against := ""
		if x.Reference != "" {
			against = "against " + x.Reference
		}
		fmt.Fprintf(t, "  %s\t\t%s\t\n", against, x.Note)
	}
	return t.Flush()
}
