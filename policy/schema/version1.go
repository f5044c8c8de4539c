package schema

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// defaultMaxLen is the max_len of a caveat that names none, and the bound on
// those that do.
const (
	defaultMaxLen  = 256
	greatestMaxLen = 4096
)

// version1 reads a schema of format 1.
func (s *source) version1(root *yaml.Node) *Schema {
	schema := newSchema(Format1)
	fields := s.fields(root, "schema", "format", "id", "doc", "style", "context", "versions")
	if n := fields["format"]; n == nil {
		s.problem(root, ErrParse, "no format: a schema begins with format: 1")
	} else if _, ok := s.number(n, "format", 1, 1); !ok {
		return schema
	}
	if n := fields["id"]; n == nil {
		s.problem(root, ErrParse, "no id: a schema has a name")
	} else if id, ok := s.text(n, "id", MaxName); ok {
		if _, err := parseAtom(id); err != nil {
			s.problem(n, ErrParse, "id: %v", err)
		}
		schema.id = id
	}
	schema.doc = s.doc(fields["doc"])
	style := s.style(fields["style"], StyleArg)
	compiler := &compiler{source: s, schema: schema}
	s.contextValues(schema, fields["context"])
	n := fields["versions"]
	if n == nil || isEmpty(n) {
		s.problem(orElse(n, root), ErrParse, "no versions: the caveats are under versions, v1")
		return schema
	}
	for i, v := range s.versions(n, "versions") {
		if want := fmt.Sprintf("v%d", i+1); v.key != want {
			s.problem(v.at, ErrVersion, "version %q: want %s, versions count up from v1", short(v.key), want)
			continue
		}
		schema.version = i + 1
		for _, p := range s.pairs(v.value, ErrParse, "version "+v.key) {
			if s.caveatName(schema, p) {
				s.caveat(schema, compiler, style, p)
			}
		}
	}
	return schema
}

// caveat reads the declaration of one caveat.
func (s *source) caveat(schema *Schema, compiler *compiler, style Style, p pair) {
	what := fmt.Sprintf("caveat %q", p.key)
	if p.value.Kind != yaml.MappingNode {
		s.problem(p.value, ErrParse, "%s: want a mapping with type and check, got %s", what, kindOf(p.value))
		return
	}
	fields := s.fields(p.value, what, "type", "required", "repeat", "max_len", "style", "check", "doc")
	typeNode, checkNode := fields["type"], fields["check"]
	if typeNode == nil {
		s.problem(p.at, ErrParse, "%s has no type", what)
	}
	if checkNode == nil {
		s.problem(p.at, ErrParse, `%s has no check; write check: "true" if it only informs`, what)
	}
	c := &caveat{Caveat: Caveat{Name: p.key, Version: schema.version, Doc: s.doc(fields["doc"])}}
	c.Style = s.style(fields["style"], style)
	if n := fields["required"]; n != nil {
		c.Required = s.yesNo(n, "required")
	}
	if n := fields["repeat"]; n != nil {
		c.Repeat = s.yesNo(n, "repeat")
	}
	// Added even when what follows fails, so that the name is known to be
	// taken. A schema with a problem is never used.
	var t valueType
	if typeNode != nil {
		t = s.caveatType(typeNode, what)
	}
	if t.name != flagType {
		c.MaxLen = defaultMaxLen
	}
	if n := fields["max_len"]; n != nil && t.name == flagType {
		s.problem(n, ErrParse, "max_len: a flag has no value")
	} else if n != nil {
		if limit, ok := s.number(n, "max_len", 1, greatestMaxLen); ok {
			c.MaxLen = limit
		}
	}
	schema.add(c, t)
	if checkNode != nil && t.cel != nil {
		if text, ok := s.text(checkNode, "check", 4*MaxCheck); ok {
			c.Check = strings.TrimSpace(text)
			c.told = oneLine(c.Check)
			c.check = compiler.compile(checkNode, c, t)
		}
	}
}

// caveatType reads the type of a caveat; the zero type has no name.
func (s *source) caveatType(n *yaml.Node, what string) valueType {
	if !isString(n) {
		s.problem(n, ErrType, "%s: want the name of a type, got %s", what, notString(n))
		return valueType{}
	}
	t, _ := s.namedType(version1Types(), n, what)
	return t
}

// style reads the name of a style, and returns other when there is none.
func (s *source) style(n *yaml.Node, other Style) Style {
	if n == nil {
		return other
	}
	text, ok := s.text(n, "style", MaxName)
	if ok && Style(text).separator() == "" {
		s.problem(n, ErrParse, "unknown style %q%s", text, didYouMean(text, styleNames()))
		ok = false
	}
	if !ok {
		return other
	}
	return Style(text)
}

// doc reads text for people.
func (s *source) doc(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	text, _ := s.text(n, "doc", MaxDoc)
	return strings.TrimSpace(text)
}

// variableName is what a context value can be called: an identifier of CEL.
var variableName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// reservedNames are the names that checks know already, those of CEL's types
// and the words it keeps for itself.
func reservedNames() []string {
	return strings.Fields("value now ip cidr bool bytes double duration dyn int list map null_type string " +
		"timestamp type uint true false null in as break const continue else for function if import let loop " +
		"package namespace return var void while")
}

// contextValues reads the context values that checks may use.
func (s *source) contextValues(schema *Schema, n *yaml.Node) {
	if n == nil {
		return
	}
	for _, p := range s.pairs(n, ErrParse, "context") {
		what := fmt.Sprintf("context value %q", short(p.key))
		switch {
		case len(schema.context) == MaxContext:
			s.problem(p.at, ErrParse, "more than %d context values", MaxContext)
			return
		case len(p.key) > MaxName, !variableName.MatchString(p.key):
			s.problem(p.at, ErrParse, "%s: want up to %d lower-case letters, digits and _", what, MaxName)
			continue
		case slices.Contains(reservedNames(), p.key):
			s.problem(p.at, ErrParse, "%s: the name is taken", what)
			continue
		case p.value.Kind != yaml.MappingNode:
			s.problem(p.value, ErrParse, "%s: want a mapping with type, got %s", what, kindOf(p.value))
			continue
		}
		fields := s.fields(p.value, what, "type", "doc")
		t, ok := s.contextType(p, fields["type"], what)
		if !ok {
			continue
		}
		schema.variable[p.key] = len(schema.context)
		schema.context = append(schema.context, variable{
			Variable:  Variable{Name: p.key, Type: t.name, Doc: s.doc(fields["doc"])},
			valueType: t,
		})
	}
}

// contextType reads the type of a context value.
func (s *source) contextType(p pair, n *yaml.Node, what string) (valueType, bool) {
	if n == nil {
		s.problem(p.at, ErrParse, "%s has no type", what)
		return valueType{}, false
	}
	var names []string
	for _, t := range version1Types() {
		if t.native == nil {
			continue
		}
		if isString(n) && t.name == n.Value {
			return t, true
		}
		names = append(names, t.name)
	}
	s.problem(n, ErrType, "unknown type %q for %s; there are %s", short(n.Value), what, strings.Join(names, ", "))
	return valueType{}, false
}
