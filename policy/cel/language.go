// Package cel compiles and evaluates the expressions of rule files. They are
// written in CEL, the expression language of Kubernetes.
//
// An expression can read the fields of a [policy.Input] under their JSON names ([Fields])
// and the lists of its file. Beside the functions of CEL, its optional values, strings
// and the network functions of Kubernetes, there are
//
//	addr in networks.office              and in cidr("10.0.0.0/8"), cidrs("10.0.0.0/8 192.0.2.7")
//	sameNetwork(addr, addr, 24, 48)      same first 24 bits of IPv4, or 48 of IPv6
//	now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")
//	days(90)                             a duration of 90 times 24 hours
//
// An expression is compiled once. The compiler checks types, names, literals
// and the worst-case cost, and reports mistakes with their positions. A [Chain] joins the
// conditions of a policy.
//
// Reading a field without a value, such as an unknown address or a missing label, is an
// error and has no default, because every default is unsafe for some rule. A template's
// value that is not one word, and a cost above the limit ([ErrCost]), are errors too.
package cel

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"github.com/discharger/discharger/policy"
)

// Limits of an expression.
const (
	MaxExpression = 4096 // characters
	maxNodes      = 1000 // of the syntax tree, macros expanded
	maxDepth      = 48   // of nesting
	maxLoops      = 2    // loops inside one another
	maxRegexp     = 1000 // instructions of a compiled regular expression
)

// A Language compiles the expressions of one file: CEL with the
// fields of the input, the lists of the file, and the functions of this package.
type Language struct {
	Config
	env     *cel.Env
	table   []Field
	types   []*objectType
	vars    map[string]int
	statics map[string]ref.Val
	costs   *costs
	clock   *clock
	pool    sync.Pool
}

// Config has the lists of a file and the cost limit.
type Config struct {
	Networks map[string][]netip.Prefix // as networks.name
	Lists    map[string][]string       // as lists.name
	MaxCost  uint64                    // bound of the cost of one decision
}

// New returns a language.
func New(cfg Config) (*Language, error) {
	lists := map[string]*stringList{}
	for name, values := range cfg.Lists {
		lists[name] = newStringList(values)
	}
	l := &Language{
		Config:  cfg,
		table:   Fields(),
		vars:    map[string]int{},
		statics: map[string]ref.Val{},
		clock:   &clock{zones: map[string]*time.Location{}, windows: map[string]window{}},
	}
	l.types = newObjectTypes(l.table)
	l.costs = newCosts(l.table, lists)
	opts := []cel.EnvOption{
		// dyn and type would bypass the type checker; networkFunctions declares "in".
		cel.StdLib(cel.StdLibSubset(env.NewLibrarySubset().AddExcludedFunctions(
			env.NewFunction("dyn"), env.NewFunction("type"), env.NewFunction(operators.In)))),
		cel.OptionalTypes(),
		ext.Bindings(),
		ext.Strings(),
		cel.DefaultUTCTimeZone(true),
		cel.EnableMacroCallTracking(),
		cel.EnableIdentifierEscapeSyntax(),
		cel.ParserExpressionSizeLimit(MaxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.ExtendedValidations(),
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(maxLoops)),
	}
	opts = append(opts, networkFunctions()...)
	opts = append(opts, l.clock.functions()...)
	for i, name := range Objects() {
		opts = append(opts, cel.Types(l.types[i]), cel.Variable(name, l.types[i].Type))
	}
	for i, f := range l.table {
		if f.Object == "" {
			l.vars[f.Name] = i
			opts = append(opts, cel.Variable(f.Name, f.Type))
		}
	}
	for name, prefixes := range cfg.Networks {
		l.statics[networkPrefix+name] = newNetworkSet(prefixes)
		opts = append(opts, cel.Variable(networkPrefix+name, networksType))
	}
	for name, list := range lists {
		l.statics[listPrefix+name] = list
		opts = append(opts, cel.Variable(listPrefix+name, cel.ListType(cel.StringType)))
	}
	var err error
	if l.env, err = cel.NewCustomEnv(opts...); err != nil {
		return nil, fmt.Errorf("create expression language: %w", err)
	}
	l.pool.New = func() any { return l.newBindings() }
	return l, nil
}

func (l *Language) newBindings() *Bindings {
	b := &Bindings{table: l.table, vars: l.vars, statics: l.statics, values: make([]ref.Val, len(l.table))}
	b.objects = make([]boundObject, len(l.types))
	for i, name := range Objects() {
		b.objects[i] = boundObject{b: b, name: name, typ: l.types[i]}
	}
	return b
}

// Bind returns the bindings of an Input for evaluations with ctx. The caller releases
// them.
func (l *Language) Bind(ctx context.Context, in *policy.Input) *Bindings {
	b := l.pool.Get().(*Bindings)
	b.ctx, b.in = ctx, in
	return b
}

// Release recycles bindings.
func (l *Language) Release(b *Bindings) {
	b.ctx, b.in = nil, nil
	clear(b.values)
	l.pool.Put(b)
}
