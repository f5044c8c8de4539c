package rules

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
	"github.com/discharger/discharger/policy/rulefile"
)

// An Explanation is a decision with the trace of each rule.
type Explanation struct {
	Policy   string
	Rules    []RuleTrace
	Decision policy.Decision
	Err      error // of an undecided request
}

// Outcomes of a rule in an [Explanation].
const (
	RuleMatched    = "matched"     // decided, or its webhook had no opinion
	RuleNotMatched = "not matched" // its condition is false
	RuleFailed     = "failed"      // evaluating its condition failed
	RuleNotReached = "not reached" // an earlier rule decided
)

// A RuleTrace is the evaluation of one rule.
type RuleTrace struct {
	Rule    string
	Doc     string     // as in the file
	When    string     // the condition
	Outcome string     // one of the constants
	Err     error      // with RuleFailed
	Cost    uint64     // of the condition
	Parts   []cel.Part // evaluated parts of the condition
}

// Explain evaluates an input and traces each rule of its policy. It is much slower
// than Evaluate, and calls webhooks too.
func (s *Set) Explain(ctx context.Context, in *policy.Input) *Explanation {
	x := &Explanation{Policy: cmp.Or(in.Policy, policy.DefaultName)}
	x.Decision, x.Err = policy.Ask(ctx, s, in)
	p := s.find(x.Policy)
	if p == nil {
		return x
	}
	b := p.lang.Bind(ctx, in)
	defer p.lang.Release(b)
	decided := strings.TrimPrefix(x.Decision.Rule, p.Name+"/")
	over := false
	for _, r := range p.rules {
		t := RuleTrace{Rule: r.Name, Doc: r.Doc, When: strings.TrimSpace(r.when.Text), Outcome: RuleNotReached}
		if !over {
			t.Outcome = RuleNotMatched
			var holds bool
			if holds, t.Cost, t.Parts, t.Err = r.when.Trace(ctx, p.lang, b); t.Err != nil {
				t.Outcome = RuleFailed
			} else if holds {
				t.Outcome = RuleMatched
			}
			over = t.Err != nil || r.Name == decided || holds && r.then.hook == nil
		}
		x.Rules = append(x.Rules, t)
	}
	return x
}

// WriteTo writes the explanation as indented text.
func (x *Explanation) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "policy %s\n", x.Policy)
	for _, r := range x.Rules {
		fmt.Fprintf(&b, "  %s: %s", r.Rule, r.Outcome)
		if r.Cost > 0 {
			fmt.Fprintf(&b, " (cost %d)", r.Cost)
		}
		b.WriteByte('\n')
		if r.Outcome == RuleNotReached {
			continue
		}
		if r.Doc != "" {
			fmt.Fprintf(&b, "      %s\n", strings.Join(strings.Fields(r.Doc), " "))
		}
		fmt.Fprintf(&b, "      when: %s\n", strings.Join(strings.Fields(r.When), " "))
		for _, p := range r.Parts {
			fmt.Fprintf(&b, "      %s = %s\n", p.Text, p.Value)
		}
		if r.Err != nil {
			fmt.Fprintf(&b, "      error: %v\n", r.Err)
		}
	}
	if x.Err != nil {
		fmt.Fprintf(&b, "undecided: %v\n", x.Err)
	} else {
		fmt.Fprintf(&b, "%s\n", decisionText(x.Decision))
	}
	return b.WriteTo(w)
}

// decisionText formats a decision on one line.
func decisionText(d policy.Decision) string {
	values, empty := d.Parts(), policy.Decision{}.Parts()
	out := string(d.Effect) + " by " + d.Rule
	for _, key := range rulefile.ThenKeys() {
		if key != "effect" && values[key] != empty[key] {
			out += ", " + key + " " + values[key]
		}
	}
	return out
}
