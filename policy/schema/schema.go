package schema

import (
	"fmt"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
)

// A Format is the language that a schema file is written in.
type Format string

// Format1 is the format in the package comment.
const Format1 Format = "1"

// A Style is how a caveat puts its name and its value into one text.
type Style string

// The styles.
const (
	StyleArg    Style = "cond arg"    // one space, as the bakery writes it
	StyleEquals Style = "key = value" // as Synapse writes it
	StyleLess   Style = "key < value" // as Synapse writes an end of life
	StyleColon  Style = "name: value" // as Boulangerie writes it
)

// separator returns what stands between name and value, "" for a style that
// does not exist.
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

// styleNames returns the names of the styles, in the order of a reference.
func styleNames() []string {
	return []string{string(StyleArg), string(StyleEquals), string(StyleLess), string(StyleColon)}
}

// A Caveat is what a schema says of one kind of caveat.
type Caveat struct {
	Name     string
	Type     string // as the schema writes it
	Style    Style
	Version  int    // the version of the schema that introduced it
	Required bool   // a macaroon of that version or a later one must have it
	Repeat   bool   // a macaroon may have it more than once; all must hold
	MaxLen   int    // bytes of the value at most; 0 when only [MaxCondition] bounds it
	Check    string // in CEL; "" in a Boulangerie schema
	Doc      string // for a reader; "" when the schema says nothing
}

// A Variable is a context value that checks may use.
type Variable struct {
	Name string
	Type string
	Doc  string
}

// A Condition is the text of a caveat, taken apart.
type Condition struct {
	Name string
	// Value is a string, bool, int64, time.Time, time.Duration, netip.Addr,
	// netip.Prefix or *big.Int, or an []any of these, as the caveat's type
	// has it.
	Value any
}

// MaxCondition is the longest text of a caveat that is looked at, in bytes.
const MaxCondition = 1<<16 - 1

// A Schema says which caveats there are. It never changes once loaded and may
// be used concurrently.
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

// caveat is a Caveat with what the schema made of it.
type caveat struct {
	Caveat
	place     int // among the schema's caveats
	separator string
	example   string // the whole text of one that parses
	typeText  string
	parse     func(string) (any, error)
	match     Matcher // of a schema in another format; nil for most
	holds     string  // when match is true, for Docs
	check     *check  // nil in a schema of another format
	shown     string  // the check as errors show it
}

// variable is a Variable with its type.
type variable struct {
	Variable
	valueType
}

func newSchema(format Format) *Schema {
	return &Schema{format: format, byName: map[string]*caveat{}, variable: map[string]int{}}
}

// add appends a caveat whose name is new. t is its type.
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

// Format returns the language the schema was written in.
func (s *Schema) Format() Format { return s.format }

// ID returns the schema's id: in a Boulangerie schema what the identifiers of
// its tokens name, otherwise a name for people.
func (s *Schema) ID() string { return s.id }

// Version returns the newest version, which has all caveats. Format 1 counts
// from 1, Boulangerie from 0.
func (s *Schema) Version() int { return s.version }

// Caveats returns the caveats of all versions, in the order of the file.
func (s *Schema) Caveats() []Caveat {
	list := make([]Caveat, len(s.caveats))
	for i, c := range s.caveats {
		list[i] = c.Caveat
	}
	return list
}

// Context returns the context values that the schema declares, in the order
// of the file.
func (s *Schema) Context() []Variable {
	list := make([]Variable, len(s.context))
	for i, v := range s.context {
		list[i] = v.Variable
	}
	return list
}

// Knows says whether the schema has a caveat of that name.
func (s *Schema) Knows(name string) bool { return s.byName[name] != nil }

// Parse takes the text of a caveat apart. It says nothing of whether the
// caveat holds. Its error is a [*CaveatError] that wraps [ErrUnknown] or
// [ErrMalformed].
func (s *Schema) Parse(condition string) (Condition, error) {
	c, value, err := s.parse(condition)
	if err != nil {
		return Condition{}, err
	}
	return Condition{Name: c.Name, Value: value}, nil
}

// KnowsCaveat returns nil if the text of a caveat is one that a [Checker] of
// the schema would understand, and Parse's error if not. With it a policy can
// be told, before any macaroon has it, that a caveat it adds would be refused.
func (s *Schema) KnowsCaveat(condition string) error {
	_, err := s.Parse(condition)
	return err
}

// parse finds the caveat that condition is one of, and its value. The name is
// the longest run of name characters: no separator begins with one, so there
// is one way only to read a text.
func (s *Schema) parse(condition string) (*caveat, any, *CaveatError) {
	if len(condition) > MaxCondition {
		return nil, nil, malformed("is %d bytes long, at most %d", len(condition), MaxCondition)
	}
	end := 0
	for end < len(condition) && isNameByte(condition[end]) {
		end++
	}
	name, rest := condition[:end], condition[end:]
	c := s.byName[name]
	switch {
	case name == "":
		return nil, nil, malformed("does not begin with a name")
	case c == nil && len(name) > MaxName:
		return nil, nil, &CaveatError{Err: ErrUnknown, Reason: "its name is too long to show"}
	case c == nil:
		return nil, nil, &CaveatError{Name: name, Err: ErrUnknown}
	}
	text, found := strings.CutPrefix(rest, c.separator)
	if c.Type == flagType {
		text, found = "", rest == ""
	}
	if !found {
		return nil, nil, c.malformed("is not written as %q", c.example)
	}
	if c.MaxLen > 0 && len(text) > c.MaxLen {
		return nil, nil, c.malformed("value is %d bytes long, at most %d", len(text), c.MaxLen)
	}
	value, err := c.parse(text)
	if err != nil {
		return nil, nil, c.malformed("value: %v", err)
	}
	return c, value, nil
}
