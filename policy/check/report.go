// Package check has the tools for changing rule files safely. [Files] reports mistakes and
// costs, [Tests] runs the tests in rule files, [Audit] records
// decisions, [Diff] evaluates recorded inputs with other rules, and [Shadow] evaluates a
// candidate beside the rules in force.
//
// Audit and Shadow never change a decision and delay it by a copy of its input only.
package check

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/rules"
)

// A FileReport is the result of [Files].
type FileReport struct {
	Set      *rules.Set // complete if the problems are warnings
	Problems yamlfile.Problems
	Costs    []rules.PolicyCost
}

// Files compiles rule files and reports errors, warnings and costs. It reads no keys,
// calls no webhook, and runs no tests. The error is that of reading the files.
func Files(cfg rules.Config) (*FileReport, error) {
	set, problems, err := rules.Compile(cfg)
	if err != nil {
		return nil, err
	}
	return &FileReport{Set: set, Problems: problems, Costs: set.Costs()}, nil
}

// OK reports whether the files have warnings at most.
func (r *FileReport) OK() bool { return r.Problems.Err() == nil }

// WriteTo writes the problems with their positions, and the costs as tables.
func (r *FileReport) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	if _, err := r.Problems.WriteTo(&b); err != nil {
		return 0, err
	}
	for _, c := range r.Costs {
		fmt.Fprintf(&b, "%s: policy %s: a decision costs at most %d of %d\n", c.File, c.Policy, c.Max, c.Limit)
		table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		for _, rule := range c.Rules {
			span := fmt.Sprint(rule.Max)
			if rule.Min != rule.Max {
				span = fmt.Sprintf("%d-%d", rule.Min, rule.Max)
			}
			if rule.Outcome > 0 {
				span += fmt.Sprintf(" + %d", rule.Outcome)
			}
			fmt.Fprintf(table, "%s\t%s\tline %d\t\n", rule.Rule, span, rule.Line)
		}
		if err := table.Flush(); err != nil {
			return 0, err
		}
	}
	return b.WriteTo(w)
}

// A TestReport is the result of the tests in rule files.
type TestReport struct {
	Results  []rules.TestResult
	Coverage []Coverage
}

// Coverage is the number of a policy's rules with those that decided in no test.
type Coverage struct {
	Policy string
	Rules  int
	Missed []string
}

// Tests runs the tests in the files of a set.
func Tests(set *rules.Set) *TestReport {
	report := &TestReport{Results: set.Test()}
	decided := map[string]bool{}
	for _, t := range report.Results {
		decided[t.Policy+"/"+t.Rule] = true
	}
	for _, p := range set.Costs() {
		coverage := Coverage{Policy: p.Policy, Rules: len(p.Rules)}
		for _, r := range p.Rules {
			if !decided[p.Policy+"/"+r.Rule] {
				coverage.Missed = append(coverage.Missed, r.Rule)
			}
		}
		report.Coverage = append(report.Coverage, coverage)
	}
	return report
}

// Failed returns the number of failed tests.
func (r *TestReport) Failed() int {
	n := 0
	for _, t := range r.Results {
		if len(t.Differences) > 0 {
			n++
		}
	}
	return n
}

// WriteTo writes the failed tests with their differences, and the numbers of passed and
// failed tests.
func (r *TestReport) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	for _, t := range r.Results {
		if len(t.Differences) == 0 {
			continue
		}
		fmt.Fprintf(&b, "FAIL %s: %s (%s:%d)\n", t.Policy, t.Name, t.File, t.Line)
		for _, d := range t.Differences {
			if d.Want != "" || d.Key != "rule" {
				fmt.Fprintf(&b, "  - %s: %s\n", d.Key, d.Want)
			}
			fmt.Fprintf(&b, "  + %s: %s\n", d.Key, d.Got)
		}
	}
	failed := r.Failed()
	fmt.Fprintf(&b, "%d passed, %d failed\n", len(r.Results)-failed, failed)
	return b.WriteTo(w)
}

// WriteCoverage writes, for each policy, the number of rules that decided a test and the names
// of the others.
func (r *TestReport) WriteCoverage(w io.Writer) error {
	var b bytes.Buffer
	for _, c := range r.Coverage {
		fmt.Fprintf(&b, "%s: %d of %d rules decide in a test", c.Policy, c.Rules-len(c.Missed), c.Rules)
		if len(c.Missed) > 0 {
			fmt.Fprintf(&b, "; never: %s", strings.Join(c.Missed, ", "))
		}
		b.WriteByte('\n')
	}
	_, err := b.WriteTo(w)
	return err
}
