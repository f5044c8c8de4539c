package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
	"github.com/discharger/discharger/policy/webhook"
)

// An outcome is the compiled decision of a rule.
type outcome struct {
	constant policy.Decision
	ttl      *cel.Expression
	caveats  []*cel.Template
	labels   map[string]*cel.Template
	hook     *webhook.Webhook // nil: none; otherwise nothing else is set
}

// decide returns the decision of the first rule that matches and has an opinion.
func (p *namedPolicy) decide(ctx context.Context, in *policy.Input, caveats CaveatChecker) (policy.Decision, *rule, error) {
	b := p.lang.Bind(ctx, in)
	defer p.lang.Release(b)
	var spent uint64
	for _, c := range p.chains {
		i, cost, err := c.First(ctx, b)
		spent += cost
		switch {
		case err != nil && i < 0:
			return policy.Decision{}, nil, err
		case err != nil:
			return policy.Decision{}, nil, fmt.Errorf("rule %s: %w", c.rules[i].name, err)
		case spent > p.maxCost:
			return policy.Decision{}, nil, fmt.Errorf("%d of %d: %w", spent, p.maxCost, cel.ErrCost)
		case i < 0:
			continue
		}
		r := c.rules[i]
		d, settled, err := r.decide(ctx, b, p, caveats)
		if settled || err != nil {
			return d, r, err
		}
	}
	d, settled, err := p.otherwise.decide(ctx, b, p, caveats)
	if err == nil && !settled {
		err = errors.New("rule otherwise: the webhook has no opinion, and there is no next rule")
	}
	return d, p.otherwise, err
}

// decide returns the decision of a rule that matched; settled is false if its
// webhook has no opinion.
func (r *rule) decide(ctx context.Context, b *cel.Bindings, p *namedPolicy, caveats CaveatChecker) (d policy.Decision, settled bool, err error) {
	if r.then.hook != nil {
		d, settled, err = r.then.hook.Decide(ctx, p.name, r.name, b.Input())
		if err == nil && settled {
			err = checkCaveats(caveats, d.Caveats)
		}
	} else {
		d, err = r.then.fill(ctx, b, caveats)
		settled = true
	}
	if err != nil {
		return policy.Decision{}, false, fmt.Errorf("rule %s: %w", r.name, err)
	}
	return d, settled, nil
}

// fill evaluates the parts of a decision that depend on the input.
func (o *outcome) fill(ctx context.Context, b *cel.Bindings, caveats CaveatChecker) (policy.Decision, error) {
	d := o.constant
	if o.ttl != nil {
		var err error
		if d.TTL, err = o.ttl.Lifetime(ctx, b); err != nil {
			return d, err
		}
	}
	for _, t := range o.caveats {
		text, err := t.Render(ctx, b)
		if _, constant := t.Constant(); err == nil && !constant {
			err = checkCaveats(caveats, []string{text})
		}
		if err != nil {
			return d, fmt.Errorf("caveat: %w", err)
		}
		d.Caveats = append(d.Caveats, text)
	}
	for key, t := range o.labels {
		text, err := t.Render(ctx, b)
		if err != nil {
			return d, fmt.Errorf("label %s: %w", key, err)
		}
		if d.Labels == nil {
			d.Labels = make(map[string]string, len(o.labels))
		}
		d.Labels[key] = text
	}
	return d, nil
}

func checkCaveats(checker CaveatChecker, conditions []string) error {
	if checker == nil {
		return nil
	}
	for _, c := range conditions {
		if err := checker.CheckCaveat(c); err != nil {
			return fmt.Errorf("caveat %.60q: %w", c, err)
		}
	}
	return nil
}

// cost returns the worst-case cost of all expressions of an outcome.
func (o *outcome) cost() uint64 {
	var total uint64
	for _, e := range o.expressions() {
		total += e.Max
	}
	return total
}

func (o *outcome) expressions() []*cel.Expression {
	var all []*cel.Expression
	if o.ttl != nil {
		all = append(all, o.ttl)
	}
	for _, t := range o.caveats {
		all = append(all, t.Holes...)
	}
	for _, key := range slices.Sorted(maps.Keys(o.labels)) {
		all = append(all, o.labels[key].Holes...)
	}
	return all
}
