package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
)

// ErrUnknownPolicy is why a request whose policy no file has is undecided.
// A service refuses such a name in its own configuration with [Set.Has]; it
// can still come from a homeserver, in a condition.
var ErrUnknownPolicy = errors.New("no such policy")

// DefaultPolicy is the policy that applies where none is named.
const DefaultPolicy = "default"

// A Set is the policies of some rule files, ready to decide. It never changes
// and may be used concurrently.
type Set struct {
	policies map[string]*rulePolicy
	warnings Problems
	hash     string
	caveats  CaveatChecker
}

// Has reports whether there is a policy of this name. The empty name stands
// for [DefaultPolicy].
func (s *Set) Has(name string) bool {
	_, ok := s.policies[policyName(name)]
	return ok
}

// Names returns the names of all policies, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.policies)) }

// Doc returns what the file says a policy is for.
func (s *Set) Doc(name string) string {
	p, ok := s.policies[policyName(name)]
	if !ok {
		return ""
	}
	return strings.Join(strings.Fields(p.doc), " ")
}

// Hash identifies the text of the files that the set was loaded from, in 16
// hexadecimal digits. It is in every decision of the set.
func (s *Set) Hash() string { return s.hash }

// Warnings returns what is doubtful in the files, in their order.
func (s *Set) Warnings() Problems { return s.warnings }

func policyName(name string) string {
	if name == "" {
		return DefaultPolicy
	}
	return name
}

// CountsSessions reports whether a policy depends on how many sessions its
// users have: an expression reads user.sessions, a rule has keep_sessions, or
// a webhook asks for the number.
func (s *Set) CountsSessions(policy string) bool {
	p, ok := s.policies[policyName(policy)]
	return ok && p.counts
}

// Evaluate decides with the policy that in.Policy names. The decision is
// already narrowed to in.Grant. An error, which names the rule, means that
// nothing was decided.
func (s *Set) Evaluate(ctx context.Context, in *Input) (d Decision, err error) {
	defer func() {
		if r := recover(); r != nil {
			d, err = Decision{}, &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	p, ok := s.policies[policyName(in.Policy)]
	if !ok {
		return Decision{}, fmt.Errorf("policy %q: %w", shorten(in.Policy), ErrUnknownPolicy)
	}
	if err := ctx.Err(); err != nil {
		return Decision{}, fmt.Errorf("policy %s: %w", p.name, err)
	}
	d, r, err := p.decide(ctx, in, s.caveats)
	if err != nil {
		return Decision{}, fmt.Errorf("policy %s: %w", p.name, err)
	}
	if d, err = d.Narrow(in.Grant); err != nil {
		return Decision{}, fmt.Errorf("policy %s: rule %s: %w", p.name, r.name, err)
	}
	d.Rule, d.Hash = p.name+"/"+r.name, s.hash
	return d, nil
}

// PanicError is the error of an evaluation that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("policy panicked: %v", e.Value) }

// decide finds the first rule that matches and has something to say.
func (p *rulePolicy) decide(ctx context.Context, in *Input, caveats CaveatChecker) (Decision, *rule, error) {
	b := p.lang.bind(in)
	defer p.lang.release(b)
	var spent uint64
	for _, c := range p.chains {
		v, cost, err := run(ctx, c.program, c.loops, b)
		spent += cost
		if err != nil {
			return Decision{}, nil, p.blame(ctx, b, c, err)
		}
		if spent > p.maxCost {
			return Decision{}, nil, fmt.Errorf("%d of %d: %w", spent, p.maxCost, ErrCost)
		}
		i, ok := v.(types.Int)
		if !ok {
			return Decision{}, nil, fmt.Errorf("rules yield a %s", v.Type().TypeName())
		}
		if i < 0 {
			continue
		}
		r := p.rules[c.first+int(i)]
		d, settled, err := r.decide(ctx, b, p, caveats)
		if settled || err != nil {
			return d, r, err
		}
	}
	d, settled, err := p.otherwise.decide(ctx, b, p, caveats)
	if err == nil && !settled {
		err = errors.New("rule otherwise: the webhook has no opinion, and no rule is left")
	}
	return d, p.otherwise, err
}

// blame finds the rule of a chain whose condition failed.
func (p *rulePolicy) blame(ctx context.Context, b *bindings, c chain, failed error) error {
	for _, r := range p.rules[c.first:] {
		v, _, err := run(ctx, r.program, r.when.loops, b)
		if err != nil {
			return fmt.Errorf("rule %s: %w", r.name, evaluationError(err))
		}
		if v == types.True {
			break
		}
	}
	return evaluationError(failed)
}

// evaluationError turns CEL's errors into this package's.
func evaluationError(err error) error {
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded {
		return ErrCost
	}
	return err
}

// decide works out what a rule that matched decides. It is not settled when a
// webhook has no opinion.
func (r *rule) decide(ctx context.Context, b *bindings, p *rulePolicy, caveats CaveatChecker) (d Decision, settled bool, err error) {
	if r.then.hook != "" {
		d, settled, err = r.then.webhook.decide(ctx, p.name, r.name, b.in)
		if err == nil && settled {
			err = knowsCaveats(caveats, d.Caveats)
		}
	} else {
		d, err = r.then.decide(ctx, b, caveats)
		settled = true
	}
	if err != nil {
		return Decision{}, false, fmt.Errorf("rule %s: %w", r.name, evaluationError(err))
	}
	return d, settled, nil
}

// decide fills in what depends on the input.
func (o *outcome) decide(ctx context.Context, b *bindings, caveats CaveatChecker) (Decision, error) {
	d := o.constant
	if o.ttl != nil {
		var err error
		if d.TTL, err = o.ttl.lifetime(ctx, b); err != nil {
			return d, err
		}
	}
	for _, t := range o.caveats {
		text, err := t.render(ctx, b)
		if err == nil && len(t.holes) > 0 {
			err = knowsCaveats(caveats, []string{text})
		}
		if err != nil {
			return d, fmt.Errorf("caveat: %w", err)
		}
		d.Caveats = append(d.Caveats, text)
	}
	for key, t := range o.labels {
		text, err := t.render(ctx, b)
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

func knowsCaveats(checker CaveatChecker, conditions []string) error {
	if checker == nil {
		return nil
	}
	for _, c := range conditions {
		if err := checker.KnowsCaveat(c); err != nil {
			return fmt.Errorf("caveat %q: %w", shorten(c), err)
		}
	}
	return nil
}
