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

// MaxConditions is how many caveats of one macaroon are looked at.
const MaxConditions = 100

// A Request is what is known of the request that a macaroon came with.
type Request struct {
	// Now is the time. Without it a check that asks for now cannot be made,
	// nor the built-in ones of a Boulangerie schema.
	Now time.Time
	// IP is the address of the client. Without it a check that asks for ip
	// cannot be made. An IPv4 address in IPv6 form counts as IPv4; a zone is
	// ignored.
	IP netip.Addr
	// Values are the context values by name. Those the schema does not
	// declare are ignored. The Go types are those of a [Condition], or an int
	// for int, or a []string for list(string).
	Values map[string]any
	// Version is the version of the schema that the macaroon was made under,
	// which says what it must have. 0 is the newest, the one that asks for
	// most. Of no meaning in a Boulangerie schema, where nothing is required.
	Version int
}

// A Matcher decides whether a caveat holds. value has the Go type that
// [Condition] names. It is called concurrently.
type Matcher func(value any, r Request) bool

// Config is what a Checker is made of.
type Config struct {
	// Schema is required.
	Schema *Schema
	// Matchers are asked about the caveats they are named after. In a
	// Boulangerie schema each caveat must have one, but for expires and
	// not-before of type DateTime, which have one if none is given. In a
	// schema of format 1 a matcher is asked after the check, and both must
	// agree.
	Matchers map[string]Matcher
}

// A Checker says whether the caveats of a macaroon hold. It may be used
// concurrently.
type Checker struct {
	schema   *Schema
	matchers []Matcher // by the place of the caveat; nil for none
}

// New returns a Checker. It is an error when a caveat has nothing that could
// decide it, or a matcher has no caveat.
func New(config Config) (*Checker, error) {
	if config.Schema == nil {
		return nil, errors.New("schema checker: no schema")
	}
	c := &Checker{schema: config.Schema, matchers: make([]Matcher, len(config.Schema.caveats))}
	for name, m := range config.Matchers {
		if !config.Schema.Knows(name) || m == nil {
			return nil, fmt.Errorf("schema checker: matcher %q: no such caveat, or no function", name)
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

// Check says whether all conditions hold, which are the texts of all caveats
// of a macaroon whose signature has been verified, and whether the required
// caveats are among them. The error is a [*CaveatError]. One that is refused
// for good comes before one that cannot be decided, whatever their order.
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

// CheckOne says whether one condition holds, as Check does. Alone it can be
// neither repeated nor missing.
func (c *Checker) CheckOne(ctx context.Context, condition string, r Request) error {
	if _, err := c.one(ctx, condition, c.activation(r)); err != nil {
		return err
	}
	return nil
}

// Func returns CheckOne as the function that asks about one condition with
// nothing but a context. request finds the Request in that context; its error
// makes every condition undecided.
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

// noTime is why a check that compares with the time cannot be made. A zero
// time must never reach one: everything is before its end then.
const noTime = "the time is not known"

// one checks one condition. The caveat is nil when the text is not one the
// schema knows; the error is then not ErrUndecided.
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
		return cav, &CaveatError{Name: cav.Name, Err: ErrUnmet, Reason: "its matcher says no"}
	}
	return cav, nil
}

// activation gives checks what they ask for by name.
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

// ResolveName returns the value of a name in a check.
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

// Parent returns nil: there are no other names.
func (a *activation) Parent() cel.Activation { return nil }

// eval makes the check of one caveat.
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
		// The error may quote what the check worked on, so only its kind is told.
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

// provide makes one name ready for a check, or says why it cannot.
func (a *activation) provide(name string) string {
	switch name {
	case nameNow:
		if a.request.Now.IsZero() {
			return noTime
		}
		return ""
	case nameIP:
		if !a.request.IP.IsValid() {
			return "the client's address is not known"
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
		return "context value " + name + " is not given"
	}
	plain, ok := a.schema.context[i].native(v)
	if !ok {
		return "context value " + name + " is not a " + a.schema.context[i].Type + ", or too large"
	}
	a.context[i] = toCEL(plain)
	return ""
}

func (c *caveat) undecided(reason string) *CaveatError {
	return &CaveatError{Name: c.Name, Err: ErrUndecided, Reason: reason}
}
