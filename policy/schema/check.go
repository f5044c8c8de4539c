package schema

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// MaxConditions bounds the caveats of one macaroon.
const MaxConditions = 100

// A Request is the request that carried a macaroon, as far as checks use it.
type Request struct {
	// Now is the time. Without it a check that uses now is undecided.
	Now time.Time
	// IP is the address of the client. Without it a check that uses ip is
	// undecided. An IPv4 address in IPv6 form counts as IPv4; a zone is ignored.
	IP netip.Addr
	// Values are the context values by name. Values that the schema does not
	// declare are ignored. The Go types are those of a [Condition], or an int for
	// int, or a []string for list(string).
	Values map[string]any
	// Version is the version of the schema under which the macaroon was minted; it
	// must have the caveats that this version requires. 0 is the newest. Schemas
	// of other formats than 1 require nothing.
	Version int
}

// A Matcher reports whether a caveat holds. value has one of the Go types of a
// [Condition]. Calls are concurrent.
type Matcher func(value any, r Request) bool

// Config configures a [Checker]. Schema is required.
type Config struct {
	Schema *Schema
	// Matchers decide caveats by their names. In format 1 a matcher is called after
	// the check, and both must hold. In other formats each caveat must have one,
	// unless the format brings its own.
	Matchers map[string]Matcher
}

// A Checker verifies the caveats of macaroons. It is safe for concurrent use.
type Checker struct {
	schema   *Schema
	matchers []Matcher // by the place of the caveat; nil for none
}

// New returns a Checker. It returns an error if a caveat has neither check nor
// matcher, or a matcher has no caveat.
func New(config Config) (*Checker, error) {
	if config.Schema == nil {
		return nil, errors.New("schema checker: schema is missing")
	}
	c := &Checker{schema: config.Schema, matchers: make([]Matcher, len(config.Schema.caveats))}
	for name, m := range config.Matchers {
		if !config.Schema.Knows(name) || m == nil {
			return nil, fmt.Errorf("schema checker: matcher %q is nil or of no caveat", name)
		}
	}
	for i, cav := range config.Schema.caveats {
		m := config.Matchers[cav.Name]
		if m == nil {
			m = cav.match
		}
		if m == nil && cav.check == nil {
			return nil, fmt.Errorf("schema checker: no matcher defined for: %s", cav.Name)
		}
		c.matchers[i] = m
	}
	return c, nil
}

// Check verifies the conditions of a macaroon whose signature has been verified: all
// hold, and the required caveats are among them. The error is a [*CaveatError]. A
// caveat that does not hold takes precedence over an undecided one.
func (c *Checker) Check(ctx context.Context, conditions []string, r Request) error {
	if len(conditions) > MaxConditions {
		return &CaveatError{Err: ErrTooMany, Reason: fmt.Sprintf("%d, at most %d", len(conditions), MaxConditions)}
	}
	a := c.activation(r)
	var seen [MaxCaveats]bool
	var undecided *CaveatError
	for i, condition := range conditions {
		cav, err := c.one(ctx, condition, a)
		if cav != nil && seen[cav.place] && !cav.Repeat {
			err = &CaveatError{Name: cav.Name, Err: ErrRepeated}
		}
		if err != nil {
			err.Position = i + 1
			if !errors.Is(err, ErrUndecided) {
				return err
			}
			if undecided == nil {
				undecided = err
			}
		}
		seen[cav.place] = true
	}
	if err := c.required(&seen, r.Version); err != nil {
		return err
	}
	if undecided != nil {
		return undecided
	}
	return nil
}

// CheckOne verifies one condition, without regard to required and repeated caveats.
func (c *Checker) CheckOne(ctx context.Context, condition string, r Request) error {
	if _, err := c.one(ctx, condition, c.activation(r)); err != nil {
		return err
	}
	return nil
}

// Func returns [Checker.CheckOne] as a function of a condition. request returns the
// request in a context; its error makes every caveat undecided.
func (c *Checker) Func(request func(context.Context) (Request, error)) func(context.Context, string) error {
	return func(ctx context.Context, condition string) error {
		r, err := request(ctx)
		if err != nil {
			return fmt.Errorf("find request: %w: %w", ErrUndecided, err)
		}
		return c.CheckOne(ctx, condition, r)
	}
}

