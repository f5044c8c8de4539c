package schema

import (
	"fmt"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
)

// A Format is the language of a schema file.
type Format string

// Format1 is the format in the package comment.
const Format1 Format = "1"

// A Style is the way in which a caveat joins its name and its value.
type Style string

// The styles.
const (
	StyleArg    Style = "cond arg"    // one space, as the bakery writes it
	StyleEquals Style = "key = value" // as Synapse writes it
	StyleLess   Style = "key < value" // as Synapse writes an end of life
	StyleColon  Style = "name: value" // as Boulangerie writes it
)

// separator returns the text between name and value, "" for an unknown style.
func (s Style) separator() string {
	switch s {
	case StyleArg:
		return " "
	case StyleEquals:
		return " = "
	case StyleLess:
		return " < "
	case StyleColon:
		return ": "
	}
	return ""
}

// styleNames returns the names of the styles.
func styleNames() []string {
	return []string{string(StyleArg), string(StyleEquals), string(StyleLess), string(StyleColon)}
}

// A Caveat is the declaration of one caveat.
type Caveat struct {
	Name     string
	Type     string // as the schema writes it
	Style    Style
	Version  int    // of the schema, that introduced it
	Required bool   // macaroons of that version or a later one must have it
	Repeat   bool   // macaroons may have it more than once, and all must hold
	MaxLen   int    // bytes of the value; 0: bounded by [MaxCondition]
	Check    string // in CEL; "" in other formats than 1
	Doc      string // for the reference; may be empty
}

// A Condition is a parsed caveat.
type Condition struct {
	Name string
	// Value is, by the type of the caveat, a string, bool, int64, time.Time,
	// time.Duration, netip.Addr, netip.Prefix or *big.Int, or an []any of these.
	Value any
}

// MaxCondition bounds the text of a caveat, in bytes.
const MaxCondition = 1<<16 - 1

// A Schema is a set of caveats. It is immutable once loaded, and safe for concurrent use.
type Schema struct {
	format   Format
	about    string // first paragraph of Docs, in other formats than 1
	id       string
	doc      string
	version  int
	caveats  []*caveat
	byName   map[string]*caveat
	context  []variable
	variable map[string]int // index in context
}

// caveat is a Caveat that can be parsed and verified.
type caveat struct {
	Caveat
	place     int // index in the schema
	separator string
	example   string // text of one that parses
	typeText  string
	parse     func(string) (any, error)
	match     Matcher // of a schema in another format; nil for most
	holds     string  // when match is true, for Docs
	check     *check  // nil in a schema of another format
	shown     string  // the check as errors show it
}

// variable is the declaration of a context value.
type variable struct {
	Name, Doc string
	valueType
}

func newSchema(format Format) *Schema {
	return &Schema{format: format, byName: map[string]*caveat{}, variable: map[string]int{}}
}

// add appends a caveat with a new name. t is its type.
func (s *Schema) add(c *caveat, t valueType) {
	c.Type, c.typeText, c.parse = t.name, t.text, t.parse
	c.separator = c.Style.separator()
	c.example = c.Name
	if t.example != "" {
		c.example += c.separator + t.example
	}
	c.place = len(s.caveats)
	s.caveats = append(s.caveats, c)
	s.byName[c.Name] = c
}

// nameError returns why a name cannot be that of one more caveat, or nil.
func (s *Schema) nameError(name string) error {
	switch old := s.byName[name]; {
	case len(name) > MaxName, name == "", !allBytes(name, isNameByte):
		return fmt.Errorf("caveat name %q: want up to %d letters, digits and . / - _", yamlfile.Shorten(name), MaxName)
	case old != nil:
		return fmt.Errorf("caveat %q is a duplicate; the first is in version v%d", name, old.Version)
	case len(s.caveats) == MaxCaveats:
		return fmt.Errorf("more than %d caveats", MaxCaveats)
	}
	return nil
}

// Format returns the language of the schema.
func (s *Schema) Format() Format { return s.format }

