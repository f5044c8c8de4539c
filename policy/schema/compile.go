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

	"github.com/discharger/discharger/config/yamlfile"
)

// maxCost bounds the cost of a check, in CEL's units: ten thousand take about a
// millisecond. The worst case is bounded when the schema is loaded, and the actual
// cost when the check is evaluated.
const maxCost = 10_000

// maxRegexp bounds the program of a regular expression.
const maxRegexp = 1000

// Names in every check.
const (
	nameValue = "value"
	nameNow   = "now"
	nameIP    = "ip"
)

// check is a compiled check.
type check struct {
	program cel.Program
	needs   []string // names whose values come with the request
}

// compiler has the CEL environments of one schema's checks.
type compiler struct {
	base *cel.Env            // all but value; nil before the first check
	envs map[string]*cel.Env // by the type of value
}

// compile returns the compiled check of c, a caveat of type t, or reports why
// there is none.
func (d *decoder) compile(n *yamlfile.Node, c *caveat, t valueType) *check {
	d.Kind = ErrCheck
	defer func() { d.Kind = ErrParse }()
	path := fmt.Sprintf("check of caveat %q", c.Name)
	if utf8.RuneCountInString(n.Value) > MaxCheck {
		d.Invalid(n, path, "want at most %d characters", MaxCheck)
		return nil
	}
	env, err := d.env(t)
	if err != nil {
		d.Invalid(n, path, "%v", err)
		return nil
	}
	tree, issues := env.Compile(n.Value)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			line, column := d.Position(n, offset(n.Value, e.Location.Line(), e.Location.Column()))
			d.Report(&yamlfile.Problem{Line: line, Column: column, Path: path, Message: celMessage(e.Message)})
		}
		return nil
	}
	var program cel.Program
	names, err := d.admit(env, tree, c)
	if err == nil {
		program, err = env.Program(tree, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	}
	if err != nil {
		d.Invalid(n, path, "%v", err)
		return nil
	}
	if !slices.Contains(names, nameValue) && c.Check != "true" && t.name != flagType {
		d.Warnf(n, "%s: value is not used", path)
	}
	needs := slices.DeleteFunc(names, func(name string) bool {
		_, declared := d.schema.variable[name]
		return !declared && name != nameNow && name != nameIP
	})
	return &check{program: program, needs: needs}
}

// admit returns the names that a check uses, or an error if the check is not a
// boolean, compiles text of a holder, or may cost too much.
func (d *decoder) admit(env *cel.Env, tree *cel.Ast, c *caveat) ([]string, error) {
	if !tree.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("want bool, got %s", cel.FormatCELType(tree.OutputType()))
	}
	names, err := inspect(tree.NativeRep())
	if err != nil {
		return nil, err
	}
	estimate, err := env.EstimateCost(tree, sizes{schema: d.schema, caveat: c})
	if err != nil {
		return nil, err
	}
	if estimate.Max > maxCost {
		return nil, fmt.Errorf("may cost %s, want at most %d; a smaller max_len or fewer loops would help", amount(estimate.Max), maxCost)
	}
	return names, nil
}

// env returns the environment of checks whose value has type t.
func (d *decoder) env(t valueType) (*cel.Env, error) {
	k := &d.compiler
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
		for _, v := range d.schema.context {
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

// inspect returns the names in a check, each once. It returns an error for a regular
// expression or a time zone that is not a literal: the holder of a macaroon must not
// choose one.
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
				err = fmt.Errorf("the pattern of matches must be a literal")
			} else if strings.HasPrefix(f, "get") && call.IsMemberFunction() {
				err = fmt.Errorf("the time zone of %s must be a literal", f)
			}
		}
	}))
	return names, err
}

// maxMessage bounds a message of the CEL compiler, in characters.
const maxMessage = 300

// celMessage returns a message of the compiler on one line, without the list of
// all tokens that could stand there.
func celMessage(message string) string {
	message, _, _ = strings.Cut(message, " expecting {")
	runes := []rune(strings.Join(strings.Fields(message), " "))
	if len(runes) > maxMessage {
		return string(runes[:maxMessage]) + "…"
	}
	return string(runes)
}

// offset returns the offset in characters of a place in a text: line from 1,
// column from 0.
func offset(text string, line, column int) int {
	at := 0
	for l := range strings.SplitSeq(text, "\n") {
		if line--; line <= 0 {
			break
		}
		at += utf8.RuneCountInString(l) + 1
	}
	return at + max(0, column)
}

// amount formats a cost, which is unbounded if a size in it is.
func amount(n uint64) string {
	if n > 1<<40 {
		return "any amount"
	}
	return fmt.Sprint(n)
}

// sizes has the greatest sizes of the inputs of a check, for its cost.
type sizes struct {
	schema *Schema
	caveat *caveat
}

// EstimateSize returns the size of value, of a context value or of their elements.
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

// EstimateCallCost returns nil: functions have the cost that CEL defines.
func (s sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}
