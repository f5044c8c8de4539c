package measure

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/discharger/discharger/cmd/bench/reference"
)

// Number is something that the service promises, and what was found.
type Number struct {
	What      string  `json:"what"`
	Reference string  `json:"reference,omitempty"` // what it is compared with, in the same run
	AtLeast   float64 `json:"at_least,omitempty"`  // zero: there is no such bound
	AtMost    float64 `json:"at_most,omitempty"`
	Unit      string  `json:"unit"` // "×" for a ratio
	Found     Spread  `json:"found"`
	Note      string  `json:"note,omitempty"`
}

// Holds reports whether the middle of what was found keeps the promise. What
// was not found does not.
func (n Number) Holds() bool {
	return n.Found.Median > 0 && (n.AtLeast == 0 || n.Found.Median >= n.AtLeast) && (n.AtMost == 0 || n.Found.Median <= n.AtMost)
}

// Numbers is all that is promised.
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
	Sessions int           // to measure the memory of one with; 0: 30 000
	Progress io.Writer     // nil: nowhere
}

// MeasureNumbers measures everything that has a bound, each beside its
// reference.
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

// compared runs a workload on Redis with one processor, beside one reference.
func compared(ctx context.Context, cfg NumbersConfig, w Workload, ref reference.Kind, l Load, rounds int) (*Report, error) {
	l.For = cfg.For
	return Run(ctx, Config{
		Program: cfg.Program, Self: cfg.Self, Workload: w, Store: Redis, Procs: 1, Compare: []reference.Kind{ref},
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
		{Open, reference.Bakery, "the bakery's discharger, open", 4.5},
		{Rotate, reference.Bakery, "the bakery's discharger, open", 3},
		{Rotate, reference.Fosite, "fosite's refresh grant on its store in memory", 2.5},
	} {
		n := Number{
			What:      fmt.Sprintf("%s with Redis: throughput per core, 64 connections", row.workload),
			Reference: row.reference, AtLeast: row.least, Unit: "×",
		}
		r, err := compared(ctx, cfg, row.workload, row.kind, Load{}, cfg.Rounds)
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
		load Load
		how  string
	}{{Load{}, "64 connections that never pause"}, {Load{Rate: 5000}, "5 000 a second"}} {
		r, err := compared(ctx, cfg, Open, reference.Echo, l.load, cfg.Rounds)
		if err != nil {
			return nil, err
		}
		found = append(found, Number{
			What: "open with Redis: processor time per request, " + l.how, Reference: "an echo handler with a constant answer",
			AtMost: 1.35, Unit: "×", Found: r.ratio(ofCPU),
			Note: fmt.Sprintf("%.1f and %.1f µs", r.Subjects[0].Middle.CPU, r.Subjects[1].Middle.CPU),
		})
	}
	return found, nil
}

func latency(ctx context.Context, cfg NumbersConfig) ([]Number, error) {
	r, err := compared(ctx, cfg, Open, reference.NetHTTP, Load{Rate: 5000}, max(10, 2*cfg.Rounds))
	if err != nil {
		return nil, err
	}
	return []Number{{
		What: "open with Redis: p99 at 5 000 a second on one core, open loop", Reference: "a net/http handler with a constant answer",
		AtMost: 2, Unit: "×", Found: r.ratio(ofP99),
		Note: fmt.Sprintf("%.0f and %.0f µs; load average %s", r.Subjects[0].Middle.P99, r.Subjects[1].Middle.P99, r.Busy[1]),
	}}, nil
}

// durableRefreshes compares refreshes that are on the disk when they are
// answered, with no more around the writing than there has to be.
func durableRefreshes(ctx context.Context, cfg NumbersConfig) ([]Number, error) {
	r, err := Run(ctx, Config{
		Program: cfg.Program, Self: cfg.Self, Workload: Rotate, Store: Bolt, Compare: []reference.Kind{reference.Bbolt},
		Load: Load{For: cfg.For}, Rounds: cfg.Rounds, Progress: cfg.Progress,
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
	r, err := compared(ctx, cfg, Gateway, reference.ReverseProxy, Load{}, cfg.Rounds)
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
		case x.Found == (Spread{}):
			verdict, found = "is not known", "-"
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
