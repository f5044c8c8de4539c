package policy_test

import (
	"context"
	"fmt"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rules"
)

// withHolds denies requests of accounts on hold and evaluates rule files for the others. A
// service takes it as discharger.Config.Policy.
type withHolds struct {
	rules  *rules.Set
	onHold func(user string) bool // whether an account is on hold
}

func (c withHolds) Evaluate(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	if c.onHold(in.User.ID) {
		return policy.Decision{Effect: policy.EffectDeny, Code: "on_hold", Rule: "on-hold"}, nil
	}
	d, err := c.rules.Evaluate(ctx, in)
	if err != nil {
		return policy.Decision{}, err // undecided: the client retries later
	}
	if in.Session.Mode == "open" && d.Effect == policy.EffectAllow {
		d.TTL = time.Minute
	}
	return d, nil
}

func ExampleEvaluator() {
	rules, err := rules.Load(rules.Config{}) // the built-in policies
	if err != nil {
		fmt.Println(err)
		return
	}
	var e policy.Evaluator = withHolds{rules, func(user string) bool { return user == "@mallory:example.org" }}

	in := policy.SampleInput()
	in.Policy, in.Session.Mode = "bots", "open"
	for _, user := range []string{"@alice:example.org", "@mallory:example.org"} {
		in.User.ID = user
		d, err := e.Evaluate(context.Background(), in)
		fmt.Println(user, d.Effect, d.TTL, d.Rule, err)
	}
	// Output:
	// @alice:example.org allow 1m0s bots/otherwise <nil>
	// @mallory:example.org deny 0s on-hold <nil>
}
