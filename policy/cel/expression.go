package cel

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
)

// An Expression is compiled: checked, priced, and ready to run.
type Expression struct {
	Text     string
	Min, Max uint64 // cost

	ast     *cel.Ast
	program cel.Program
	loops   bool
}

// A checker checks one expression.
type checker struct {
	*Language
	*Expression
	doc    *yamlfile.Document
	node   *yamlfile.Node // the string that the expression is in
	offset int            // where it begins, in characters
}

func (c *checker) fail(offset int, format string, args ...any) {
	c.doc.ErrorIn(c.node, c.offset+offset, format, args...)
}

func (c *checker) warn(offset int, format string, args ...any) {
	c.doc.WarnIn(c.node, c.offset+offset, format, args...)
}

// Condition compiles a string of a document as an expression that is true or
// false. It returns nil after reporting a mistake. The last argument names the
// expression in reports.
func (l *Language) Condition(doc *yamlfile.Document, n *yamlfile.Node, what string) *Expression {
	return l.compile(&checker{doc: doc, node: n}, n.Value, what, cel.BoolType)
}

// Duration compiles an expression that yields a duration, as Condition does.
func (l *Language) Duration(doc *yamlfile.Document, n *yamlfile.Node, what string) *Expression {
	return l.compile(&checker{doc: doc, node: n}, n.Value, what, cel.DurationType)
}

func (l *Language) compile(c *checker, text, what string, want ...*cel.Type) *Expression {
	c.Language, c.Expression = l, &Expression{Text: text}
	if strings.TrimSpace(text) == "" {
		c.fail(0, "%s is empty", what)
		return nil
	}
	checked, issues := l.env.Compile(text)
	if issues != nil && issues.Err() != nil {
		c.issues(issues)
		return nil
	}
	c.ast = checked
	if !slices.ContainsFunc(want, checked.OutputType().IsExactType) {
		c.fail(0, "%s is a %s, not a %s", what, TypeName(want[0]), TypeName(checked.OutputType()))
		return nil
	}
	if !c.examine() {
		return nil
	}
	estimate, err := l.env.EstimateCost(checked, l.costs)
	if err != nil {
		c.fail(0, "%s: estimate its cost: %v", what, err)
		return nil
	}
	c.Min, c.Max = estimate.Min, estimate.Max
	if c.Max > l.maxCost {
		c.fail(0, "%s may cost %s; a decision may cost %d", what, costText(c.Max), l.maxCost)
		return nil
	}
	if c.program, err = l.plan(checked.NativeRep()); err != nil {
		c.fail(0, "%v", err)
		return nil
	}
	return c.Expression
}

// plan plans an expression, within the cost of a decision.
func (l *Language) plan(a *ast.AST) (cel.Program, error) {
	p, err := l.env.PlanProgram(a,
		cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost),
		cel.CostTracking(l.costs), cel.CostLimit(l.maxCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, fmt.Errorf("plan expression: %w", err)
	}
	return p, nil
}

// Holds evaluates a condition.
func (e *Expression) Holds(ctx context.Context, b *Bindings) (bool, error) {
	v, _, err := run(ctx, e.program, e.loops, b)
	return v == types.True, err
}

// Lifetime evaluates a duration, which is at least [policy.MinTTL].
func (e *Expression) Lifetime(ctx context.Context, b *Bindings) (time.Duration, error) {
	v, _, err := run(ctx, e.program, e.loops, b)
	if err != nil {
		return 0, fmt.Errorf("ttl: %w", err)
	}
	d, ok := v.(types.Duration)
	if !ok || d.Duration < policy.MinTTL {
		return 0, fmt.Errorf("ttl: %v is less than %s", v.Value(), policy.MinTTL)
	}
	return d.Duration, nil
}

// run evaluates a program. Only one with a loop can take long enough for the
// context to matter.
func run(ctx context.Context, p cel.Program, loops bool, b *Bindings) (v ref.Val, cost uint64, err error) {
	var details *cel.EvalDetails
	if loops {
		v, details, err = p.ContextEval(ctx, b)
	} else {
		v, details, err = p.Eval(b)
	}
	if c := details.ActualCost(); c != nil {
		cost = *c
	}
	if err != nil {
		return nil, cost, evaluationError(err)
	}
	return v, cost, nil
}

// TypeName returns a type as the documentation of rule files writes it.
func TypeName(t *cel.Type) string {
	switch t.TypeName() {
	case "google.protobuf.Timestamp":
		return "timestamp"
	case "google.protobuf.Duration":
		return "duration"
	}
	return readable(cel.FormatCELType(t))
}

func readable(s string) string {
	return strings.NewReplacer(
		"google.protobuf.Timestamp", "timestamp",
		"google.protobuf.Duration", "duration",
		"net.Networks", "set of networks",
		"net.CIDR", "cidr",
		"net.IP", "ip",
		"input.", "").Replace(s)
}

// costText formats a cost that may be unbounded.
func costText(n uint64) string {
	if n > 1e12 {
		return "any amount"
	}
	return fmt.Sprint(n)
}
