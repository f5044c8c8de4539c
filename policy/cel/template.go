package cel

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/discharger/discharger/config/yamlfile"
)

// A Template is the compiled text of a caveat or a stored
// label with expressions in braces: "client-ip {request.ip}". Doubled braces stand for braces.
//
// The value of an expression is one word of the result. It
// cannot end the caveat, begin another or add an argument: an empty value and one
// with white space or control characters are errors.
type Template struct {
	literals []string      // around the holes
	holes    []*Expression // expressions in braces
}

// maxHole bounds the value of a hole in bytes.
const maxHole = 256

// Template compiles a string of a document as a template. It reports mistakes in the
// document, with name for the template, and returns false then.
func (l *Language) Template(doc *yamlfile.Document, n *yamlfile.Node, name string) (*Template, bool) {
	t := &Template{}
	runes := []rune(n.Value)
	ok := true
	var literal strings.Builder
	for i := 0; i < len(runes); {
		r := runes[i]
		doubled := i+1 < len(runes) && runes[i+1] == r
		switch {
		case (r == '{' || r == '}') && doubled:
			literal.WriteRune(r)
			i += 2
		case r == '}':
			doc.ErrorIn(n, i, "opening brace is missing; a literal brace is written }}")
			return nil, false
		case r == '{':
			length := holeLength(runes[i+1:])
			if length < 0 {
				doc.ErrorIn(n, i, "closing brace is missing; a literal brace is written {{")
				return nil, false
			}
			t.literals = append(t.literals, literal.String())
			literal.Reset()
			hole := l.compile(&checker{doc: doc, node: n, offset: i + 1}, string(runes[i+1:i+1+length]), name+": the expression in braces",
				cel.StringType, cel.IntType, cel.BoolType, cel.TimestampType, cel.DurationType)
			ok = ok && hole != nil
			t.holes = append(t.holes, hole)
			i += length + 2
		default:
			literal.WriteRune(r)
			i++
		}
	}
	t.literals = append(t.literals, literal.String())
	return t, ok
}

// holeLength returns the length of the expression before its closing brace, or -1. It
// skips braces in the expression and in its strings.
func holeLength(runes []rune) int {
	depth, quote := 0, rune(0)
	for i := 0; i < len(runes); i++ {
		switch r := runes[i]; {
		case quote != 0:
			if r == '\\' {
				i++
			} else if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '{':
			depth++
		case r == '}':
			if depth == 0 {
				return i
			}
			depth--
		}
	}
	return -1
}

// Constant returns the text before the first hole, and whether that is the whole template.
func (t *Template) Constant() (string, bool) { return t.literals[0], len(t.holes) == 0 }

// Cost returns the worst-case cost of the expressions.
func (t *Template) Cost() (total uint64) {
	for _, h := range t.holes {
		total += h.Max
	}
	return total
}

// Render evaluates the expressions and returns the text.
func (t *Template) Render(ctx context.Context, b *Bindings) (string, error) {
	if s, ok := t.Constant(); ok {
		return s, nil
	}
	var out strings.Builder
	out.WriteString(t.literals[0])
	for i, h := range t.holes {
		v, _, err := run(ctx, h.program, h.loops, b)
		if err != nil {
			return "", err
		}
		word, err := wordOf(v)
		if err != nil {
			return "", fmt.Errorf("{%s}: %w", h.Text, err)
		}
		out.WriteString(word)
		out.WriteString(t.literals[i+1])
	}
	return out.String(), nil
}

// wordOf returns the text form of a value if that is one word.
func wordOf(v ref.Val) (string, error) {
	var s string
	switch v := v.(type) {
	case types.String:
		s = string(v)
	case types.Int:
		s = strconv.FormatInt(int64(v), 10)
	case types.Bool:
		s = strconv.FormatBool(bool(v))
	case types.Timestamp:
		s = v.UTC().Format(time.RFC3339)
	case types.Duration:
		s = strconv.FormatInt(int64(v.Seconds()), 10) + "s"
	default:
		return "", fmt.Errorf("type %s has no text form", v.Type().TypeName())
	}
	switch {
	case s == "":
		return "", errors.New("value is empty")
	case len(s) > maxHole:
		return "", fmt.Errorf("value has %d bytes, want at most %d", len(s), maxHole)
	case !utf8.ValidString(s):
		return "", errors.New("value is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return "", fmt.Errorf("value contains %q", r)
		}
	}
	return s, nil
}
