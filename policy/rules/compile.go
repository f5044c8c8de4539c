package rules

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
	"github.com/discharger/discharger/policy/rulefile"
	"github.com/discharger/discharger/policy/webhook"
)

// A namedPolicy is a compiled policy.
type namedPolicy struct {
	name      string
	def       *rulefile.Policy
	file      string
	lang      *cel.Language
	rules     []*rule
	otherwise *rule
	chains    []chain
	maxCost   uint64
	builtin   bool
	order     int // among the policies of all files
}

// A chain is a group of rules with joined conditions. It ends after a rule
// with a webhook, because the next rules are evaluated only if the
// webhook has no opinion.
type chain struct {
	*cel.Chain
	rules []*rule
}

// A rule is a compiled rule.
type rule struct {
	name string
	path string // policy/name
	doc  string
	at   *yamlfile.Node
	when *cel.Expression // nil: always
	then *outcome
}

// A compiler compiles the policies of one file.
type compiler struct {
	*rulefile.File
	*cel.Language
	name    string // of the file
	hooks   map[string]*webhook.Webhook
	maxCost uint64
	caveats CaveatChecker
}

// policy compiles a policy and reports mistakes.
func (c *compiler) policy(def *rulefile.Policy) *namedPolicy {
	p := &namedPolicy{name: def.Name, def: def, file: c.name, lang: c.Language, maxCost: c.maxCost}
	for _, r := range def.Rules {
		if compiled := c.rule(r); compiled != nil {
			compiled.path = def.Name + "/" + r.Name
			p.rules = append(p.rules, compiled)
		}
	}
	if def.Otherwise != nil {
		p.otherwise = &rule{name: rulefile.Otherwise, path: def.Name + "/" + rulefile.Otherwise, at: def.Otherwise.At, then: c.outcome(def.Otherwise)}
	}
	if c.Failed() {
		return p
	}
	c.unreachable(p)
	c.price(p)
	if c.Failed() {
		return p
	}
	if err := p.join(); err != nil {
		c.Errorf(def.At, "%v", err)
	}
	return p
}

func (c *compiler) rule(def *rulefile.Rule) *rule {
	r := &rule{name: def.Name, doc: def.Doc, at: def.At}
	if def.Then != nil {
		r.then = c.outcome(def.Then)
	}
	if def.When == nil {
		return nil
	}
	if r.when = c.Condition(c.Document, def.When, "when"); r.when == nil {
		return nil
	}
	return r
}

// unreachable reports rules that can never decide: their condition is always false, or
// implies that of an earlier rule.
func (c *compiler) unreachable(p *namedPolicy) {
	var before []*rule
	var seen []cel.Cases
	for i, r := range p.rules {
		cases := c.Cases(r.when)
		if len(cases) == 0 {
			c.ErrorIn(p.def.Rules[i].When, 0, "rule %s never runs: its condition is always false", r.name)
		} else if i := cases.CoveredBy(seen); i >= 0 {
			c.Errorf(r.at, "rule %s never runs: rule %s in line %d matches in every case",
				r.name, before[i].name, before[i].at.Line)
		}
		if r.then.hook == nil { // a webhook may have no opinion
			before, seen = append(before, r), append(seen, cases)
		}
	}
}

// price reports a policy that may exceed the cost limit.
func (c *compiler) price(p *namedPolicy) {
	cost := p.costs()
	if cost.Max <= c.maxCost {
		return
	}
	highest := slices.MaxFunc(cost.Rules, func(a, b RuleCost) int { return cmp.Compare(a.Max+a.Outcome, b.Max+b.Outcome) })
	c.Errorf(p.def.At, "policy %s may cost %d for a decision, want at most %d; rule %s costs most with %d",
		p.name, cost.Max, c.maxCost, highest.Rule, highest.Max+highest.Outcome)
}

// join joins the rules into the fewest chains.
func (p *namedPolicy) join() error {
	for rest := p.rules; len(rest) > 0; {
		n := 1 + slices.IndexFunc(rest, func(r *rule) bool { return r.then.hook != nil })
		if n == 0 {
			n = len(rest)
		}
		n = min(n, cel.MaxChain)
		conditions := make([]*cel.Expression, n)
		for i, r := range rest[:n] {
			conditions[i] = r.when
		}
		joined, err := p.lang.Chain(conditions)
		if err != nil {
			return err
		}
		p.chains = append(p.chains, chain{joined, rest[:n]})
		rest = rest[n:]
	}
	return nil
}

// all returns the rules, otherwise included.
func (p *namedPolicy) all() []*rule { return append(slices.Clone(p.rules), p.otherwise) }

// outcome compiles the decision of a rule.
func (c *compiler) outcome(def *rulefile.Then) *outcome {
	o := &outcome{constant: def.Decision}
	if def.Webhook != "" {
		hook, ok := c.hooks[def.Webhook]
		if !ok {
			c.Errorf(def.At, "webhook %.60s is not in the file%s", def.Webhook, yamlfile.Suggest(def.Webhook, slices.Sorted(maps.Keys(c.hooks))))
		}
		o.hook = hook
		return o
	}
	if def.TTL != nil {
		o.ttl = c.Language.Duration(c.Document, def.TTL, "ttl")
	}
	for _, n := range def.Caveats {
		c.caveat(o, n)
	}
	for _, e := range def.Labels {
		c.label(o, e)
	}
	return o
}

// caveat compiles a caveat. Its name must be constant, so that the checker of
// [Config].Caveats can check it now.
func (c *compiler) caveat(o *outcome, n *yamlfile.Node) {
	t, ok := c.Template(c.Document, n, "caveat")
	if !ok {
		return
	}
	text, constant := t.Constant()
	if !constant && !strings.ContainsAny(strings.TrimLeft(text, " "), " :=") {
		c.Errorf(n, "caveat: want a constant name first, for instance client-ip {request.ip}")
		return
	}
	if !constant {
		if text, ok = c.example(t); !ok {
			c.Warnf(n, "caveat has no value for the sample input and is checked at decisions only")
			o.caveats = append(o.caveats, t)
			return
		}
	}
	err := policy.CheckCaveat(text)
	if err == nil && c.caveats != nil {
		err = c.caveats.CheckCaveat(text)
	}
	if err != nil {
		c.Errorf(n, "%v", err)
		return
	}
	o.caveats = append(o.caveats, t)
}

// example renders a template with the sample input.
func (c *compiler) example(t *cel.Template) (string, bool) {
	b := c.Bind(context.Background(), policy.SampleInput())
	defer c.Release(b)
	s, err := t.Render(context.Background(), b)
	return s, err == nil
}

func (c *compiler) label(o *outcome, e yamlfile.Entry) {
	t, ok := c.Template(c.Document, e.Value, "label")
	if !ok {
		return
	}
	text, _ := t.Constant()
	if err := policy.CheckLabel(e.Key, text); err != nil {
		c.Errorf(e.At, "%v", err)
		return
	}
	if o.labels == nil {
		o.labels = map[string]*cel.Template{}
	}
	o.labels[e.Key] = t
}