// required returns the error of the first caveat that the version requires
// and that was not seen.
func (c *Checker) required(seen *[MaxCaveats]bool, version int) *CaveatError {
	if c.schema.format != Format1 {
		return nil
	}
	newest := c.schema.version
	if version < 0 || version > newest {
		return &CaveatError{Err: ErrUndecided,
			Reason: fmt.Sprintf("version %d of the schema is not known, the newest is %d", version, newest)}
	}
	if version == 0 {
		version = newest
	}
	for i, cav := range c.schema.caveats {
		if cav.Required && cav.Version <= version && !seen[i] {
			return &CaveatError{Name: cav.Name, Err: ErrMissing}
		}
	}
	return nil
}

// noTime is the reason of a check that needs the time and has none. A zero time must
// not reach it: no caveat would be expired.
const noTime = "time is missing"

// one verifies one condition. The caveat is nil if the text does not parse; the error
// is not ErrUndecided then.
func (c *Checker) one(ctx context.Context, condition string, a *activation) (*caveat, *CaveatError) {
	cav, value, err := c.schema.parse(condition)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return cav, cav.undecided("out of time")
	}
	if cav.check != nil {
		if err := a.eval(cav, value); err != nil {
			return cav, err
		}
	}
	if cav.match != nil && a.request.Now.IsZero() {
		return cav, cav.undecided(noTime)
	}
	if m := c.matchers[cav.place]; m != nil && !m(value, a.request) {
		return cav, &CaveatError{Name: cav.Name, Err: ErrUnmet, Reason: "matcher returned false"}
	}
	return cav, nil
}

// activation resolves the names in checks.
type activation struct {
	request Request
	schema  *Schema
	value   ref.Val
	now, ip ref.Val
	context []ref.Val // by index in the schema; nil until needed
}

func (c *Checker) activation(r Request) *activation {
	return &activation{
		request: r,
		schema:  c.schema,
		now:     types.Timestamp{Time: r.Now},
		ip:      toCEL(plainAddr(r.IP)),
	}
}

// ResolveName implements [cel.Activation].
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case nameValue:
		return a.value, true
	case nameNow:
		return a.now, true
	case nameIP:
		return a.ip, true
	}
	if i, ok := a.schema.variable[name]; ok && a.context != nil {
		return a.context[i], a.context[i] != nil
	}
	return nil, false
}

// Parent implements [cel.Activation]: there is none.
func (a *activation) Parent() cel.Activation { return nil }

// eval evaluates the check of one caveat.
func (a *activation) eval(c *caveat, value any) *CaveatError {
	for _, name := range c.check.needs {
		if reason := a.provide(name); reason != "" {
			return c.undecided(reason)
		}
	}
	a.value = toCEL(value)
	result, _, err := c.check.program.Eval(a)
	switch {
	case err != nil:
		// The error may contain the value, and is not returned.
		var cancelled interpreter.EvalCancelledError
		if errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded {
			return c.undecided("check costs too much")
		}
		return c.undecided("check fails on this value")
	case result != types.True:
		return &CaveatError{Name: c.Name, Err: ErrUnmet, Reason: c.shown}
	}
	return nil
}

// provide sets the value of a name, or returns why there is none.
func (a *activation) provide(name string) string {
	switch name {
	case nameNow:
		if a.request.Now.IsZero() {
			return noTime
		}
		return ""
	case nameIP:
		if !a.request.IP.IsValid() {
			return "address of the client is missing"
		}
		return ""
	}
	if a.context == nil {
		a.context = make([]ref.Val, len(a.schema.context))
	}
	i := a.schema.variable[name]
	if a.context[i] != nil {
		return ""
	}
	v, ok := a.request.Values[name]
	if !ok {
		return "context value " + name + " is missing"
	}
	plain, ok := a.schema.context[i].native(v)
	if !ok {
		return "context value " + name + " is not a " + a.schema.context[i].name + ", or too large"
	}
	a.context[i] = toCEL(plain)
	return ""
}

func (c *caveat) undecided(reason string) *CaveatError {
	return &CaveatError{Name: c.Name, Err: ErrUndecided, Reason: reason}
}
