package check

import (
	"fmt"
	"io"
	"strings"

	"github.com/discharger/discharger/policy/rules"
)

// A TestReport is the result of the tests in rule files.
type TestReport struct {
	Results  []rules.TestResult
	Coverage []Coverage
}

// Coverage is the list of a policy's rules with the number of tests that each decided.
type Coverage struct {
	File   string
	Policy string
	Rules  []RuleCoverage
}

// RuleCoverage is the number of tests that a rule decided.
type RuleCoverage struct {
	Rule  string
	Tests int // decided by the rule
}

// Tests runs the tests in the files of a set.
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

// WriteCoverage writes, for each policy, the number of rules that decided a test and the names
// of the others.
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
