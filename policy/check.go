package policy

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A CheckReport is what can be said about rule files without running them.
type CheckReport struct {
	Problems Problems
	Costs    []PolicyCost
}

// PolicyCost is what decisions of one policy cost at most.
type PolicyCost struct {
	File   string
	Policy string
	Rules  []RuleCost
	Max    uint64 // of one decision: all conditions, and the dearest outcome
	Limit  uint64
}

// RuleCost is what one rule costs, otherwise included. Min and Max are of its
// condition; Outcome is the most that working out what it decides takes.
type RuleCost struct {
	Rule     string
	Line     int
	Min, Max uint64
	Outcome  uint64
}

// Check compiles rule files and reports everything that is wrong or doubtful
// in them. It reads no keys, asks no webhook, and runs no tests. The error is
// about files that cannot be read.
func Check(cfg LoadConfig) (*CheckReport, error) {
	cfg.Offline = true
	set, problems, err := newLoader(cfg).load()
	if err != nil {
		return nil, err
	}
	report := &CheckReport{Problems: problems}
	for _, p := range set.ordered() {
		report.Costs = append(report.Costs, p.costs())
	}
	return report, nil
}

// ruleOverhead is what choosing between two rules costs, beside their
// conditions.
const ruleOverhead = 2

// costs is the price list of a policy.
func (p *rulePolicy) costs() PolicyCost {
	c := PolicyCost{File: p.file, Policy: p.name, Limit: p.maxCost}
	var outcome uint64
	all := p.rules
	if p.otherwise != nil {
		all = append(slices.Clone(all), p.otherwise)
	}
	for _, r := range all {
		cost := RuleCost{Rule: r.name, Line: r.line}
		if r.when != nil {
			cost.Min, cost.Max = r.when.min, r.when.max
			c.Max += cost.Max + ruleOverhead
		}
		if r.then != nil {
			cost.Outcome = r.then.cost()
		}
		c.Rules = append(c.Rules, cost)
		outcome = max(outcome, cost.Outcome)
	}
	c.Max += outcome
	return c
}

// OK reports whether the files can be used.
func (r *CheckReport) OK() bool { return r.Problems.err() == nil }

// WriteTo writes the problems with their places, and the costs as a table.
func (r *CheckReport) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
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
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
