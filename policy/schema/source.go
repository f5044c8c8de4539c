package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// What a schema file may hold. A file beyond any of these is a problem, found
// before the work it would cause.
const (
	MaxFile     = 1 << 20 // bytes of a file
	MaxVersions = 64      // versions of a schema
	MaxCaveats  = 256     // caveats of a schema, all versions together
	MaxContext  = 64      // context values of a schema
	MaxName     = 64      // bytes of a name, an id or a schema-id
	MaxCheck    = 2048    // characters of a check
	MaxDoc      = 4096    // bytes of a doc text
)

// maxMarks is how many characters that can begin a YAML node a file may have.
// A node takes two hundred bytes of memory, and a file of nothing but commas
// is nearly all nodes.
const maxMarks = 100_000

// source reads one YAML file. It knows places and shapes, and nothing of what
// a schema means.
type source struct {
	report
}

// document returns the root of the only document in data, a mapping, or nil
// when there is none. What is wrong is in the report.
func (s *source) document(data []byte) *yaml.Node {
	if len(data) > MaxFile {
		s.whole("is %d bytes long, at most %d", len(data), MaxFile)
		return nil
	}
	if !utf8.Valid(data) {
		s.whole("is not UTF-8 text")
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if marks(data) > maxMarks {
		s.whole("has more than %d YAML nodes", maxMarks)
		return nil
	}
	s.lines = splitLines(string(data))
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		s.syntax(err)
		return nil
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		s.problem(&second, ErrParse, "a second document: a schema file holds one")
		return nil
	case !errors.Is(err, io.EOF):
		s.syntax(err)
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		s.problem(root, ErrParse, "want a mapping, got %s", kindOf(root))
		return nil
	}
	return root
}

// marks counts the places in data at which a YAML node could begin, but for
// one per line of nesting.
func marks(data []byte) int {
	n := 0
	for i, c := range data {
		switch c {
		case '\n', '\r', ',', '[', '{', ':':
			n++
		case '-', '?':
			if i+1 < len(data) && (data[i+1] == ' ' || data[i+1] == '\t') {
				n++
			}
		}
	}
	return n
}

// splitLines cuts text where YAML does: at CR, LF, CR LF, NEL, LS and PS.
func splitLines(text string) []string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.NewReplacer("\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(text)
	return strings.Split(text, "\n")
}

var yamlError = regexp.MustCompile(`^yaml: (?:line ([0-9]{1,9}): )?`)

// syntax reports an error of the YAML decoder, whose message begins with the
// line if it knows it.
func (s *source) syntax(err error) {
	if errors.Is(err, io.EOF) {
		s.whole("is empty")
		return
	}
	text := err.Error()
	line := 1
	if m := yamlError.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = min(n, len(s.lines))
		}
	}
	s.add(Problem{Line: line, Column: 0, Message: "not YAML: " + printable(text), Err: ErrParse})
}

// after returns a line, counted from 1, without its first skip characters.
func (s *source) after(line, skip int) (string, bool) {
	if line > len(s.lines) {
		return "", false
	}
	runes := []rune(s.lines[line-1])
	if skip > len(runes) {
		return "", false
	}
	return string(runes[skip:]), true
}

// whole reports a problem of the file as a whole.
func (s *source) whole(format string, args ...any) {
	s.add(Problem{Message: fmt.Sprintf(format, args...), Err: ErrParse})
}

// problem reports a problem at a node.
func (s *source) problem(at *yaml.Node, kind error, format string, args ...any) {
	s.add(Problem{Line: at.Line, Column: at.Column, Message: fmt.Sprintf(format, args...), Err: kind})
}

// warn reports at a node what does not keep the schema from loading.
func (s *source) warn(at *yaml.Node, kind error, format string, args ...any) {
	s.add(Problem{Line: at.Line, Column: at.Column, Message: fmt.Sprintf(format, args...), Warning: true, Err: kind})
}

// pair is one entry of a mapping.
type pair struct {
	key   string
	at    *yaml.Node // the key
	value *yaml.Node
}

// pairs returns the entries of a mapping whose keys are strings, without
// those that come a second time. what names the mapping in problems, and kind
// is what a key that is not a string means.
func (s *source) pairs(n *yaml.Node, kind error, what string) []pair {
	if n.Kind != yaml.MappingNode {
		s.problem(n, ErrParse, "%s: want a mapping, got %s", what, kindOf(n))
		return nil
	}
	seen := make(map[string]int, len(n.Content)/2)
	pairs := make([]pair, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		if !isString(at) {
			s.problem(at, kind, "%s: want a name, got %s", what, notString(at))
			continue
		}
		if line, ok := seen[at.Value]; ok {
			s.problem(at, ErrParse, "%s: %q a second time, first in line %d", what, short(at.Value), line)
			continue
		}
		seen[at.Value] = at.Line
		pairs = append(pairs, pair{key: at.Value, at: at, value: value})
	}
	return pairs
}

// fields reads a mapping that may have the known keys and no others.
func (s *source) fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	fields := make(map[string]*yaml.Node, len(known))
	for _, p := range s.pairs(n, ErrParse, what) {
		if !slices.Contains(known, p.key) {
			s.problem(p.at, ErrParse, "%s: unknown key %q%s", what, short(p.key), didYouMean(p.key, known))
			continue
		}
		fields[p.key] = p.value
	}
	return fields
}

// text reads a string of at most limit bytes.
func (s *source) text(n *yaml.Node, what string, limit int) (string, bool) {
	switch {
	case !isString(n):
		s.problem(n, ErrParse, "%s: want a string, got %s", what, notString(n))
	case len(n.Value) > limit:
		s.problem(n, ErrParse, "%s: is %d bytes long, at most %d", what, len(n.Value), limit)
	default:
		return n.Value, true
	}
	return "", false
}

// yesNo reads true or false.
func (s *source) yesNo(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Style != 0 {
		s.problem(n, ErrParse, "%s: want true or false, got %s", what, kindOf(n))
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// number reads an integer between low and high, written as Go writes it:
// other ways mean different numbers to different readers of YAML.
func (s *source) number(n *yaml.Node, what string, low, high int) (int, bool) {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Style != 0 || err != nil || strconv.Itoa(v) != n.Value {
		s.problem(n, ErrParse, "%s: want a whole number, got %s", what, kindOf(n))
		return 0, false
	}
	if v < low || v > high {
		s.problem(n, ErrParse, "%s: %d is not between %d and %d", what, v, low, high)
		return 0, false
	}
	return v, true
}

// isString says whether a node is a string without an explicit tag.
func isString(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Style&yaml.TaggedStyle == 0
}

// kindOf names what a node is, for a message that says what was wanted.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias; write the value out"
	}
	if n.Style&yaml.TaggedStyle != 0 {
		return "a value with the tag " + strconv.Quote(short(n.Tag)) + "; leave the tag away"
	}
	switch n.ShortTag() {
	case "!!str":
		return "the string " + strconv.Quote(short(n.Value))
	case "!!null":
		return "nothing"
	}
	return printable(short(n.Value))
}

// notString names what a node is where a string was wanted.
func notString(n *yaml.Node) string {
	kind := kindOf(n)
	if n.Kind == yaml.ScalarNode && n.Style == 0 && n.ShortTag() != "!!null" {
		kind += ", which YAML does not read as a string; quote it"
	}
	return kind
}
