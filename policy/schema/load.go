package schema

import "go.yaml.in/yaml/v3"

// Load reads a schema file of either format; filename is used in errors only.
// A file with the key format is of [Format1], one without it that has
// schema-id or predicates is Boulangerie's. The error is of type [Problems].
func Load(filename string, data []byte) (*Schema, error) {
	schema, s := read(filename, data)
	if s.failed() {
		return nil, Problems(s.sorted())
	}
	return schema, nil
}

// Check returns everything that is wrong in a schema file, warnings too, in
// the order of the file. No problem but warnings means that [Load] accepts it.
func Check(filename string, data []byte) []Problem {
	_, s := read(filename, data)
	return s.sorted()
}

// read returns the schema as far as it can be read.
func read(filename string, data []byte) (*Schema, *source) {
	s := &source{report{file: filename}}
	root := s.document(data)
	switch {
	case root == nil:
		return nil, s
	case isBoulangerie(root):
		return s.boulangerie(root), s
	}
	return s.version1(root), s
}

func isBoulangerie(root *yaml.Node) bool {
	found := false
	for i := 0; i < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case "format":
			return false
		case "schema-id", "predicates":
			found = true
		}
	}
	return found
}

// versions returns the entries of the mapping that holds the versions.
func (s *source) versions(n *yaml.Node, what string) []pair {
	versions := s.pairs(n, ErrVersion, what)
	if len(versions) > MaxVersions {
		s.problem(versions[MaxVersions].at, ErrVersion, "more than %d versions", MaxVersions)
		return nil
	}
	return versions
}

// caveatName says whether p can be the name of one more caveat.
func (s *source) caveatName(schema *Schema, p pair) bool {
	switch old := schema.byName[p.key]; {
	case len(p.key) > MaxName, p.key == "", !allBytes(p.key, isNameByte):
		s.problem(p.at, ErrParse, "caveat name %q: want up to %d letters, digits and . / - _", short(p.key), MaxName)
	case old != nil:
		s.problem(p.at, ErrParse, "caveat %q specified twice, first in version v%d", p.key, old.Version)
	case len(schema.caveats) == MaxCaveats:
		s.problem(p.at, ErrParse, "more than %d caveats", MaxCaveats)
	default:
		return true
	}
	return false
}

// namedType returns the type that n names and that caveats can have.
func (s *source) namedType(types []valueType, n *yaml.Node, what string) (valueType, bool) {
	var names []string
	for _, t := range types {
		switch {
		case t.name == n.Value && t.parse == nil:
			s.problem(n, ErrType, "%s: only a context value can be a %s, since text may have spaces", what, t.name)
			return valueType{}, false
		case t.name == n.Value:
			return t, true
		case t.parse != nil:
			names = append(names, t.name)
		}
	}
	s.problem(n, ErrType, "unknown type %q for %s%s", short(n.Value), what, didYouMean(n.Value, names))
	return valueType{}, false
}
