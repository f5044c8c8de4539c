// Package check has the tools for changing rule files safely. [Files] reports mistakes and
// costs, [Tests] runs the tests in rule files, [Audit] records
// decisions, [Diff] evaluates recorded inputs with other rules, and [Shadow] evaluates a
// candidate beside the rules in force.
//
// Audit and Shadow never change a decision and delay it by a copy of its
// input only.
package check

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/rules"
)

// A FileReport is the result of [Files].
type FileReport struct {
	Problems yamlfile.Problems
	Costs    []rules.PolicyCost
}

// Files compiles rule files and reports errors, warnings and costs.
// It reads no keys, calls no webhook, and runs no tests. The error is that
// of reading the files.
func Files(cfg rules.Config) (*FileReport, error) {
	set, problems, err := rules.Compile(cfg)
	if err != nil {
		return nil, err
	}
	return &FileReport{Problems: problems, Costs: set.Costs()}, nil
}

// OK reports whether the files have warnings at most.
func (r *FileReport) OK() bool { return r.Problems.Err() == nil }

// WriteTo writes the problems with their positions, and the costs as tables.
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
