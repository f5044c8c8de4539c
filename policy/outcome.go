package policy

import (
	"context"
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"go.yaml.in/yaml/v3"
)

// An outcome is what a rule decides.
type outcome struct {
	constant Decision
	ttl      *hole
	caveats  []*template
	labels   map[string]*template
	hook     string // name of a webhook that decides
	webhook  *webhook
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
