package rules

// PolicyCost bounds the cost of a decision of one policy.
type PolicyCost struct {
	File   string
	Policy string
	Rules  []RuleCost
	Max    uint64 // of one decision: all conditions, and the dearest outcome
	Limit  uint64
}

// RuleCost is the cost of one rule, otherwise included. Min and Max are of its
// condition; Outcome bounds the decision.
type RuleCost struct {
	Rule     string
	Line     int
	Min, Max uint64
	Outcome  uint64
}

// ruleOverhead is the cost of choosing between two rules, beside their
// conditions.
const ruleOverhead = 2

// Costs returns the costs of the policies that come from the operator's files.
func (s *Set) Costs() []PolicyCost {
	var all []PolicyCost
	for _, p := range s.ordered() {
		all = append(all, p.costs())
	}
	return all
}

func (p *namedPolicy) costs() PolicyCost {
	c := PolicyCost{File: p.file, Policy: p.name, Limit: p.maxCost}
	var outcome uint64
	for _, r := range p.all() {
		if r == nil {
			continue
		}
		cost := RuleCost{Rule: r.name, Line: r.at.Line}
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