// ID returns the id of the schema.
func (s *Schema) ID() string { return s.id }

// Version returns the newest version, which has all caveats.
func (s *Schema) Version() int { return s.version }

// Caveats returns the caveats of all versions, in the order of the file.
func (s *Schema) Caveats() []Caveat {
	list := make([]Caveat, len(s.caveats))
	for i, c := range s.caveats {
		list[i] = c.Caveat
	}
	return list
}

// Knows reports whether there is a caveat with a name.
func (s *Schema) Knows(name string) bool { return s.byName[name] != nil }

// Parse parses the text of a caveat, and does not verify it. The error is a
// [*CaveatError] that wraps [ErrUnknown] or [ErrMalformed].
func (s *Schema) Parse(condition string) (Condition, error) {
	c, value, err := s.parse(condition)
	if err != nil {
		return Condition{}, err
	}
	return Condition{Name: c.Name, Value: value}, nil
}

// CheckCaveat returns the error of [Schema.Parse]. A policy calls it to reject a
// caveat before it is added to a macaroon.
func (s *Schema) CheckCaveat(condition string) error {
	_, err := s.Parse(condition)
	return err
}

// parse returns the caveat and the value of a condition. The name is the longest run
// of name characters. Since no separator begins with one, a text has one reading.
func (s *Schema) parse(condition string) (*caveat, any, *CaveatError) {
	if len(condition) > MaxCondition {
		return nil, nil, malformed("", "want at most %d bytes, got %d", MaxCondition, len(condition))
	}
	end := 0
	for end < len(condition) && isNameByte(condition[end]) {
		end++
	}
	name, rest := condition[:end], condition[end:]
	c := s.byName[name]
	switch {
	case name == "":
		return nil, nil, malformed("", "does not begin with a name")
	case c == nil && len(name) > MaxName:
		return nil, nil, &CaveatError{Err: ErrUnknown, Reason: "name is too long"}
	case c == nil:
		return nil, nil, &CaveatError{Name: name, Err: ErrUnknown}
	}
	text, found := strings.CutPrefix(rest, c.separator)
	if c.Type == flagType {
		text, found = "", rest == ""
	}
	if !found {
		return nil, nil, malformed(name, "is not written as %q", c.example)
	}
	if c.MaxLen > 0 && len(text) > c.MaxLen {
		return nil, nil, malformed(name, "want a value of at most %d bytes, got %d", c.MaxLen, len(text))
	}
	value, err := c.parse(text)
	if err != nil {
		return nil, nil, malformed(name, "value: %v", err)
	}
	return c, value, nil
}

// A Foreign collects a schema of a format that another package reads.
type Foreign struct {
	Format  Format
	ID      string
	Version int    // of the caveats that are added next, and at last of the schema
	About   string // first paragraph of the reference

	schema *Schema
}

// A Definition is a caveat of a [Foreign].
type Definition struct {
	Name, Type string
	Style      Style
	Text       string                    // form of the value, for the reference
	Example    string                    // a value that parses
	Parse      func(string) (any, error) // of the value; errors do not contain it
	Match      Matcher                   // nil: the program has to bring one
	Holds      string                    // when Match is true, for the reference
}

// Add adds a caveat that may be repeated. It returns an error if the name is invalid
// or a duplicate.
func (f *Foreign) Add(d Definition) error {
	s := f.Schema()
	if err := s.nameError(d.Name); err != nil {
		return err
	}
	s.add(&caveat{
		Caveat: Caveat{Name: d.Name, Style: d.Style, Version: f.Version, Repeat: true}, match: d.Match, holds: d.Holds,
	}, valueType{name: d.Type, text: d.Text, example: d.Example, parse: d.Parse})
	return nil
}

// Schema returns the schema with all caveats added so far.
func (f *Foreign) Schema() *Schema {
	if f.schema == nil {
		f.schema = newSchema(f.Format)
	}
	f.schema.id, f.schema.version, f.schema.about = f.ID, f.Version, f.About
	return f.schema
}
