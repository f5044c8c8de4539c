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

// Reasons why caveats are refused. A [CaveatError] wraps one of them.
var (
	// ErrUnknown: the schema has no such caveat.
	ErrUnknown = errors.New("not in the schema")
	// ErrMalformed: the text is not in the caveat's style, or the value not of its type.
	ErrMalformed = errors.New("malformed")
	// ErrUnmet: the check of the caveat is false.
	ErrUnmet = errors.New("does not hold")
	// ErrMissing: the macaroon lacks a required caveat.
	ErrMissing = errors.New("required and missing")
	// ErrRepeated: the macaroon has more than one of a caveat without repeat.
	ErrRepeated = errors.New("given more than once")
	// ErrTooMany: the macaroon has more than [MaxConditions] caveats.
	ErrTooMany = errors.New("too many caveats")
	// ErrUndecided: the check could not be evaluated, for lack of a context value,
	// of time or of cost. The request is refused, and the client may retry.
	ErrUndecided = errors.New("cannot be decided")
)

// A CaveatError is the refusal of a caveat. It never contains the value of a caveat or
// of a context value.
type CaveatError struct {
	Name     string // "" if it has none that parses
	Position int    // among the conditions, from 1; 0: not one of them
	Err      error  // one of the errors above
	Reason   string // detail, or ""
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

// malformed returns the error of a text that begins with a name, or with none.
func malformed(name, format string, args ...any) *CaveatError {
	return &CaveatError{Name: name, Err: ErrMalformed, Reason: fmt.Sprintf(format, args...)}
}
