package ruleset

import (
	"errors"
	"fmt"
	"strings"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/rules"
)

// namedPolicies are the policies that homeservers and the gateway are configured
// with.
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

// explainUnknown says which homeserver names a policy that does not exist, and
// which do.
func explainUnknown(cfg *config.Config, source string, load rules.Config, err error) error {
	set, loadErr := rules.Load(load)
	if loadErr != nil {
		return errors.Join(err, loadErr)
	}
	problems := UnknownPolicies(cfg, source, set)
	if len(problems) == 0 { // the files have just changed
		return err
	}
	return problems
}

// unknownPolicies says which homeservers name a policy that a set does not have.
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
