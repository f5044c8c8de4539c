package measure

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
)

// Machine describes the machine of a measurement.
type Machine struct {
	CPU        string `json:"cpu"`
	Processors int    `json:"processors"`
	System     string `json:"system"`
	Go         string `json:"go"`
}

func thisMachine() Machine {
	m := Machine{CPU: "unknown processor", Processors: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m // another system than Linux
	}
	for line := range bytes.Lines(info) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(name)) == "model name" {
			m.CPU = string(bytes.TrimSpace(value))
			break
		}
	}
	return m
}

// String returns one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d processors, %s, %s", m.CPU, m.Processors, m.System, m.Go)
}

// loadAverage returns the load average over 1 and 5 minutes, or "unknown".
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:2], " ")
}

// Report is the result of a run. Ratios are of the service to each reference.
type Report struct {
	Machine     Machine   `json:"machine"`
	Workload    Workload  `json:"workload"`
	Connections int       `json:"connections"`
	Rate        float64   `json:"rate"` // 0: closed loop
	Seconds     float64   `json:"seconds"`
	Procs       int       `json:"procs"`
	Busy        [2]string `json:"load_average"` // before and after, over 1 and 5 minutes
	Subjects    []Subject `json:"subjects"`
	Ratios      []Ratio   `json:"ratios,omitempty"`
}

// Subject is the result for one server.
type Subject struct {
	Name   string   `json:"name"`
	Middle Sample   `json:"median"`
	Rounds []Sample `json:"rounds"`
}

// Ratio compares the service with a reference.
type Ratio struct {
	Reference string `json:"reference"`
	Of        string `json:"of"`
	Spread
}

func newReport(cfg Config) *Report {
	r := &Report{
		Machine: thisMachine(), Workload: cfg.Workload, Connections: cfg.Load.Connections, Rate: cfg.Load.Rate,
		Seconds: cfg.Load.For.Seconds(), Procs: cfg.Procs,
	}
	r.Busy[0] = loadAverage()
	return r
}

func (r *Report) finish(subjects []*subject) {
	r.Busy[1] = loadAverage()
	for _, s := range subjects {
		r.Subjects = append(r.Subjects, Subject{Name: s.name, Middle: s.middle(), Rounds: s.samples})
	}
	if r.Workload == Verify { // of its subjects, only the last is a reference
		r.compare(subjects[0], subjects[len(subjects)-1])
		return
	}
	for _, ref := range subjects[1:] {
		r.compare(subjects[0], ref)
	}
}

func (r *Report) compare(ours, ref *subject) {
	for _, of := range aspects() {
		if spread, ok := ratios(ours, ref, of.f); ok {
			r.Ratios = append(r.Ratios, Ratio{ref.name, of.name, spread})
		}
	}
}

// The names of compared numbers.
const (
	ofRate = "requests per second"
	ofCore = "requests per second of processor time"
	ofCPU  = "processor time per request"
	ofP99  = "p99"
)

type aspect struct {
	name string
	f    func(*Sample) float64
}

func aspects() []aspect {
	return []aspect{
		{ofRate, func(s *Sample) float64 { return s.PerSecond }},
		{ofCore, perCore},
		{ofCPU, func(s *Sample) float64 { return s.CPU }},
		{"p50", func(s *Sample) float64 { return s.P50 }},
		{ofP99, func(s *Sample) float64 { return s.P99 }},
		{"allocations per request", func(s *Sample) float64 { return s.Allocs }},
	}
}

// ratio returns the ratio of a number to that of the first reference.
func (r *Report) ratio(of string) Spread {
	for _, x := range r.Ratios {
		if x.Of == of {
			return x.Spread
		}
	}
	return Spread{}
}

// perCore returns the requests that a processor answers in a second.
func perCore(s *Sample) float64 {
	if s.CPU == 0 {
		return 0
	}
	return 1e6 / s.CPU
}

// WriteText writes tables.
func (r *Report) WriteText(w io.Writer) error {
	loop := "closed loop"
	if r.Rate > 0 {
		loop = fmt.Sprintf("%g requests a second", r.Rate)
	}
	rounds := len(r.Subjects[0].Rounds)
	how := fmt.Sprintf("%d connections, %s, %d rounds of %g s", r.Connections, loop, rounds, r.Seconds)
	if r.Workload == Verify {
		how = fmt.Sprintf("in one process, %d rounds of %v of processor time", rounds, oneRound)
	}
	fmt.Fprintf(w, "%s\n%s; load average %s before, %s after\n\n", r.Machine, how, r.Busy[0], r.Busy[1])
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\treq/s\treq/s/core\tcpu µs\tp50 µs\tp99 µs\tp99.9 µs\tallocs\tbytes\tstore ops\tredis µs\tMB\t")
	for _, s := range r.Subjects {
		m := s.Middle
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.1f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.2f\t%.1f\t%.1f\t\n", s.Name, m.PerSecond, perCore(&m),
			m.CPU, m.P50, m.P99, m.P999, m.Allocs, m.Bytes, m.Ops, m.StoreCPU, float64(m.Memory)/1e6)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Ratios) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\ncompared: the median of the rounds, with the smallest and the largest")
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, x := range r.Ratios {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", x.Reference, x.Of, x.Spread)
	}
	return t.Flush()
}
