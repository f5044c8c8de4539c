package ruleset

import (
	"errors"
	"fmt"
	"strings"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/rules"
)

// namedPolicies returns the policies that homeservers and the gateway name.
func namedPolicies(cfg *config.Config) []string {
	var names []string
	for _, h := range cfg.Homeservers {
		if h.Policy != "" {
			names = append(names, h.Policy)
		}
	}
	if g := cfg.Gateway; g != nil && g.Policy != "" {
		names = append(names, g.Policy)
	}
	return names
}

// explainUnknown replaces the error about an unknown policy with one that has the place
// of its name in the configuration, and the existing policies.
func explainUnknown(cfg *config.Config, source string, load rules.Config, err error) error {
	set, loadErr := rules.Load(load)
	if loadErr != nil {
		return errors.Join(err, loadErr)
	}
	problems := UnknownPolicies(cfg, source, set)
	if len(problems) == 0 { // the files changed meanwhile
		return err
	}
	return problems
}

// UnknownPolicies returns a problem for each policy in the configuration that a set
// does not have.
func UnknownPolicies(cfg *config.Config, source string, set *rules.Set) yamlfile.Problems {
	var problems yamlfile.Problems
	check := func(key, name string) {
		if !set.Has(name) {
			problems = append(problems, &yamlfile.Problem{
				File: source, Path: key,
				Message: fmt.Sprintf("there is no policy %q; there are %s", name, strings.Join(set.Names(), ", ")),
			})
		}
	}
	for i, h := range cfg.Homeservers {
		check(fmt.Sprintf("homeservers[%d].policy", i), h.Policy)
	}
	if cfg.Gateway != nil {
		check("gateway.policy", cfg.Gateway.Policy)
	}
	return problems
}
