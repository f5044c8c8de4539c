package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"go.yaml.in/yaml/v3"
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
	def     *ruleDef
	when    *expression
	program cel.Program // of when alone
	then    *outcome
}

// A chain is several rules as one expression, c0 ? 0 : c1 ? 1 : … : -1, whose
// value is the first of them that matches. Entering CEL once for many rules
// takes a third of the time that entering it for each does. A chain ends
// after a rule that asks a webhook, because the rules after it are only
// needed if the webhook has no opinion.
type chain struct {
	program cel.Program
	first   int // index in the policy's rules
	loops   bool
}

// chainRules is how many rules a chain has at most. They are nested in one
// another.
const chainRules = 64

// An outcome is what a rule decides.
type outcome struct {
	constant Decision
	ttl      *hole
	caveats  []*template
	labels   map[string]*template
	hook     string   // name of a webhook that decides
	webhook  *webhook // nil when the set was loaded offline
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
		p.otherwise = &rule{name: otherwiseRule, then: c.outcome(def.otherwise, hooks)}
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
	r := &rule{name: def.name, def: def}
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

// outcome compiles what a rule decides.
func (c *compiler) outcome(def *thenDef, hooks map[string]*webhook) *outcome {
	o := &outcome{constant: def.constant, hook: def.webhook}
	if def.webhook != "" {
		hook, ok := hooks[def.webhook]
		if !ok {
			c.errorAt(def.at, "the file has no webhook %s%s", shorten(def.webhook), nearest(def.webhook, slices.Sorted(maps.Keys(hooks))))
		}
		o.webhook = hook
		return o
	}
	if def.ttl != nil {
		c.ttl(o, def.ttl)
	}
	for _, n := range def.caveats {
		c.caveat(o, n)
	}
	for _, e := range def.labels {
		c.label(o, e)
	}
	return o
}

// ttl reads a lifetime: a duration, or an expression that yields one.
func (c *compiler) ttl(o *outcome, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || !untagged(n) {
		c.errorAt(n, "ttl is a duration such as 5m, or an expression, not %s", describe(n))
		return
	}
	c.unanchored(n)
	d, err := parseDuration(n.Value)
	if err == nil {
		if d < minTTL {
			c.errorAt(n, "ttl is at least %s, not %s", minTTL, d)
		}
		o.constant.TTL = d
		return
	}
	if !strings.ContainsAny(n.Value, "._(") {
		c.errorAt(n, "ttl: %v", err)
		return
	}
	e := c.compile(n, 0, n.Value, "ttl", cel.DurationType)
	if e == nil {
		return
	}
	p, err := c.program(c.env, e.ast)
	if err != nil {
		c.errorAt(n, "%v", err)
		return
	}
	o.ttl = &hole{e, p}
}

// caveat compiles a caveat to add. Its name is written out, so that it can be
// known now whether homeservers understand it.
func (c *compiler) caveat(o *outcome, n *yaml.Node) {
	if _, ok := c.text(n, "a caveat", maxCaveat); !ok {
		return
	}
	t, ok := c.template(n, "the caveat")
	if !ok {
		return
	}
	text, constant := t.constant()
	if !constant && !strings.ContainsAny(strings.TrimLeft(text, " "), " :=") {
		c.errorAt(n, "a caveat begins with its name, written out, for instance: client-ip {request.ip}")
		return
	}
	if !constant {
		var ok bool
		if text, ok = c.example(t); !ok {
			c.warnAt(n, "the sample input has no value for this caveat, so it is checked only when it is used")
			o.caveats = append(o.caveats, t)
			return
		}
	}
	err := checkCaveatText(text)
	if err == nil && c.caveats != nil {
		err = c.caveats.KnowsCaveat(text)
	}
	if err != nil {
		c.errorAt(n, "%v", err)
		return
	}
	o.caveats = append(o.caveats, t)
}

// example fills a template from the sample input.
func (c *compiler) example(t *template) (string, bool) {
	b := c.bind(SampleInput())
	defer c.release(b)
	s, err := t.render(context.Background(), b)
	return s, err == nil
}

func (c *compiler) label(o *outcome, e entry) {
	if _, ok := c.text(e.value, "a label", maxLabelValue); !ok {
		return
	}
	t, ok := c.template(e.value, "the label")
	if !ok {
		return
	}
	text, _ := t.constant()
	if err := checkLabel(e.key, text); err != nil {
		c.errorAt(e.at, "%v", err)
		return
	}
	if o.labels == nil {
		o.labels = map[string]*template{}
	}
	o.labels[e.key] = t
}

// price refuses a policy whose rules together may cost too much.
func (c *compiler) price(def *policyDef, p *rulePolicy) {
	var total, most uint64
	var dearest *rule
	for _, r := range p.rules {
		cost := r.when.max + r.then.cost()
		total += r.when.max + ruleOverhead
		if cost > most {
			most, dearest = cost, r
		}
	}
	if total+most > c.maxCost && dearest != nil {
		c.errorAt(def.at, "the policy %s may cost %d for one decision, at most %d is allowed; its dearest rule is %s with %d",
			def.name, total+most, c.maxCost, dearest.name, most)
	}
}

// ruleOverhead is what choosing between two rules costs, beside their
// conditions.
const ruleOverhead = 2

// cost is the worst case of all expressions in an outcome.
func (o *outcome) cost() uint64 {
	var total uint64
	for _, e := range o.expressions() {
		total += e.max
	}
	return total
}

func (o *outcome) expressions() []*expression {
	var all []*expression
	if o.ttl != nil {
		all = append(all, o.ttl.expression)
	}
	add := func(t *template) {
		for _, h := range t.holes {
			all = append(all, h.expression)
		}
	}
	for _, t := range o.caveats {
		add(t)
	}
	for _, key := range slices.Sorted(maps.Keys(o.labels)) {
		add(o.labels[key])
	}
	return all
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

// chains joins the rules into as few expressions as possible.
func (c *compiler) chains(p *rulePolicy) error {
	for first := 0; first < len(p.rules); {
		last := first
		for last < len(p.rules)-1 && last-first < chainRules-1 && p.rules[last].then.hook == "" {
			last++
		}
		joined := chain{first: first}
		var text strings.Builder
		for i, r := range p.rules[first : last+1] {
			// The line break ends a comment that the expression may end in.
			fmt.Fprintf(&text, "(%s\n) ? %d : ", r.when.text, i)
			joined.loops = joined.loops || r.when.loops
		}
		text.WriteString("-1")
		checked, issues := c.chain.Compile(text.String())
		if issues != nil && issues.Err() != nil {
			return fmt.Errorf("join rules: %w", issues.Err())
		}
		var err error
		if joined.program, err = c.program(c.chain, checked); err != nil {
			return err
		}
		p.chains = append(p.chains, joined)
		first = last + 1
	}
	return nil
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
