// Package rules implements policies with rule files: it compiles the files, runs their
// tests, evaluates requests, and reloads changed files.
//
// [Load] accepts all files or none. It refuses a mistake, a rule that can never run, a
// decision that may cost too much, a caveat unknown to homeservers, and a failing test. A
// [Set] is immutable; a [Reloader] replaces it atomically and keeps the last valid one.
// The built-in policies ([Builtin]) are rule files to copy.
//
// A decision allocates only the values that its rules read. An error of a condition, an
// error of a webhook, and a cost above the limit leave the request undecided.
package rules

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
)

// ErrUnknownPolicy is wrapped by the error of a request whose policy is in no file.
// A service refuses such a name in its configuration with [Set.Has], but a homeserver may
// send one in a condition.
var ErrUnknownPolicy = errors.New("policy is unknown")

// A Set holds the compiled policies of rule files. It is immutable
// and may be used concurrently.
type Set struct {
	policies map[string]*namedPolicy
	warnings yamlfile.Problems
	hash     string
}

// Has reports whether a policy exists. The empty name stands for [policy.DefaultName].
func (s *Set) Has(name string) bool { return s.find(name) != nil }

func (s *Set) find(name string) *namedPolicy { return s.policies[cmp.Or(name, policy.DefaultName)] }

// Names returns the names of all policies, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.policies)) }

// Doc returns the doc of a policy in its file, or "".
func (s *Set) Doc(name string) string {
	p := s.find(name)
	if p == nil {
		return ""
	}
	return strings.Join(strings.Fields(p.Doc), " ")
}

// Hash returns the hash of the loaded files in 16
// hexadecimal digits. Every decision of the set contains it.
func (s *Set) Hash() string { return s.hash }

// Warnings returns the warnings about the files, in their order.
func (s *Set) Warnings() yamlfile.Problems { return s.warnings }

// Evaluate evaluates the policy in.Policy. An error leaves the request undecided and
// contains the name of the rule. The decision is not narrowed; [policy.Ask] does that.
func (s *Set) Evaluate(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	p := s.find(in.Policy)
	if p == nil {
		return policy.Decision{}, fmt.Errorf("policy %.60q: %w", in.Policy, ErrUnknownPolicy)
	}
	if err := ctx.Err(); err != nil {
		return policy.Decision{}, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	d, r, err := p.decide(ctx, in)
	if err != nil {
		return policy.Decision{}, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	d.Rule, d.Hash = r.path, s.hash
	return d, nil
}

// ordered returns the policies of the operator's files, in their order.
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
