package rules

import (
	"context"
	"errors"
	"fmt"

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
func (p *namedPolicy) decide(ctx context.Context, in *policy.Input) (policy.Decision, *rule, error) {
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
			return policy.Decision{}, nil, fmt.Errorf("rule %s: %w", c.rules[i].Name, err)
		case spent > p.lang.MaxCost:
			return policy.Decision{}, nil, fmt.Errorf("%d of %d: %w", spent, p.lang.MaxCost, cel.ErrCost)
		case i < 0:
			continue
		}
		a, err := c.rules[i].decide(ctx, b, p)
		if a.Settled || err != nil {
			return a.Decision, c.rules[i], err
		}
	}
	a, err := p.otherwise.decide(ctx, b, p)
	if err == nil && !a.Settled {
		err = errors.New("rule otherwise: the webhook has no opinion, and there is no next rule")
	}
	return a.Decision, p.otherwise, err
}

// decide returns the decision of a rule that matched, or the answer of its webhook.
func (r *rule) decide(ctx context.Context, b *cel.Bindings, p *namedPolicy) (a webhook.Answer, err error) {
	if r.then.hook != nil {
		a, err = r.then.hook.Decide(ctx, p.Name, r.Name, b.Input())
		if err == nil {
			err = p.checkCaveats(a.Decision.Caveats...)
		}
	} else {
		a.Settled = true
		a.Decision, err = r.then.fill(ctx, b, p)
	}
	if err != nil {
		return webhook.Answer{}, fmt.Errorf("rule %s: %w", r.Name, err)
	}
	return a, nil
}

// fill evaluates the parts of a decision that depend on the input.
func (o *outcome) fill(ctx context.Context, b *cel.Bindings, p *namedPolicy) (policy.Decision, error) {
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
			err = p.checkCaveats(text)
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

func (p *namedPolicy) checkCaveats(conditions ...string) error {
	if p.caveats == nil {
		return nil
	}
	for _, c := range conditions {
		if err := p.caveats(c); err != nil {
			return fmt.Errorf("caveat %.60q: %w", c, err)
		}
	}
	return nil
}
