package policy

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// A caseOf is one way for a condition to hold: all of these at once. Conditions
// are compared as text, written in CEL's own layout.
type caseOf []string

// A condition holds if one of its cases does. No cases: it never holds. An
// empty case: it always does.
type condition []caseOf

// unreachable reports rules that can never decide, because they never match
// or because rules before them match whenever they do. It sees what can be
// seen without solving anything: constants, and the && and || at the top of
// conditions.
func (c *compiler) unreachable(p *rulePolicy) {
	var before []*rule
	var seen []condition
	for _, r := range p.rules {
		cond := c.condition(r.when.ast.NativeRep(), r.when.ast.NativeRep().Expr())
		switch {
		case len(cond) == 0:
			c.errorIn(r.when.node, 0, "the rule %s never runs: its condition never holds", r.name)
		default:
			if i := covering(cond, seen); i >= 0 {
				c.errorAt(r.def.at, "the rule %s never runs: the rule %s in line %d matches whenever it would",
					r.name, before[i].name, before[i].line)
			}
		}
		if r.then.hook == "" { // a webhook may have no opinion
			before, seen = append(before, r), append(seen, cond)
		}
	}
}

// covering is the index of an earlier condition that holds whenever cond
// does, or -1. If it takes several, it is the last of them.
func covering(cond condition, earlier []condition) int {
	last := -1
	for _, one := range cond {
		by := slices.IndexFunc(earlier, func(e condition) bool {
			return slices.ContainsFunc(e, func(wider caseOf) bool { return containsAll(one, wider) })
		})
		if by < 0 {
			return -1
		}
		last = max(last, by)
	}
	return last
}

// containsAll says whether one case has every part of a wider one.
func containsAll(one, wider caseOf) bool {
	for _, part := range wider {
		if !slices.Contains(one, part) {
			return false
		}
	}
	return true
}

// maxCases bounds how far a condition is taken apart.
const maxCases = 64

// condition takes a condition apart. What it cannot take apart is one part.
func (c *compiler) condition(whole *ast.AST, e ast.Expr) condition {
	if e.Kind() == ast.CallKind && len(e.AsCall().Args()) == 2 {
		left, right := e.AsCall().Args()[0], e.AsCall().Args()[1]
		switch e.AsCall().FunctionName() {
		case operators.LogicalOr:
			return append(c.condition(whole, left), c.condition(whole, right)...)
		case operators.LogicalAnd:
			l, r := c.condition(whole, left), c.condition(whole, right)
			if len(l)*len(r) > maxCases {
				break
			}
			var out condition
			for _, a := range l {
				for _, b := range r {
					out = append(out, slices.Concat(a, b))
				}
			}
			return out
		}
	}
	text, err := cel.ExprToString(e, whole.SourceInfo())
	if err != nil {
		return condition{{fmt.Sprintf("%p", e)}} // cannot be written out, and is equal to nothing else
	}
	if value, constant := c.constantValue(e, text); constant && value {
		return condition{{}}
	} else if constant {
		return nil
	}
	return condition{{text}}
}

// constantValue evaluates a condition that looks at nothing.
func (c *compiler) constantValue(e ast.Expr, text string) (value, constant bool) {
	reads := false
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(x ast.Expr) {
		reads = reads || x.Kind() == ast.IdentKind
	}))
	if reads {
		return false, false
	}
	checked, issues := c.env.Compile(text)
	if issues != nil && issues.Err() != nil {
		return false, false
	}
	program, err := c.program(c.env, checked)
	if err != nil {
		return false, false
	}
	v, _, err := program.Eval(cel.NoVars())
	if err != nil {
		return false, false
	}
	b, ok := v.(types.Bool)
	return bool(b), ok
}
