package rulefile

import (
	"unicode"

	"go.yaml.in/yaml/v3"
)

// tokenWidth is how many characters the word or the quoted text at a column
// has.
func tokenWidth(line string, column int) int {
	runes := []rune(line)
	if column < 1 || column > len(runes) {
		return 1
	}
	runes = runes[column-1:]
	if q := runes[0]; q == '"' || q == '\'' {
		for i, r := range runes[1:] {
			if r == q {
				return i + 2
			}
		}
		return 1
	}
	n := 0
	for n < len(runes) && (runes[n] == '_' || unicode.IsLetter(runes[n]) || unicode.IsDigit(runes[n])) {
		n++
	}
	return max(n, 1)
}

// place returns the line and column of a character of a node's string, by
// walking the string along the text it was written as: quotes, escapes,
// folded lines and indentation are in the text only.
func (s *source) place(n *yaml.Node, offset int) (line, column int) {
	w := walker{lines: s.lines, line: n.Line, column: n.Column}
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		w.line, w.column = n.Line+1, 1
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		w.column++
	}
	for i, r := range []rune(n.Value) {
		w.find(r, n.Style&yaml.DoubleQuotedStyle != 0)
		if i == offset {
			break
		}
		w.column++
	}
	if w.line < 1 || w.line > len(s.lines) {
		return n.Line, n.Column
	}
	return w.line, w.column
}

// A walker is a place in a file.
type walker struct {
	lines        []string
	line, column int // both from 1
	cached       int // the line that runes holds
	runes        []rune
}

// peek returns the character here; a line ends in '\n'.
func (w *walker) peek() (rune, bool) {
	if w.line > len(w.lines) {
		return 0, false
	}
	if w.cached != w.line {
		w.cached, w.runes = w.line, []rune(w.lines[w.line-1])
	}
	if w.column > len(w.runes) {
		return '\n', true
	}
	return w.runes[w.column-1], true
}

// find goes forward to where r was written.
func (w *walker) find(r rune, escapes bool) {
	for {
		c, ok := w.peek()
		blank := c == ' ' || c == '\t' || c == '\n'
		switch {
		case !ok || c == r && c != '\n':
			return
		case c == '\\' && escapes:
			w.column += escapeWidth(w.runes[w.column-1:]) - 1
			return
		case r == ' ' && c == '\n' || r == '\n' && c == '\n':
			return // a fold, or an end of line: it stands at the line's end
		case c == '\n':
			w.line, w.column = w.line+1, 1
		case blank || c == '\'':
			w.column++ // indentation, or a doubled quote
		default:
			return // not how it was written; stay near
		}
	}
}

// escapeWidth is the length of the escape sequence that runes begin with.
func escapeWidth(runes []rune) int {
	if len(runes) < 2 {
		return 1
	}
	switch runes[1] {
	case 'x':
		return 4
	case 'u':
		return 6
	case 'U':
		return 10
	}
	return 2
}
