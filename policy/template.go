package policy

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"go.yaml.in/yaml/v3"
)

// A template is a string with expressions in braces, as caveats and stored
// labels may be: "client-ip {request.ip}". Doubled braces stand for braces.
//
// What an expression yields becomes one word of the result and no more. It
// cannot end the caveat, begin another or add an argument, because a value
// with white space, control characters, or nothing in it is an error, and
// with it the decision is undecided.
type template struct {
	literals []string // one more than there are holes
	holes    []hole
}

type hole struct {
	*expression
	program cel.Program
}

// Longest values and results of templates, in bytes.
const (
	maxHole       = 256
	maxCaveat     = 512
	maxCaveats    = 16
	maxSetLabels  = 16
	maxCode       = 64
	maxMessage    = 256
	maxRetryAfter = 24 * time.Hour
)

// template reads a template and compiles its expressions.
func (c *compiler) template(node *yaml.Node, what string) (*template, bool) {
	t := &template{}
	runes := []rune(node.Value)
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
			c.errorIn(node, i, "a closing brace without an opening one; a brace itself is written }}")
			return nil, false
		case r == '{':
			length := holeLength(runes[i+1:])
			if length < 0 {
				c.errorIn(node, i, "this brace is never closed; a brace itself is written {{")
				return nil, false
			}
			t.literals = append(t.literals, literal.String())
			literal.Reset()
			ok = c.hole(t, node, i+1, string(runes[i+1:i+1+length]), what) && ok
			i += length + 2
		default:
			literal.WriteRune(r)
			i++
		}
	}
	t.literals = append(t.literals, literal.String())
	return t, ok
}

// holeLength is the length of the expression up to its closing brace, or -1.
// Braces inside the expression and inside its strings do not count.
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

// hole compiles one expression of a template.
func (c *compiler) hole(t *template, node *yaml.Node, offset int, text, what string) bool {
	e := c.compile(node, offset, text, what+": the expression in braces",
		cel.StringType, cel.IntType, cel.BoolType, cel.TimestampType, cel.DurationType)
	if e == nil {
		return false
	}
	p, err := c.program(c.env, e.ast)
	if err != nil {
		c.errorIn(node, offset, "%v", err)
		return false
	}
	t.holes = append(t.holes, hole{e, p})
	return true
}

// constant returns the result of a template without holes.
func (t *template) constant() (string, bool) { return t.literals[0], len(t.holes) == 0 }

// render fills the holes.
func (t *template) render(ctx context.Context, b *bindings) (string, error) {
	if s, ok := t.constant(); ok {
		return s, nil
	}
	var out strings.Builder
	out.WriteString(t.literals[0])
	for i, h := range t.holes {
		v, err := h.run(ctx, h.program, b)
		if err != nil {
			return "", err
		}
		word, err := wordOf(v)
		if err != nil {
			return "", fmt.Errorf("{%s}: %w", h.text, err)
		}
		out.WriteString(word)
		out.WriteString(t.literals[i+1])
	}
	return out.String(), nil
}

// wordOf writes a value as one word.
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
		return "", fmt.Errorf("a %s cannot be written", v.Type().TypeName())
	}
	switch {
	case s == "":
		return "", fmt.Errorf("there is no value")
	case len(s) > maxHole:
		return "", fmt.Errorf("the value has %d bytes; at most %d are allowed", len(s), maxHole)
	case !utf8.ValidString(s):
		return "", fmt.Errorf("the value is not UTF-8 text")
	}
	for _, r := range s {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return "", fmt.Errorf("the value has the character %q in it", r)
		}
	}
	return s, nil
}

// checkCaveatText refuses what is no first-party condition: a printable line
// that begins with its name.
func checkCaveatText(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("the caveat is empty")
	case len(s) > maxCaveat:
		return fmt.Errorf("the caveat has %d bytes; at most %d are allowed", len(s), maxCaveat)
	case !utf8.ValidString(s):
		return fmt.Errorf("the caveat is not UTF-8 text")
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("the caveat begins or ends with a space")
	}
	return printable(s, "the caveat")
}

// printable refuses control characters and everything else that moves a
// cursor or breaks a line.
func printable(s, what string) error {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s has the character %q in it", what, r)
		}
	}
	return nil
}
