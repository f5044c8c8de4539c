// Package rules makes policies of rule files: it compiles them, runs their
// tests, decides with them, and reloads them when they change.
//
// [Load] accepts files as a whole or not at all: with a mistake, a rule that can
// never run, a decision that may cost too much, a caveat that homeservers would
// not understand or a failing test, there is no [Set]. A Set never changes; a
// [Reloader] replaces it in one step and keeps the last good one. The built-in
// policies ([Builtin]) are rule files to copy.
//
// A decision needs no allocation beyond the values that its rules read. An
// error of a condition, a webhook without an answer, and a cost beyond the limit
// leave the request undecided.
package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
)

// ErrUnknownPolicy is why a request whose policy no file has is undecided.
// A service refuses such a name in its own configuration with [Set.Has]; it
// can still come from a homeserver, in a condition.
var ErrUnknownPolicy = errors.New("no such policy")

// A Set is the policies of some rule files, ready to decide. It never changes
// and may be used concurrently.
type Set struct {
	policies map[string]*namedPolicy
	warnings yamlfile.Problems
	hash     string
	caveats  CaveatChecker
}

// Has reports whether there is a policy of this name. The empty name stands
// for [policy.DefaultName].
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
	return strings.Join(strings.Fields(p.def.Doc), " ")
}

// Hash identifies the text of the files that the set was loaded from, in 16
// hexadecimal digits. It is in every decision of the set.
func (s *Set) Hash() string { return s.hash }

// Warnings returns what is doubtful in the files, in their order.
func (s *Set) Warnings() yamlfile.Problems { return s.warnings }

func policyName(name string) string {
	if name == "" {
		return policy.DefaultName
	}
	return name
}

// Evaluate decides with the policy that in.Policy names. An error, which names
// the rule, means that nothing was decided. [policy.Ask] narrows the decision.
func (s *Set) Evaluate(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	p, ok := s.policies[policyName(in.Policy)]
	if !ok {
		return policy.Decision{}, fmt.Errorf("policy %.60q: %w", in.Policy, ErrUnknownPolicy)
	}
	if err := ctx.Err(); err != nil {
		return policy.Decision{}, fmt.Errorf("policy %s: %w", p.name, err)
	}
	d, r, err := p.decide(ctx, in, s.caveats)
	if err != nil {
		return policy.Decision{}, fmt.Errorf("policy %s: %w", p.name, err)
	}
	d.Rule, d.Hash = r.path, s.hash
	return d, nil
}

// ordered returns the policies that come from the operator's files, in their
// order.
func (s *Set) ordered() []*namedPolicy {
	var all []*namedPolicy
	for _, p := range s.policies {
		if !p.builtin {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *namedPolicy) int { return a.order - b.order })
	return all
}

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
