package check

import (
	"fmt"
	"io"
	"strings"

	"github.com/discharger/discharger/policy/rules"
)

// A TestReport is the outcome of the tests in rule files.
type TestReport struct {
	Results  []rules.TestResult
	Coverage []Coverage
}

// Coverage is the number of tests in which each rule of a policy decided.
type Coverage struct {
	File   string
	Policy string
	Rules  []RuleCoverage
}

// RuleCoverage is a rule's part in the tests.
type RuleCoverage struct {
	Rule  string
	Tests int // in which it decided
}

// Tests runs the tests of the files that a set was loaded from.
func Tests(set *rules.Set) *TestReport {
	report := &TestReport{Results: set.Test()}
	decided := map[string]int{}
	for _, t := range report.Results {
		decided[t.Policy+"/"+t.Rule]++
	}
	for _, p := range set.Costs() {
		coverage := Coverage{File: p.File, Policy: p.Policy}
		for _, r := range p.Rules {
			coverage.Rules = append(coverage.Rules, RuleCoverage{r.Rule, decided[p.Policy+"/"+r.Rule]})
		}
		report.Coverage = append(report.Coverage, coverage)
	}
	return report
}

// Failed counts the tests that failed.
func (r *TestReport) Failed() int {
	n := 0
	for _, t := range r.Results {
		if len(t.Differences) > 0 {
			n++
		}
	}
	return n
}

// WriteTo writes the failed tests as differences, and a last line that counts.
func (r *TestReport) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
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
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// WriteCoverage writes which rules decided in no test, and how many did in
// some.
func (r *TestReport) WriteCoverage(w io.Writer) error {
	var b strings.Builder
	for _, c := range r.Coverage {
		covered := 0
		var missed []string
		for _, rule := range c.Rules {
			if rule.Tests > 0 {
				covered++
			} else {
				missed = append(missed, rule.Rule)
			}
		}
		fmt.Fprintf(&b, "%s: %d of %d rules decide in a test", c.Policy, covered, len(c.Rules))
		if len(missed) > 0 {
			fmt.Fprintf(&b, "; never: %s", strings.Join(missed, ", "))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
