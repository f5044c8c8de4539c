package policy

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// An Explanation is how a policy came to a decision.
type Explanation struct {
	Policy   string
	Rules    []RuleTrace
	Decision Decision
	Err      error // why there is no decision
}

// Outcomes of a rule in an [Explanation].
const (
	RuleMatched    = "matched"     // it decided, or its webhook had no opinion
	RuleNotMatched = "not matched" // its condition is false
	RuleFailed     = "failed"      // its condition has no value
	RuleNotReached = "not reached" // a rule before it decided
)

// A RuleTrace is what one rule saw.
type RuleTrace struct {
	Rule    string
	Doc     string // as in the file
	When    string
	Outcome string // one of the constants
	Err     error  // with RuleFailed
	Cost    uint64
	Parts   []PartTrace
}

// A PartTrace is the value of a part of a condition. What was skipped, because
// the rest of the condition had settled it, is not among a rule's parts.
type PartTrace struct {
	Text  string
	Value string
}

// Explain decides about an input and says what each rule of its policy saw.
// It takes much longer than Evaluate, and asks webhooks as that does.
func (s *Set) Explain(ctx context.Context, in *Input) *Explanation {
	x := &Explanation{Policy: policyName(in.Policy)}
	x.Decision, x.Err = s.Evaluate(ctx, in)
	p, ok := s.policies[x.Policy]
	if !ok {
		return x
	}
	b := p.lang.bind(in)
	defer p.lang.release(b)
	decided := strings.TrimPrefix(x.Decision.Rule, p.name+"/")
	over := false
	for _, r := range p.rules {
		t := RuleTrace{Rule: r.name, Doc: r.def.doc, When: strings.TrimSpace(r.when.text), Outcome: RuleNotReached}
		if !over {
			p.lang.trace(ctx, r, b, &t)
			over = t.Outcome == RuleFailed || r.name == decided || t.Outcome == RuleMatched && r.then.hook == ""
		}
		x.Rules = append(x.Rules, t)
	}
	return x
}

// trace evaluates a condition, keeping the values of its parts.
func (l *language) trace(ctx context.Context, r *rule, b *bindings, t *RuleTrace) {
	program, err := l.env.Program(r.when.ast, cel.EvalOptions(cel.OptTrackState, cel.OptTrackCost),
		cel.CostTracking(l.costs), cel.CostLimit(r.when.max+1), cel.InterruptCheckFrequency(100))
	if err != nil {
		t.Outcome, t.Err = RuleFailed, err
		return
	}
	v, details, err := program.ContextEval(ctx, b)
	if c := details.ActualCost(); c != nil {
		t.Cost = *c
	}
	switch {
	case err != nil:
		t.Outcome, t.Err = RuleFailed, evaluationError(err)
	case v == types.True:
		t.Outcome = RuleMatched
	default:
		t.Outcome = RuleNotMatched
	}
	t.Parts = parts(r.when.ast.NativeRep(), details.State())
}

// parts lists the parts of an expression that have a value worth seeing, from
// left to right. The insides of loops have a value for each turn and are left
// out.
func parts(whole *ast.AST, state interpreter.EvalState) []PartTrace {
	var out []PartTrace
	var walk func(e ast.Expr)
	add := func(e ast.Expr) {
		text, err := cel.ExprToString(e, whole.SourceInfo())
		v, found := state.Value(e.ID())
		if err != nil || !found || slices.ContainsFunc(out, func(p PartTrace) bool { return p.Text == text }) {
			return
		}
		if shown, ok := show(v); ok {
			out = append(out, PartTrace{text, shown})
		}
	}
	walk = func(e ast.Expr) {
		switch e.Kind() {
		case ast.CallKind:
			if e.AsCall().IsMemberFunction() {
				walk(e.AsCall().Target())
			}
			for _, arg := range e.AsCall().Args() {
				walk(arg)
			}
		case ast.ComprehensionKind:
			walk(e.AsComprehension().IterRange())
		case ast.SelectKind, ast.IdentKind:
		default:
			return
		}
		if e.ID() != whole.Expr().ID() {
			add(e)
		}
	}
	walk(whole.Expr())
	return out
}

// show writes a value for people. Objects and sets have none.
func show(v ref.Val) (string, bool) {
	switch v := v.(type) {
	case types.String:
		return strconv.Quote(shorten(string(v))), true
	case types.Bool, types.Int, types.Uint, types.Double:
		return fmt.Sprint(v.Value()), true
	case types.Timestamp:
		return v.Format(time.RFC3339Nano), true
	case types.Duration:
		return v.Duration.String(), true
	case *types.Err:
		return "error: " + v.Error(), true
	case *types.Optional:
		if !v.HasValue() {
			return "none", true
		}
		return show(v.GetValue())
	}
	return "", false
}

// WriteTo writes the explanation as indented text.
func (x *Explanation) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
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
		fmt.Fprintf(&b, "%s\n", x.Decision.text())
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// text writes a decision on one line.
func (d Decision) text() string {
	values := observed(d)
	empty := observed(Decision{})
	out := string(d.Effect) + " by " + d.Rule
	for _, key := range thenKeys() {
		if key != "effect" && values[key] != empty[key] {
			out += ", " + key + " " + values[key]
		}
	}
	return out
}
