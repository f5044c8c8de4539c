package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// A CaveatChecker knows which caveats the homeservers understand.
type CaveatChecker interface {
	// KnowsCaveat returns nil if a homeserver would understand a first-party
	// caveat with this condition, and else what is wrong with it. It is asked
	// when a policy is loaded about every caveat that the policy writes out,
	// and at each decision about those that depend on the input.
	KnowsCaveat(condition string) error
}

// CaveatCheckerFunc is a function that is a [CaveatChecker].
type CaveatCheckerFunc func(condition string) error

// KnowsCaveat calls f.
func (f CaveatCheckerFunc) KnowsCaveat(condition string) error { return f(condition) }

// ErrCost is why a decision that took more than its share was given up.
var ErrCost = errors.New("the decision cost more than it may")

// A rulePolicy is one named policy, compiled.
type rulePolicy struct {
	name      string
	doc       string
	file      string
	lang      *language
	rules     []*rule
	otherwise *rule
	chains    []chain
	maxCost   uint64
	counts    bool // it depends on user.sessions
	builtin   bool
	order     int // among the policies of all files
	tests     []*testDef
}

// A rule is one of a policy's rules, compiled.
type rule struct {
	name    string
	def     *ruleDef    // nil: otherwise
	line    int         // in the file
	when    *expression // nil: always
	program cel.Program // of when alone
	then    *outcome
}

// policy compiles a policy. What is wrong is reported.
func (c *compiler) policy(def *policyDef, hooks map[string]*webhook) *rulePolicy {
	p := &rulePolicy{name: def.name, doc: def.doc, file: c.name, lang: c.language, maxCost: c.maxCost, tests: def.tests}
	for _, r := range def.rules {
		if compiled := c.rule(r, hooks); compiled != nil {
			p.rules = append(p.rules, compiled)
		}
	}
	if def.otherwise != nil {
		p.otherwise = &rule{name: otherwiseRule, line: def.otherwise.at.Line, then: c.outcome(def.otherwise, hooks)}
	}
	if c.failed() {
		return p
	}
	c.unreachable(p)
	c.price(def, p)
	if c.failed() {
		return p
	}
	p.counts = p.countsSessions()
	if err := c.chains(p); err != nil {
		c.errorAt(def.at, "%v", err)
	}
	return p
}

func (c *compiler) rule(def *ruleDef, hooks map[string]*webhook) *rule {
	r := &rule{name: def.name, def: def, line: def.at.Line}
	if def.then != nil {
		r.then = c.outcome(def.then, hooks)
	}
	if def.when == nil {
		return nil
	}
	if r.when = c.compile(def.when, 0, def.when.Value, "when", cel.BoolType); r.when == nil {
		return nil
	}
	var err error
	if r.program, err = c.program(c.env, r.when.ast); err != nil {
		c.errorAt(def.when, "%v", err)
		return nil
	}
	return r
}

// price refuses a policy whose rules together may cost too much.
func (c *compiler) price(def *policyDef, p *rulePolicy) {
	cost := p.costs()
	if cost.Max <= c.maxCost {
		return
	}
	dearest := slices.MaxFunc(cost.Rules, func(a, b RuleCost) int { return cmp.Compare(a.Max+a.Outcome, b.Max+b.Outcome) })
	c.errorAt(def.at, "the policy %s may cost %d for one decision, at most %d is allowed; its dearest rule is %s with %d",
		def.name, cost.Max, c.maxCost, dearest.Rule, dearest.Max+dearest.Outcome)
}

// countsSessions says whether any decision depends on the number of sessions
// or would end some.
func (p *rulePolicy) countsSessions() bool {
	for _, r := range append(slices.Clone(p.rules), p.otherwise) {
		if r.when != nil && r.when.reads[sessionsPath] || r.then.constant.KeepSessions > 0 {
			return true
		}
		if r.then.webhook != nil && r.then.webhook.countSessions {
			return true
		}
		for _, e := range r.then.expressions() {
			if e.reads[sessionsPath] {
				return true
			}
		}
	}
	return false
}

// run evaluates an expression. Only one with a loop can take long enough for
// the context to matter.
func (e *expression) run(ctx context.Context, p cel.Program, b *bindings) (ref.Val, error) {
	v, _, err := run(ctx, p, e.loops, b)
	return v, err
}

func run(ctx context.Context, p cel.Program, loops bool, b *bindings) (ref.Val, uint64, error) {
	var v ref.Val
	var details *cel.EvalDetails
	var err error
	if loops {
		v, details, err = p.ContextEval(ctx, b)
	} else {
		v, details, err = p.Eval(b)
	}
	var cost uint64
	if c := details.ActualCost(); c != nil {
		cost = *c
	}
	if err != nil {
		return nil, cost, err
	}
	return v, cost, nil
}

// lifetime evaluates a ttl.
func (h *hole) lifetime(ctx context.Context, b *bindings) (time.Duration, error) {
	v, err := h.run(ctx, h.program, b)
	if err != nil {
		return 0, fmt.Errorf("ttl: %w", err)
	}
	d, ok := v.(types.Duration)
	if !ok || d.Duration < minTTL {
		return 0, fmt.Errorf("ttl: %v is less than %s", v.Value(), minTTL)
	}
	return d.Duration, nil
}
