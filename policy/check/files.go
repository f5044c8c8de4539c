// Package check examines rule files and decisions, for the people who write
// them: it reports mistakes and costs, runs the tests in rule files, records
// decisions, decides recorded ones again with other rules, and compares a
// candidate with the rules in force while they answer.
//
// It never changes a decision, and never delays one by more than a copy of its
// input.
package check

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/rules"
)

// A FileReport is the result of reading rule files without running them.
type FileReport struct {
	Problems yamlfile.Problems
	Costs    []rules.PolicyCost
}

// Files compiles rule files and reports everything that is wrong or doubtful
// in them. It reads no keys, calls no webhook, and runs no tests. The error is
// about files that cannot be read.
func Files(cfg rules.Config) (*FileReport, error) {
	set, problems, err := rules.Compile(cfg)
	if err != nil {
		return nil, err
	}
	return &FileReport{Problems: problems, Costs: set.Costs()}, nil
}

// OK reports whether the files can be used.
func (r *FileReport) OK() bool { return r.Problems.Err() == nil }

// WriteTo writes the problems with their places, and the costs as a table.
func (r *FileReport) WriteTo(w io.Writer) (int64, error) {
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
