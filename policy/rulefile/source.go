package rulefile

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

	"github.com/discharger/discharger/policy/cel"
)

// MaxBytes bounds a rule file. Its YAML nodes, of which a file of nothing
// but commas has the most, then fit in some fifty megabytes.
const MaxBytes = 256 << 10

// maxProblems is how many problems of one file are reported.
const maxProblems = 50

// A source is one rule file as YAML. It knows shapes and places, and nothing
// of what a policy means. Its readers report what is wrong and return what is
// left, so that one pass over a file finds as much as possible.
type source struct {
	name     string
	lines    []string
	problems Problems
	more     bool // than maxProblems, and not only warnings
}

// parse returns the root of the file's only document, or nil.
func (s *source) parse(data []byte) *yaml.Node {
	switch {
	case len(data) > MaxBytes:
		s.whole("the file has %d bytes; at most %d are read", len(data), MaxBytes)
		return nil
	case !utf8.Valid(data):
		s.whole("the file is not UTF-8 text")
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	s.lines = strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, another yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		s.whole("the file is empty")
		return nil
	} else if err != nil {
		s.notYAML(err)
		return nil
	}
	if err := decoder.Decode(&another); err == nil {
		s.ErrorAt(&another, "a second YAML document begins here; there can be only one")
		return nil
	} else if !errors.Is(err, io.EOF) {
		s.notYAML(err)
		return nil
	}
	return document.Content[0]
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d{1,9}): )?`)

// notYAML reports an error of the YAML reader, which knows at most its line.
func (s *source) notYAML(err error) {
	message := err.Error()
	line := 0
	if m := yamlErrorLine.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		line, _ = strconv.Atoi(m[1]) // stays 0 where there is none
	}
	line = min(line, len(s.lines))
	s.report(&Problem{Line: line, Message: "not YAML: " + message + s.quoteHint(line)})
}

// expressionLine is a line with an expression that YAML may take for
// something else: because of its first character, or of a colon or number sign
// inside.
var expressionLine = regexp.MustCompile("^\\s*(?:- )?(?:when|ttl):\\s+(?:[\"'!&*{\\[%@`].*|[^'\"|>].*(?:: | #).*)$")

// quoteHint looks for such a line near the one where the YAML reader gave up,
// which may be the beginning of what surrounds it.
func (s *source) quoteHint(line int) string {
	for i := max(0, line-2); i < min(len(s.lines), line+6); i++ {
		if expressionLine.MatchString(s.lines[i]) {
			return fmt.Sprintf("; perhaps the expression in line %d, which %s", i+1, quoteAdvice)
		}
	}
	return ""
}

const quoteAdvice = "belongs in single quotes, or on a line of its own after when: |"

// whole reports a problem of the file as a whole.
func (s *source) whole(format string, args ...any) {
	s.report(&Problem{Message: fmt.Sprintf(format, args...)})
}

// ErrorAt and WarnAt report a problem at a node.
func (s *source) ErrorAt(n *yaml.Node, format string, args ...any) {
	s.report(&Problem{Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, args...)})
}

func (s *source) WarnAt(n *yaml.Node, format string, args ...any) {
	s.report(&Problem{Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, args...), Warning: true})
}

// In returns a reporter of mistakes in a string.
func (s *source) In(n *yaml.Node) cel.Reporter { return inside{s, n} }

type inside struct {
	*source
	node *yaml.Node
}

func (i inside) ErrorIn(offset int, format string, args ...any) {
	line, column := i.place(i.node, offset)
	i.report(&Problem{Line: line, Column: column, Message: fmt.Sprintf(format, args...)})
}

func (i inside) WarnIn(offset int, format string, args ...any) {
	line, column := i.place(i.node, offset)
	i.report(&Problem{Line: line, Column: column, Message: fmt.Sprintf(format, args...), Warning: true})
}

func (s *source) report(p *Problem) {
	if len(s.problems) >= maxProblems {
		s.more = s.more || !p.Warning
		return
	}
	p.File = s.name
	if p.Line > 0 && p.Line <= len(s.lines) {
		p.Text = s.lines[p.Line-1]
	}
	if p.Column > 0 {
		p.Width = tokenWidth(p.Text, p.Column)
	}
	s.problems = append(s.problems, p)
}

// Failed reports whether a problem so far is more than a warning.
func (s *source) Failed() bool { return s.more || s.problems.Err() != nil }

// Problems returns the problems in the order of the file.
func (s *source) Problems() Problems {
	s.problems.sort()
	if s.more {
		s.problems = append(s.problems, &Problem{File: s.name,
			Message: fmt.Sprintf("more than %d problems; the rest is not shown", maxProblems)})
		s.more = false
	}
	return s.problems
}

