package policy

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
)

// A chain is several rules as one expression, c0 ? 0 : c1 ? 1 : … : -1, whose
// value is the first of them that matches. Entering CEL once for many rules
// takes a third of the time that entering it for each does. A chain ends
// after a rule that asks a webhook, because the rules after it are only
// needed if the webhook has no opinion.
type chain struct {
	program cel.Program
	first   int // index in the policy's rules
	loops   bool
}

// chainRules is how many rules a chain has at most. They are nested in one
// another.
const chainRules = 64

// chains joins the rules into as few expressions as possible.
func (c *compiler) chains(p *rulePolicy) error {
	for first := 0; first < len(p.rules); {
		last := first
		for last < len(p.rules)-1 && last-first < chainRules-1 && p.rules[last].then.hook == "" {
			last++
		}
		joined := chain{first: first}
		var text strings.Builder
		for i, r := range p.rules[first : last+1] {
			// The line break ends a comment that the expression may end in.
			fmt.Fprintf(&text, "(%s\n) ? %d : ", r.when.text, i)
			joined.loops = joined.loops || r.when.loops
		}
		text.WriteString("-1")
		checked, issues := c.chain.Compile(text.String())
		if issues != nil && issues.Err() != nil {
			return fmt.Errorf("join rules: %w", issues.Err())
		}
		var err error
		if joined.program, err = c.program(c.chain, checked); err != nil {
			return err
		}
		p.chains = append(p.chains, joined)
		first = last + 1
	}
	return nil
}
