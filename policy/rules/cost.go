package rules

import "slices"

// PolicyCost is the worst-case cost of a decision of one policy, in the units of
// [Config].MaxCost.
type PolicyCost struct {
	File   string
	Policy string
	Rules  []RuleCost
	Max    uint64 // all conditions and the outcome with the highest cost
	Limit  uint64 // MaxCost
}

// RuleCost is the cost of one rule, or of otherwise. Min and Max are the bounds of its
// condition; Outcome is the worst case of its decision.
type RuleCost struct {
	Rule     string
	Line     int
	Min, Max uint64
	Outcome  uint64
}

// ruleOverhead is the cost of the choice between two rules, beside their conditions.
const ruleOverhead = 2

// Costs returns the costs of the policies in the operator's files.
func (s *Set) Costs() []PolicyCost {
	var all []PolicyCost
	for _, p := range s.ordered() {
		all = append(all, p.costs())
	}
	return all
}

func (p *namedPolicy) costs() PolicyCost {
	c := PolicyCost{File: p.file, Policy: p.Name, Limit: p.lang.MaxCost}
	var outcome uint64
	for _, r := range append(slices.Clone(p.rules), p.otherwise) {
		if r == nil {
			continue
		}
		cost := RuleCost{Rule: r.Name, Line: r.At.Line}
		if r.when != nil {
			cost.Min, cost.Max = r.when.Min, r.when.Max
			c.Max += cost.Max + ruleOverhead
		}
		if r.then != nil {
			cost.Outcome = r.then.cost()
		}
		c.Rules = append(c.Rules, cost)
		outcome = max(outcome, cost.Outcome)
	}
	c.Max += outcome
	return c
}

// cost returns the worst-case cost of all expressions of an outcome.
func (o *outcome) cost() (total uint64) {
	if o.ttl != nil {
		total = o.ttl.Max
	}
	for _, t := range o.caveats {
		total += t.Cost()
	}
	for _, t := range o.labels {
		total += t.Cost()
	}
	return total
}
