package schema

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
	"go.yaml.in/yaml/v3"
)

// maxCost is what a check may cost, in CEL's units; ten thousand of them take
// about a millisecond. It is checked twice: the worst case when the schema is
// loaded, and what is really spent when the check is made.
const maxCost = 10_000

// maxRegexp is how large the program of a regular expression may be.
const maxRegexp = 1000

// The names that every check may use.
const (
	nameValue = "value"
	nameNow   = "now"
	nameIP    = "ip"
)

// check is a compiled check.
type check struct {
	program cel.Program
	needs   []string // what it uses of the request: now, ip, and context values
}

// compiler compiles the checks of one schema.
type compiler struct {
	source *source
	schema *Schema
	base   *cel.Env            // all but value; nil before the first check
	envs   map[string]*cel.Env // by the type of value
}

// compile reports what is wrong with the check of c, a caveat of type t, and
// returns nil, or it returns the compiled check.
func (k *compiler) compile(n *yaml.Node, c *caveat, t valueType) *check {
	what := fmt.Sprintf("check of caveat %q", c.Name)
	if utf8.RuneCountInString(n.Value) > MaxCheck {
		k.source.problem(n, ErrCheck, "%s: more than %d characters", what, MaxCheck)
		return nil
	}
	env, err := k.env(t)
	if err != nil {
		k.source.problem(n, ErrCheck, "%s: %v", what, err)
		return nil
	}
	tree, issues := env.Compile(n.Value)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			line, column := k.source.within(n, e.Location.Line(), e.Location.Column())
			k.source.add(Problem{Line: line, Column: column, Message: what + ": " + celMessage(e.Message), Err: ErrCheck})
		}
		return nil
	}
	if !tree.OutputType().IsExactType(cel.BoolType) {
		k.source.problem(n, ErrCheck, "%s: is %s, want bool", what, cel.FormatCELType(tree.OutputType()))
		return nil
	}
	names, err := inspect(tree.NativeRep())
	if err != nil {
		k.source.problem(n, ErrCheck, "%s: %v", what, err)
		return nil
	}
	estimate, err := env.EstimateCost(tree, sizes{schema: k.schema, caveat: c})
	if err != nil {
		k.source.problem(n, ErrCheck, "%s: %v", what, err)
		return nil
	}
	if estimate.Max > maxCost {
		k.source.problem(n, ErrCheck, "%s: may cost %s, at most %d; a smaller max_len or fewer loops would help",
			what, amount(estimate.Max), maxCost)
		return nil
	}
	program, err := env.Program(tree, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		k.source.problem(n, ErrCheck, "%s: %v", what, err)
		return nil
	}
	if !slices.Contains(names, nameValue) && c.Check != "true" && t.name != flagType {
		k.source.warn(n, ErrCheck, "%s: does not look at value", what)
	}
	return &check{program: program, needs: k.needs(names)}
}

// env returns the environment of checks whose value has type t.
func (k *compiler) env(t valueType) (*cel.Env, error) {
	if env := k.envs[t.name]; env != nil {
		return env, nil
	}
	if k.base == nil {
		options := []cel.EnvOption{
			ext.Network(),
			cel.DefaultUTCTimeZone(true),
			cel.ParserExpressionSizeLimit(MaxCheck),
			cel.ParserRecursionLimit(50),
			cel.ASTValidators(
				cel.ValidateDurationLiterals(),
				cel.ValidateTimestampLiterals(),
				cel.ValidateRegexLiterals(),
				cel.ValidateRegexProgramSizeLimit(maxRegexp),
				cel.ValidateHomogeneousAggregateLiterals(),
			),
			cel.Variable(nameNow, cel.TimestampType),
			cel.Variable(nameIP, ext.IPType),
		}
		for _, v := range k.schema.context {
			options = append(options, cel.Variable(v.Name, v.cel))
		}
		base, err := cel.NewEnv(options...)
		if err != nil {
			return nil, err
		}
		k.base, k.envs = base, map[string]*cel.Env{}
	}
	env, err := k.base.Extend(cel.Variable(nameValue, t.cel))
	if err != nil {
		return nil, err
	}
	k.envs[t.name] = env
	return env, nil
}

// needs keeps of the names in a check those that a request brings.
func (k *compiler) needs(names []string) []string {
	var needs []string
	for _, name := range names {
		if _, ok := k.schema.variable[name]; ok || name == nameNow || name == nameIP {
			needs = append(needs, name)
		}
	}
	return needs
}

// inspect returns the names that a check uses, each once. It refuses a
// regular expression or a time zone that is not written out in the check: a
// macaroon's holder must not choose what is compiled, or looked up on disk.
func inspect(tree *ast.AST) (names []string, err error) {
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			if name := e.AsIdent(); !slices.Contains(names, name) {
				names = append(names, name)
			}
		case ast.CallKind:
			call := e.AsCall()
			args := call.Args()
			if len(args) == 0 || args[len(args)-1].Kind() == ast.LiteralKind {
				return
			}
			if f := call.FunctionName(); f == "matches" {
				err = fmt.Errorf("the pattern of matches must be written out")
			} else if strings.HasPrefix(f, "get") && call.IsMemberFunction() {
				err = fmt.Errorf("the time zone of %s must be written out", f)
			}
		}
	}))
	return names, err
}

// celMessage returns a message of the compiler on one line, without the list
// of all tokens that could stand there.
func celMessage(message string) string {
	message, _, _ = strings.Cut(message, " expecting {")
	return printable(message)
}

// amount writes a cost, which has no bound when a size in it has none.
func amount(n uint64) string {
	if n > 1<<40 {
		return "any amount"
	}
	return fmt.Sprint(n)
}

// sizes tells the cost estimate how large the inputs of a check can be.
type sizes struct {
	schema *Schema
	caveat *caveat
}

// EstimateSize knows the size of value, of context values and of their elements.
func (s sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	path := node.Path()
	if len(path) == 0 {
		return nil
	}
	text, items := maxContextText, maxContextItems
	if path[0] == nameValue {
		// Elements of a list have one character at least and a space between.
		text, items = s.caveat.MaxLen, (s.caveat.MaxLen+1)/2
	} else if _, ok := s.schema.variable[path[0]]; !ok && path[0] != nameIP {
		return nil
	}
	size := text
	switch node.Type().Kind() {
	case types.ListKind:
		size = items
	case types.OpaqueKind: // an address or a range
		size = 16
	case types.StringKind:
	default:
		return nil
	}
	return &cost.SizeEstimate{Min: 0, Max: uint64(size)}
}

// EstimateCallCost leaves the cost of every function as CEL has it.
func (s sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// within returns the place in the file of a place in the text of a scalar:
// line from 1, column from 0. Where quoting or folding has moved the text, it
// is the place of the scalar.
func (s *source) within(n *yaml.Node, line, column int) (int, int) {
	texts := strings.Split(n.Value, "\n")
	if line < 1 || line > len(texts) || texts[line-1] == "" || column < 0 {
		return n.Line, n.Column
	}
	at, skip := n.Line, n.Column-1
	if n.Style&yaml.LiteralStyle != 0 {
		at, skip = n.Line+line, 0
	} else if len(texts) > 1 && strings.TrimSpace(n.Value) != texts[0] {
		return n.Line, n.Column
	}
	rest, ok := s.after(at, skip)
	before, _, found := strings.Cut(rest, texts[line-1])
	if !ok || !found {
		return n.Line, n.Column
	}
	return at, skip + utf8.RuneCountInString(before) + column + 1
}
