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
	*rulefile.Policy
	file      string
	lang      *cel.Language
	caveats   func(string) error // nil: all caveats are allowed
	rules     []*rule
	otherwise *rule
	chains    []chain
	builtin   bool
	order     int // among the policies of all files
}

// A chain is a group of rules with joined conditions. It ends after a rule with a
// webhook, because the next rules are evaluated only if the webhook has no opinion.
type chain struct {
	*cel.Chain
	rules []*rule
}

// A rule is a compiled rule.
type rule struct {
	*rulefile.Rule
	path string          // policy/name
	when *cel.Expression // nil: always
	then *outcome
}

// A compiler compiles the policies of one file.
type compiler struct {
	*rulefile.File
	*cel.Language
	name    string // of the file
	hooks   map[string]*webhook.Webhook
	caveats func(string) error
}

// policy compiles a policy and reports mistakes.
func (c *compiler) policy(def *rulefile.Policy) *namedPolicy {
	p := &namedPolicy{Policy: def, file: c.name, lang: c.Language, caveats: c.caveats}
	for _, r := range def.Rules {
		compiled := &rule{Rule: r, path: def.Name + "/" + r.Name}
		if r.Then != nil {
			compiled.then = c.outcome(r.Then)
		}
		if r.When != nil {
			compiled.when = c.Condition(c.Document, r.When, "when")
		}
		if compiled.when != nil {
			p.rules = append(p.rules, compiled)
		}
	}
	if def.Otherwise != nil {
		last := &rulefile.Rule{Name: rulefile.Otherwise, At: def.Otherwise.At}
		p.otherwise = &rule{Rule: last, path: def.Name + "/" + last.Name, then: c.outcome(def.Otherwise)}
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

// unreachable reports rules that can never decide: their condition is always false, or
// implies that of an earlier rule.
func (c *compiler) unreachable(p *namedPolicy) {
	var before []*rule
	var seen []cel.Cases
	for _, r := range p.rules {
		cases := c.Cases(r.when)
		if len(cases) == 0 {
			c.ErrorIn(r.When, 0, "rule %s never runs: its condition is always false", r.Name)
		} else if i := cases.CoveredBy(seen); i >= 0 {
			c.Errorf(r.At, "rule %s never runs: rule %s in line %d matches in every case",
				r.Name, before[i].Name, before[i].At.Line)
		}
		if r.then.hook == nil { // a webhook may have no opinion
			before, seen = append(before, r), append(seen, cases)
		}
	}
}

// price reports a policy that may exceed the cost limit.
func (c *compiler) price(p *namedPolicy) {
	cost := p.costs()
	if cost.Max <= c.MaxCost {
		return
	}
	highest := slices.MaxFunc(cost.Rules, func(a, b RuleCost) int { return cmp.Compare(a.Max+a.Outcome, b.Max+b.Outcome) })
	c.Errorf(p.At, "policy %s may cost %d for a decision, want at most %d; rule %s costs most with %d",
		p.Name, cost.Max, c.MaxCost, highest.Rule, highest.Max+highest.Outcome)
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
		if t, ok := c.Template(c.Document, n, "caveat"); ok {
			c.checkCaveat(n, t)
			o.caveats = append(o.caveats, t)
		}
	}
	for _, e := range def.Labels {
		t, ok := c.Template(c.Document, e.Value, "label")
		if !ok {
			continue
		}
		text, _ := t.Constant()
		if err := policy.CheckLabel(e.Key, text); err != nil {
			c.Errorf(e.At, "%v", err)
		}
		if o.labels == nil {
			o.labels = map[string]*cel.Template{}
		}
		o.labels[e.Key] = t
	}
	return o
}

// checkCaveat reports a caveat that homeservers would refuse. Its name must be constant, so
// that [Config].Caveats can check it now, with the values of the sample input.
func (c *compiler) checkCaveat(n *yamlfile.Node, t *cel.Template) {
	text, constant := t.Constant()
	if !constant {
		if !strings.ContainsAny(strings.TrimLeft(text, " "), " :=") {
			c.Errorf(n, "caveat: want a constant name first, for instance client-ip {request.ip}")
			return
		}
		b := c.Bind(context.Background(), policy.SampleInput())
		defer c.Release(b)
		var err error
		if text, err = t.Render(context.Background(), b); err != nil {
			c.Warnf(n, "caveat has no value for the sample input and is checked at decisions only")
			return
		}
	}
	err := policy.CheckCaveat(text)
	if err == nil && c.caveats != nil {
		err = c.caveats(text)
	}
	if err != nil {
		c.Errorf(n, "%v", err)
	}
}
