package schema

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of problems of a schema file, which a [yamlfile.Problem] wraps.
var (
	// ErrParse: the file does not follow the grammar.
	ErrParse = errors.New("schema cannot be parsed")
	// ErrVersion: a version is malformed or out of order. It wraps ErrParse.
	ErrVersion = fmt.Errorf("%w: bad version", ErrParse)
	// ErrType: a type is unknown.
	ErrType = errors.New("unknown type")
	// ErrCheck: a check does not compile, is not a boolean, or may cost too much.
	ErrCheck = errors.New("bad check")
)

// Why a macaroon's caveats are refused. A [CaveatError] wraps one of them.
var (
	// ErrUnknown: the schema has no such caveat.
	ErrUnknown = errors.New("not in the schema")
	// ErrMalformed: the text is not in the caveat's style, or the value not
	// of its type.
	ErrMalformed = errors.New("malformed")
	// ErrUnmet: the caveat's check says no.
	ErrUnmet = errors.New("does not hold")
	// ErrMissing: the caveat is required and the macaroon has none.
	ErrMissing = errors.New("required and missing")
	// ErrRepeated: the macaroon has the caveat again, and the schema does not
	// let it.
	ErrRepeated = errors.New("given more than once")
	// ErrTooMany: the macaroon has more than [MaxConditions] caveats.
	ErrTooMany = errors.New("too many caveats")
	// ErrUndecided: nothing is known to be wrong with the caveat, but its
	// check could not be made, for want of a context value, of time or of
	// cost. Like the others it is a refusal, but not one for good: a client
	// should be told to come back later.
	ErrUndecided = errors.New("cannot be decided")
)

// A CaveatError says which caveat keeps a macaroon from being accepted, and
// why. It never holds the value of a caveat or of a context value.
type CaveatError struct {
	Name     string // "" when it has none that can be read
	Position int    // among the conditions, from 1; 0 when it is not one of them
	Err      error  // one of the errors above
	Reason   string // more words, or ""
}

// Error returns one line.
func (e *CaveatError) Error() string {
	var b strings.Builder
	b.WriteString("caveat")
	if e.Position > 0 {
		fmt.Fprintf(&b, " %d", e.Position)
	}
	if e.Name != "" {
		fmt.Fprintf(&b, " %q", e.Name)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *CaveatError) Unwrap() error { return e.Err }

// malformed returns the error of a text that names no caveat.
func malformed(format string, args ...any) *CaveatError {
	return &CaveatError{Err: ErrMalformed, Reason: fmt.Sprintf(format, args...)}
}

// malformed returns the error of a text that is not what c should be.
func (c *caveat) malformed(format string, args ...any) *CaveatError {
	return &CaveatError{Name: c.Name, Err: ErrMalformed, Reason: fmt.Sprintf(format, args...)}
}