// An Entry is a key of a mapping and what it holds.
type Entry struct {
	Key   string
	At    *yaml.Node // the key
	Value *yaml.Node
}

// entries returns a mapping's entries. Keys are strings and come once.
func (s *source) entries(n *yaml.Node, what string) []Entry {
	if n.Kind != yaml.MappingNode || !untagged(n) {
		s.ErrorAt(n, "%s is a mapping, not %s", what, describe(n))
		return nil
	}
	s.unanchored(n)
	lines := map[string]int{}
	var out []Entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if !isText(k) {
			s.ErrorAt(k, "a key of %s is a name, not %s", what, describe(k))
			continue
		}
		s.unanchored(k)
		if line, twice := lines[k.Value]; twice {
			s.ErrorAt(k, "%s has the key %.60q already, in line %d", what, k.Value, line)
			continue
		}
		lines[k.Value] = k.Line
		out = append(out, Entry{k.Value, k, v})
	}
	return out
}

// keys reads a mapping that has no keys but the known ones.
func (s *source) keys(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	out := map[string]*yaml.Node{}
	for _, e := range s.entries(n, what) {
		if !slices.Contains(known, e.Key) {
			s.ErrorAt(e.At, "%s has no key %.60q%s", what, e.Key, cel.OneOf(e.Key, known))
			continue
		}
		out[e.Key] = e.Value
	}
	return out
}

// items returns the items of a list.
func (s *source) items(n *yaml.Node, what string, most int) []*yaml.Node {
	switch {
	case n.Kind != yaml.SequenceNode || !untagged(n):
		s.ErrorAt(n, "%s is a list, not %s", what, describe(n))
		return nil
	case len(n.Content) > most:
		s.ErrorAt(n, "%s has %d items; at most %d are allowed", what, len(n.Content), most)
		return nil
	}
	s.unanchored(n)
	return n.Content
}

// text reads a string of at most most bytes.
func (s *source) text(n *yaml.Node, what string, most int) (string, bool) {
	switch {
	case n.Kind == yaml.ScalarNode && !untagged(n) && strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!"):
		s.ErrorAt(n, "%s begins with !, which YAML takes for a tag; it %s", what, quoteAdvice)
		return "", false
	case !isText(n):
		s.ErrorAt(n, "%s is a string, not %s", what, describe(n))
		return "", false
	case len(n.Value) > most:
		s.ErrorAt(n, "%s has %d bytes; at most %d are allowed", what, len(n.Value), most)
		return "", false
	}
	s.unanchored(n)
	return n.Value, true
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// nameAt checks a name that appears in logs and metrics.
func (s *source) nameAt(n *yaml.Node, name, what string) bool {
	if !nameForm.MatchString(name) {
		s.ErrorAt(n, "%s %.60q: a name has at most 64 of a-z, 0-9, _ and -, and begins with a letter or digit", what, name)
		return false
	}
	return true
}

// flag reads true or false.
func (s *source) flag(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || !untagged(n) {
		s.ErrorAt(n, "%s is true or false, not %s", what, describe(n))
		return false
	}
	s.unanchored(n)
	return strings.EqualFold(n.Value, "true")
}

// number reads a whole number.
func (s *source) number(n *yaml.Node, what string, least, most int) int {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || !untagged(n) || err != nil {
		s.ErrorAt(n, "%s is a whole number, not %s", what, describe(n))
		return 0
	}
	if v < least || v > most {
		s.ErrorAt(n, "%s is from %d to %d, not %d", what, least, most, v)
		return 0
	}
	s.unanchored(n)
	return v
}

// unanchored refuses anchors. Aliases are refused by their kind.
func (s *source) unanchored(n *yaml.Node) {
	if n.Anchor != "" {
		s.ErrorAt(n, "an anchor (&%.60s); rule files have none, write the value out", n.Anchor)
	}
}

func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && untagged(n)
}

func untagged(n *yaml.Node) bool { return n.Style&yaml.TaggedStyle == 0 }

// describe says what a node is, where something else was wanted.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode:
		return fmt.Sprintf("an alias (*%.60s); write the value out", n.Value)
	case !untagged(n):
		return fmt.Sprintf("a value with the tag %.60s", n.Tag)
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.ShortTag() == "!!str":
		return fmt.Sprintf("%.60q", n.Value)
	}
	return fmt.Sprintf("%.60s (a %s in YAML; quoted it is a string)", n.Value, strings.TrimPrefix(n.ShortTag(), "!!"))
}
