package rules_test

import (
	"context"
	"fmt"
	"os"
	"testing/fstest"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

// A program that embeds the service decides in Go, and asks the rules that
// operators write where it has nothing to say.
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
		return policy.Decision{}, err // undecided: the client comes back later
	}
	if in.Session.Mode == "open" && d.Effect == policy.EffectAllow {
		d.TTL = time.Minute
	}
	return d, nil
}

func ExampleEvaluator() {
	rules, err := rules.Load(rules.Config{}) // the built-in ones
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

func ExampleLoad() {
	files := fstest.MapFS{"policy.yaml": {Data: []byte(`
version: 1
networks:
  office: [203.0.113.0/24, "2001:db8:7::/48"]
policies:
  default:
    rules:
      - name: admins-at-the-office
        when: >
          session.labels[?"role"].orValue("") == "admin" &&
          !(request.ip in networks.office)
        then: {effect: deny, code: admin_network}
    otherwise: {effect: allow, ttl: 10m}
`)}}
	set, err := rules.Load(rules.Config{FS: files, Files: []string{"policy.yaml"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	in := policy.SampleInput()
	d, err := policy.Ask(context.Background(), set, in)
	fmt.Println(d.Effect, d.TTL, d.Rule, err)
	in.Session.Labels["role"] = "admin"
	d, err = policy.Ask(context.Background(), set, in)
	fmt.Println(d.Effect, d.Code, d.Rule, err)
	// Output:
	// allow 10m0s default/otherwise <nil>
	// deny admin_network default/admins-at-the-office <nil>
}

func ExampleCheck() {
	files := fstest.MapFS{"policy.yaml": {Data: []byte(`version: 1
policies:
  default:
    rules:
      - name: too-old
        when: now - session.creatd > days(90)
        then: reauth
    otherwise: allow
`)}}
	report, err := check.Files(rules.Config{FS: files, Files: []string{"policy.yaml"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := report.Problems.WriteTo(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// policy.yaml:6:29: session has no field creatd (did you mean created?)
	//     6 |         when: now - session.creatd > days(90)
	//       |                             ^^^^^^
}
