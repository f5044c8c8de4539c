package policy

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A TestReport is the outcome of the tests in rule files.
type TestReport struct {
	Results  []TestResult
	Coverage []Coverage
}

// A TestResult is the outcome of one test.
type TestResult struct {
	File        string
	Line        int
	Policy      string
	Name        string
	Differences []Difference // none: it passed
	at          *yaml.Node
}

// A Difference is one thing that a test expected otherwise.
type Difference struct {
	Key  string
	Want string
	Got  string
}

// Coverage says which of a policy's rules decided in how many tests.
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

// RunTests runs the tests of the files that the set was loaded from. It asks
// no webhook: a test says what those answer.
func (s *Set) RunTests() *TestReport { return s.test() }

func (s *Set) test() *TestReport {
	report := &TestReport{}
	for _, p := range s.ordered() {
		coverage := Coverage{File: p.file, Policy: p.name}
		decided := map[string]int{}
		for _, t := range p.tests {
			result, rule := s.runTest(p, t)
			decided[rule]++
			report.Results = append(report.Results, result)
		}
		for _, r := range append(slices.Clone(p.rules), p.otherwise) {
			coverage.Rules = append(coverage.Rules, RuleCoverage{r.name, decided[r.name]})
		}
		report.Coverage = append(report.Coverage, coverage)
	}
	return report
}

// ordered returns the policies that come from the operator's files, in their
// order.
func (s *Set) ordered() []*rulePolicy {
	var all []*rulePolicy
	for _, p := range s.policies {
		if !p.builtin {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *rulePolicy) int { return a.order - b.order })
	return all
}

// runTest runs one test and names the rule that decided.
func (s *Set) runTest(p *rulePolicy, t *testDef) (TestResult, string) {
	result := TestResult{File: p.file, Line: t.at.Line, Policy: p.name, Name: t.name, at: t.at}
	in := *t.input
	in.Policy = p.name
	d, err := s.Evaluate(withStubs(context.Background(), t.hooks), &in)
	rule := strings.TrimPrefix(d.Rule, p.name+"/")
	result.Differences = t.expect.compare(d, rule, err)
	return result, rule
}

// compare lists what is not as expected.
func (e expectation) compare(d Decision, rule string, err error) []Difference {
	switch {
	case err != nil && !e.undecided:
		return []Difference{{"effect", e.values["effect"], undecided + ": " + err.Error()}}
	case err != nil && !strings.Contains(err.Error(), e.reason):
		return []Difference{{"error", e.reason, err.Error()}}
	case err != nil:
		return nil
	case e.undecided:
		return []Difference{{"effect", undecided, string(d.Effect) + " by the rule " + rule}}
	}
	got := observed(d)
	got["rule"] = rule
	var all []Difference
	for _, key := range e.keys {
		if e.values[key] != got[key] {
			all = append(all, Difference{key, e.values[key], got[key]})
		}
	}
	if len(all) > 0 && e.values["rule"] == "" {
		all = append(all, Difference{"rule", "", rule})
	}
	return all
}

// observed writes a decision's parts as text, by their JSON names.
func observed(d Decision) map[string]string {
	return map[string]string{
		"effect":        string(d.Effect),
		"ttl":           d.TTL.String(),
		"caveats":       listText(d.Caveats),
		"code":          d.Code,
		"message":       d.Message,
		"soft_logout":   strconv.FormatBool(d.SoftLogout),
		"labels":        labelsText(d.Labels),
		"keep_sessions": strconv.Itoa(d.KeepSessions),
		"retry_after":   d.RetryAfter.String(),
	}
}

func listText(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func labelsText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+": "+strconv.Quote(labels[k]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
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

// problems returns the failed tests as problems of their files.
func (r *TestReport) problems() Problems {
	var ps Problems
	for _, t := range r.Results {
		if len(t.Differences) == 0 {
			continue
		}
		var parts []string
		for _, d := range t.Differences {
			if d.Want != "" || d.Key != "rule" {
				parts = append(parts, fmt.Sprintf("%s is %s, not %s", d.Key, orNothing(d.Got), orNothing(d.Want)))
			} else {
				parts = append(parts, "decided by the rule "+d.Got)
			}
		}
		ps = append(ps, &Problem{File: t.File, Line: t.Line, Column: t.at.Column, Width: 1,
			Message: fmt.Sprintf("the test %q of the policy %s fails: %s", shorten(t.Name), t.Policy, strings.Join(parts, "; "))})
	}
	return ps
}

func orNothing(s string) string {
	if s == "" {
		return "empty"
	}
	return s
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

// A hookStub is what a webhook answers in a test.
type hookStub struct {
	answer
	err error
}

type hookStubs map[string]hookStub

type stubsKey struct{}

// withStubs makes webhooks answer from stubs, and asks none.
func withStubs(ctx context.Context, stubs hookStubs) context.Context {
	return context.WithValue(ctx, stubsKey{}, stubs)
}

// stubbed returns the stub of a webhook, if stubs are in use.
func stubbed(ctx context.Context, w *webhook) (stub hookStub, ok bool) {
	stubs, ok := ctx.Value(stubsKey{}).(hookStubs)
	if !ok {
		return hookStub{}, false
	}
	stub, given := stubs[w.name]
	if !given {
		return hookStub{err: errOffline}, true
	}
	return stub, true
}
