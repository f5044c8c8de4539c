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

// An Expression is a compiled expression: checked, with its cost, ready to run.
type Expression struct {
	Text     string // source
	Min, Max uint64 // bounds of the cost

	ast     *cel.Ast
	program cel.Program
	loops   bool
}

// A checker compiles one expression.
type checker struct {
	*Language
	*Expression
	doc    *yamlfile.Document
	node   *yamlfile.Node // string that contains the expression
	offset int            // of the expression in the string, in characters
	failed bool           // examine found a mistake
}

func (c *checker) fail(offset int, format string, args ...any) {
	c.doc.ErrorIn(c.node, c.offset+offset, format, args...)
}

func (c *checker) warn(offset int, format string, args ...any) {
	c.doc.WarnIn(c.node, c.offset+offset, format, args...)
}

// Condition compiles a string of a document as an expression of type bool. It reports
// mistakes in the document, with name for the expression, and returns nil then.
func (l *Language) Condition(doc *yamlfile.Document, n *yamlfile.Node, name string) *Expression {
	return l.compile(&checker{doc: doc, node: n}, n.Value, name, cel.BoolType)
}

// Duration compiles an expression of type duration like [Language.Condition].
func (l *Language) Duration(doc *yamlfile.Document, n *yamlfile.Node, name string) *Expression {
	return l.compile(&checker{doc: doc, node: n}, n.Value, name, cel.DurationType)
}

func (l *Language) compile(c *checker, text, name string, want ...*cel.Type) *Expression {
	c.Language, c.Expression = l, &Expression{Text: text}
	if strings.TrimSpace(text) == "" {
		c.fail(0, "%s is empty", name)
		return nil
	}
	checked, issues := l.env.Compile(text)
	if issues != nil && issues.Err() != nil {
		c.issues(issues)
		return nil
	}
	c.ast = checked
	if !slices.ContainsFunc(want, checked.OutputType().IsExactType) {
		c.fail(0, "%s: want type %s, got %s", name, TypeName(want[0]), TypeName(checked.OutputType()))
		return nil
	}
	if !c.examine() {
		return nil
	}
	estimate, err := l.env.EstimateCost(checked, l.costs)
	if err != nil {
		c.fail(0, "%s: estimate cost: %v", name, err)
		return nil
	}
	c.Min, c.Max = estimate.Min, estimate.Max
	if c.Max > l.MaxCost {
		c.fail(0, "%s may cost %s, want at most %d", name, costText(c.Max), l.MaxCost)
		return nil
	}
	if c.program, err = l.plan(checked.NativeRep()); err != nil {
		c.fail(0, "%v", err)
		return nil
	}
	return c.Expression
}

// plan returns the program of an expression, limited to the cost of a decision.
func (l *Language) plan(a *ast.AST) (cel.Program, error) {
	p, err := l.env.PlanProgram(a,
		cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost),
		cel.CostTracking(l.costs), cel.CostLimit(l.MaxCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, fmt.Errorf("plan expression: %w", err)
	}
	return p, nil
}

// Holds returns the value of a condition.
func (e *Expression) Holds(ctx context.Context, b *Bindings) (bool, error) {
	v, _, err := run(ctx, e.program, e.loops, b)
	return v == types.True, err
}

// Lifetime returns the value of a duration. It returns an error if that is less than
// [policy.MinTTL].
func (e *Expression) Lifetime(ctx context.Context, b *Bindings) (time.Duration, error) {
	v, _, err := run(ctx, e.program, e.loops, b)
	if err != nil {
		return 0, fmt.Errorf("ttl: %w", err)
	}
	d, ok := v.(types.Duration)
	if !ok || d.Duration < policy.MinTTL {
		return 0, fmt.Errorf("ttl: want at least %s, got %v", policy.MinTTL, v.Value())
	}
	return d.Duration, nil
}

// run evaluates a program. Programs without loops are too short to be
// interrupted by the context.
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

// TypeName returns the name of a type in the documentation of rule files.
func TypeName(t *cel.Type) string { return readable(cel.FormatCELType(t)) }

// readable replaces the names of types in a message of CEL.
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
		return "an unbounded amount"
	}
	return fmt.Sprint(n)
}
