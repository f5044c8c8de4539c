package policy

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"go.yaml.in/yaml/v3"
)

// An expression is a piece of CEL in a rule file, type-checked and priced.
type expression struct {
	text     string
	node     *yaml.Node // the string it is in
	offset   int        // where in that string it begins, in characters
	ast      *cel.Ast
	min, max uint64 // cost
	loops    bool
	reads    map[string]bool // paths of the fields it looks at
}

// A compiler turns the expressions of one file into programs.
type compiler struct {
	*source
	*language
	maxCost uint64
	caveats CaveatChecker
}

// compile checks an expression, reporting what is wrong with it. It returns
// nil if anything is. what names it in messages.
func (c *compiler) compile(node *yaml.Node, offset int, text, what string, want ...*cel.Type) *expression {
	if strings.TrimSpace(text) == "" {
		c.errorIn(node, offset, "%s is empty", what)
		return nil
	}
	e := &expression{text: text, node: node, offset: offset}
	checked, issues := c.env.Compile(text)
	if issues != nil && issues.Err() != nil {
		c.issues(e, issues)
		return nil
	}
	e.ast = checked
	if !oneOf(checked.OutputType(), want) {
		c.errorIn(node, offset, "%s is a %s, not a %s", what, typeName(want[0]), typeName(checked.OutputType()))
		return nil
	}
	if !c.examine(e) {
		return nil
	}
	estimate, err := c.env.EstimateCost(checked, c.costs)
	if err != nil {
		c.errorIn(node, offset, "%s: estimate its cost: %v", what, err)
		return nil
	}
	e.min, e.max = estimate.Min, estimate.Max
	if e.max > c.maxCost {
		c.errorIn(node, offset, "%s may cost %s; a decision may cost %d", what, costText(e.max), c.maxCost)
		return nil
	}
	return e
}

// program makes an expression runnable, within the cost of a decision.
func (c *compiler) program(env *cel.Env, a *cel.Ast) (cel.Program, error) {
	p, err := env.Program(a,
		cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost),
		cel.CostTracking(c.costs), cel.CostLimit(c.maxCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, fmt.Errorf("plan expression: %w", err)
	}
	return p, nil
}

func oneOf(t *cel.Type, want []*cel.Type) bool {
	for _, w := range want {
		if t.IsExactType(w) {
			return true
		}
	}
	return false
}

// typeName is what a rule file's author calls a type.
func typeName(t *cel.Type) string {
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

// costText prints a cost that may have no bound.
func costText(n uint64) string {
	if n > 1e12 {
		return "any amount"
	}
	return fmt.Sprint(n)
}
