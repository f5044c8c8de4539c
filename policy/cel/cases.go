package cel

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// A conjunction is a case of a condition: parts that all have to hold.
// Parts are compared as text in CEL's layout.
type conjunction []string

// Cases are the disjunctive form of a condition. It is always false without a case, and
// always true with an empty one.
type Cases []conjunction

// Cases returns the cases of a condition. It evaluates constants and expands the && and ||
// at the top of the condition only.
func (l *Language) Cases(e *Expression) Cases {
	return l.cases(e.ast.NativeRep(), e.ast.NativeRep().Expr())
}

// CoveredBy returns the index of the earlier condition that c implies, or -1. If several
// cover c together, it is the last of them.
func (c Cases) CoveredBy(earlier []Cases) int {
	last := -1
	for _, one := range c {
		by := slices.IndexFunc(earlier, func(e Cases) bool {
			return slices.ContainsFunc(e, func(wider conjunction) bool {
				return !slices.ContainsFunc(wider, func(part string) bool { return !slices.Contains(one, part) })
			})
		})
		if by < 0 {
			return -1
		}
		last = max(last, by)
	}
	return last
}

// maxCases bounds the expansion of a condition.
const maxCases = 64

// cases returns the cases of an expression. Operators other than && and || are one part.
func (l *Language) cases(whole *ast.AST, e ast.Expr) Cases {
	if e.Kind() == ast.CallKind && len(e.AsCall().Args()) == 2 {
		left, right := e.AsCall().Args()[0], e.AsCall().Args()[1]
		switch e.AsCall().FunctionName() {
		case operators.LogicalOr:
			return append(l.cases(whole, left), l.cases(whole, right)...)
		case operators.LogicalAnd:
			a, b := l.cases(whole, left), l.cases(whole, right)
			if len(a)*len(b) > maxCases {
				break
			}
			var out Cases
			for _, x := range a {
				for _, y := range b {
					out = append(out, slices.Concat(x, y))
				}
			}
			return out
		}
	}
	text, err := cel.ExprToString(e, whole.SourceInfo())
	if err != nil {
		return Cases{{fmt.Sprintf("%p", e)}} // equal to no other part
	}
	if value, constant := l.constant(whole, e); constant && value {
		return Cases{{}}
	} else if constant {
		return nil
	}
	return Cases{{text}}
}

// constant evaluates a condition without variables.
func (l *Language) constant(whole *ast.AST, e ast.Expr) (value, constant bool) {
	reads := false
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(x ast.Expr) {
		reads = reads || x.Kind() == ast.IdentKind
	}))
	if reads {
		return false, false
	}
	program, err := l.plan(ast.NewCheckedAST(ast.NewAST(e, whole.SourceInfo()), whole.TypeMap(), whole.ReferenceMap()))
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
