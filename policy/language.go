package policy

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// Limits of what an expression may be.
const (
	maxExpression = 4096 // characters
	maxNodes      = 1000 // of the syntax tree, macros expanded
	maxDepth      = 48   // of nesting
	maxLoops      = 2    // loops inside one another
	maxRegexp     = 1000 // instructions of a compiled regular expression
)

// A language is what the expressions of one file are written in: CEL with the
// input's fields, the file's own lists, and the functions of this package.
type language struct {
	env      *cel.Env
	chain    *cel.Env // the same, for a policy's rules as one expression
	table    []field
	types    []*objectType
	vars     map[string]int
	statics  map[string]ref.Val
	costs    *costs
	clock    *clock
	networks []string // names of the file's lists
	lists    []string
	pool     sync.Pool
}

// newLanguage makes the language of a file with these lists.
func newLanguage(networks map[string]*networkSet, lists map[string]*stringList) (*language, error) {
	l := &language{
		table:   inputFields(),
		vars:    map[string]int{},
		statics: map[string]ref.Val{},
		clock:   newClock(),
	}
	l.types = newObjectTypes(l.table)
	l.costs = newCosts(l.table, lists)
	opts := []cel.EnvOption{
		// dyn and type would take an expression out of the type checker's
		// sight; "in" is declared anew, with networks.
		cel.StdLib(cel.StdLibSubset(env.NewLibrarySubset().AddExcludedFunctions(
			env.NewFunction("dyn"), env.NewFunction("type"), env.NewFunction(operators.In)))),
		cel.OptionalTypes(),
		ext.Bindings(),
		ext.Strings(),
		cel.DefaultUTCTimeZone(true),
		cel.EnableMacroCallTracking(),
		cel.EnableIdentifierEscapeSyntax(),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.ExtendedValidations(),
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(maxLoops)),
	}
	opts = append(opts, networkFunctions()...)
	opts = append(opts, l.clock.functions()...)
	for i, name := range objects() {
		opts = append(opts, cel.Types(l.types[i]), cel.Variable(name, l.types[i].Type))
	}
	for i, f := range l.table {
		if f.object == "" {
			l.vars[f.name] = i
			opts = append(opts, cel.Variable(f.name, f.typ))
		}
	}
	for name, set := range networks {
		l.networks = append(l.networks, name)
		l.statics[networkVariable(name)] = set
		opts = append(opts, cel.Variable(networkVariable(name), networksType))
	}
	for name, list := range lists {
		l.lists = append(l.lists, name)
		l.statics[listVariable(name)] = list
		opts = append(opts, cel.Variable(listVariable(name), cel.ListType(cel.StringType)))
	}
	var err error
	if l.env, err = cel.NewCustomEnv(opts...); err != nil {
		return nil, fmt.Errorf("make expression language: %w", err)
	}
	l.chain, err = l.env.Extend(
		cel.ParserExpressionSizeLimit(chainRules*(maxExpression+16)),
		cel.ParserRecursionLimit(maxDepth+8*chainRules),
		cel.ExpressionNodeLimit(chainRules*(maxNodes+4)))
	if err != nil {
		return nil, fmt.Errorf("make expression language: %w", err)
	}
	l.pool.New = func() any { return l.newBindings() }
	return l, nil
}

func (l *language) newBindings() *bindings {
	b := &bindings{table: l.table, vars: l.vars, statics: l.statics, values: make([]ref.Val, len(l.table))}
	b.objects = make([]boundObject, len(l.types))
	for i, name := range objects() {
		b.objects[i] = boundObject{b: b, name: name, typ: l.types[i]}
	}
	return b
}

// bind makes an Input readable by expressions until release is called.
func (l *language) bind(in *Input) *bindings {
	b := l.pool.Get().(*bindings)
	b.in = in
	return b
}

func (l *language) release(b *bindings) {
	b.in = nil
	clear(b.values)
	l.pool.Put(b)
}
