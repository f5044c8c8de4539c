package cel

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// A Part is a part of a condition with its value, for people.
type Part struct{ Text, Value string }

// Trace evaluates a condition like [Expression.Holds] and returns its cost and its
// evaluated parts.
func (e *Expression) Trace(ctx context.Context, l *Language, b *Bindings) (holds bool, cost uint64, parts []Part, err error) {
	program, err := l.env.Program(e.ast, cel.EvalOptions(cel.OptTrackState, cel.OptTrackCost),
		cel.CostTracking(l.costs), cel.CostLimit(e.Max+1), cel.InterruptCheckFrequency(100))
	if err != nil {
		return false, 0, nil, err
	}
	v, details, err := program.ContextEval(ctx, b)
	if c := details.ActualCost(); c != nil {
		cost = *c
	}
	return v == types.True, cost, partsOf(e.ast.NativeRep(), details.State()), evaluationError(err)
}

// partsOf returns the parts of an expression with printable values, from
// left to right. It omits the bodies of loops, which have many values.
func partsOf(whole *ast.AST, state interpreter.EvalState) []Part {
	var out []Part
	var walk func(e ast.Expr)
	add := func(e ast.Expr) {
		text, err := cel.ExprToString(e, whole.SourceInfo())
		v, found := state.Value(e.ID())
		if err != nil || !found || slices.ContainsFunc(out, func(p Part) bool { return p.Text == text }) {
			return
		}
		if shown, ok := show(v); ok {
			out = append(out, Part{text, shown})
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

// show formats a value for people; objects and sets have no format.
func show(v ref.Val) (string, bool) {
	switch v := v.(type) {
	case types.String:
		return fmt.Sprintf("%.60q", string(v)), true
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
