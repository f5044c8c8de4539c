package schema

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// boulangerie reads a Boulangerie schema.
func (s *source) boulangerie(root *yaml.Node) *Schema {
	schema := newSchema(FormatBoulangerie)
	var id, predicates *yaml.Node
	for _, p := range s.pairs(root, ErrParse, "schema") {
		switch p.key {
		case "schema-id":
			id = p.value
		case "predicates":
			predicates = p.value
		default:
			s.problem(p.at, ErrParse, "unrecognized key in schema: %q%s", short(p.key),
				didYouMean(p.key, []string{"schema-id", "predicates"}))
		}
	}
	schema.id = s.schemaID(root, id)
	if predicates == nil || isEmpty(predicates) {
		s.problem(orElse(predicates, root), ErrParse, "no predicates in schema")
		return schema
	}
	for i, v := range s.versions(predicates, "predicates") {
		if s.rubyVersion(v.at, i) {
			schema.version = i
			s.predicates(schema, v)
		}
	}
	return schema
}

var (
	hex16    = regexp.MustCompile(`[0-9a-fA-F]{16}`)
	usableID = regexp.MustCompile(`^[a-z0-9]{16}$`)
	octalInt = regexp.MustCompile(`^[-+]?0[0-7_,]+$`)
	rubyBool = regexp.MustCompile(`^(?i:yes|no|on|off)$`)
	rubyVer  = regexp.MustCompile(`^v([0-9]+)$`)
)

// schemaID reads the schema-id, which YAML may take for a number. Like the
// gem it accepts any text with sixteen hexadecimal digits somewhere in it, and
// warns of those that no identifier can name.
func (s *source) schemaID(root, n *yaml.Node) string {
	if n == nil || isEmpty(n) {
		s.problem(orElse(n, root), ErrSchemaID, "no schema-id present (must be 16-digit hex number)")
		return ""
	}
	plain := n.Kind == yaml.ScalarNode && n.Style == 0
	switch {
	case n.Kind != yaml.ScalarNode, n.Style&yaml.TaggedStyle != 0:
		s.problem(n, ErrSchemaID, "bad schema-id: want 16 hexadecimal digits, got %s", kindOf(n))
	case plain && octalInt.MatchString(n.Value):
		s.problem(n, ErrSchemaID, "bad schema-id: YAML reads %s as an octal number; quote it", short(n.Value))
	case !hex16.MatchString(n.Value), len(n.Value) > MaxName:
		s.problem(n, ErrSchemaID, "bad schema-id: %q is not a 16-digit hex number", short(n.Value))
	case !usableID.MatchString(n.Value):
		s.warn(n, ErrSchemaID, "schema-id %q is not 16 lower-case digits: no token can name this schema", n.Value)
		return n.Value
	default:
		return n.Value
	}
	return ""
}

// rubyVersion says whether a version's name is its place in the file.
func (s *source) rubyVersion(at *yaml.Node, place int) bool {
	m := rubyVer.FindStringSubmatch(at.Value)
	if m == nil {
		s.problem(at, ErrVersion, "malformed version identifier: %q", short(at.Value))
		return false
	}
	if number, err := strconv.Atoi(m[1]); err != nil || number != place {
		s.problem(at, ErrVersion, "non-sequential version: %q, want v%d", short(at.Value), place)
		return false
	}
	return true
}

// predicates reads the predicates that one version adds.
func (s *source) predicates(schema *Schema, version pair) {
	for _, p := range s.pairs(version.value, ErrParse, fmt.Sprintf("version v%d", schema.version)) {
		if !s.caveatName(schema, p) {
			continue
		}
		if p.at.Style == 0 && rubyBool.MatchString(p.key) {
			s.problem(p.at, ErrParse, "predicate %q: Ruby does not read this as a string; quote it", p.key)
			continue
		}
		if !isString(p.value) {
			s.problem(p.value, ErrType, "invalid predicate %q: want the name of a type, got %s", p.key, notString(p.value))
			continue
		}
		t, ok := s.namedType(boulangerieTypes(), p.value, fmt.Sprintf("predicate %q", p.key))
		if !ok {
			continue
		}
		schema.add(&caveat{
			Caveat: Caveat{Name: p.key, Style: StyleColon, Version: schema.version, Repeat: true},
			match:  builtin(p.key, t.name),
		}, t)
	}
}

// builtin returns the matcher that Boulangerie brings for a predicate, or nil.
func builtin(name, typeName string) Matcher {
	if typeName != "DateTime" {
		return nil
	}
	switch name {
	case "expires":
		return func(value any, r Request) bool { return r.Now.Before(value.(time.Time)) }
	case "not-before":
		return func(value any, r Request) bool { return !r.Now.Before(value.(time.Time)) }
	}
	return nil
}

// isEmpty says whether a node holds nothing: null, "", or no entries.
func isEmpty(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Value == "" || n.ShortTag() == "!!null"
	case yaml.MappingNode, yaml.SequenceNode:
		return len(n.Content) == 0
	}
	return false
}

// orElse returns n, or other when n is nil: the nearest place to point at.
func orElse(n, other *yaml.Node) *yaml.Node {
	if n == nil {
		return other
	}
	return n
}
