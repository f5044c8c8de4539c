package rules

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rulefile"
	"github.com/discharger/discharger/policy/webhook"
)

// A TestResult is the result of one test in a rule file.
type TestResult struct {
	File        string
	Line        int
	Policy      string
	Name        string
	Rule        string       // that decided; "": undecided
	Differences []Difference // none: the test passed
	column      int
}

// A Difference is a part of a decision that differs from the expectation of a test.
type Difference struct {
	Key  string // of expect
	Want string
	Got  string
}

// Test runs the tests of the policies in the operator's files. It calls no
// webhook: a test contains their answers.
func (s *Set) Test() []TestResult {
	var all []TestResult
	for _, p := range s.ordered() {
		for _, t := range p.Tests {
			all = append(all, s.runTest(p, t))
		}
	}
	return all
}

func (s *Set) runTest(p *namedPolicy, t *rulefile.Test) TestResult {
	in := *t.Input
	in.Policy = p.Name
	d, err := policy.Ask(webhook.WithStubs(context.Background(), t.Hooks), s, &in)
	rule := strings.TrimPrefix(d.Rule, p.Name+"/")
	return TestResult{
		File: p.file, Line: t.At.Line, Policy: p.Name, Name: t.Name, Rule: rule,
		Differences: compare(t.Expect, d, rule, err), column: t.At.Column,
	}
}

// compare returns the differences of a decision, or of err, from an expectation.
func compare(e rulefile.Expectation, d policy.Decision, rule string, err error) []Difference {
	switch {
	case err != nil && !e.Undecided:
		return []Difference{{"effect", string(e.Decision.Effect), rulefile.Undecided + ": " + err.Error()}}
	case err != nil && !strings.Contains(err.Error(), e.Reason):
		return []Difference{{"error", e.Reason, err.Error()}}
	case err != nil:
		return nil
	case e.Undecided:
		return []Difference{{"effect", rulefile.Undecided, string(d.Effect) + " by rule " + rule}}
	}
	want, got := e.Decision.Parts(), d.Parts()
	want["rule"], got["rule"] = e.Decision.Rule, rule
	var all []Difference
	for _, key := range e.Keys {
		if want[key] != got[key] {
			all = append(all, Difference{key, want[key], got[key]})
		}
	}
	if len(all) > 0 && want["rule"] == "" {
		all = append(all, Difference{"rule", "", rule})
	}
	return all
}

// failures returns the failed tests as problems of their files.
func failures(results []TestResult) yamlfile.Problems {
	var ps yamlfile.Problems
	for _, t := range results {
		if len(t.Differences) == 0 {
			continue
		}
		var parts []string
		for _, d := range t.Differences {
			if d.Want != "" || d.Key != "rule" {
				got, want := cmp.Or(d.Got, "empty"), cmp.Or(d.Want, "empty")
				parts = append(parts, fmt.Sprintf("%s is %s, want %s", d.Key, got, want))
			} else {
				parts = append(parts, "decided by rule "+d.Got)
			}
		}
		ps = append(ps, &yamlfile.Problem{File: t.File, Line: t.Line, Column: t.column, Width: 1,
			Message: fmt.Sprintf("test %.60q of policy %s fails: %s", t.Name, t.Policy, strings.Join(parts, "; "))})
	}
	return ps
}
