package cel

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// A conjunction is one way for a condition to hold: all of these at once.
// Conditions are compared as text, written in CEL's own layout.
type conjunction []string

// Cases are a condition as alternatives. Without a case it never holds; with
// an empty one it always does.
type Cases []conjunction

// Cases takes a condition apart. It sees constants, and the && and || at the
// top of the condition, and solves nothing.
func (l *Language) Cases(e *Expression) Cases {
	return l.cases(e.ast.NativeRep(), e.ast.NativeRep().Expr())
}

// CoveredBy returns the index of an earlier condition that holds whenever c
// does, or -1. If it takes several, it is the last of them.
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

// maxCases bounds how far a condition is taken apart.
const maxCases = 64

// cases takes an expression apart. One that cannot be taken apart is one part.
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
		return Cases{{fmt.Sprintf("%p", e)}} // cannot be written out, and is equal to nothing else
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
