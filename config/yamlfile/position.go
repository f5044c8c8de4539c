package yamlfile

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// tokenWidth returns the length of the word or the quoted text at a column, in
// characters.
func tokenWidth(line string, column int) int {
	runes := []rune(line)
	if column < 1 || column > len(runes) {
		return 1
	}
	runes = runes[column-1:]
	if q := runes[0]; q == '"' || q == '\'' {
		return max(1, quotedWidth(runes))
	}
	n := slices.IndexFunc(runes, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if n < 0 {
		n = len(runes)
	}
	return max(n, 1)
}

// quotedWidth returns the length of the quoted text that runes begin with, or 0
// if it does not end there.
func quotedWidth(runes []rune) int {
	for i := 1; i < len(runes); i++ {
		switch {
		case runes[i] == '\\' && runes[0] == '"':
			i++
		case runes[0] == '\'' && runes[i] == '\'' && i+1 < len(runes) && runes[i+1] == '\'':
			i++
		case runes[i] == runes[0]:
			return i + 1
		}
	}
	return 0
}

// scalarWidth returns the length of a scalar that begins and ends on a line, or
// 0 for any other node.
func scalarWidth(n *Node, line string) int {
	runes := []rune(line)
	if n.Kind != yaml.ScalarNode || n.Column < 1 || n.Column > len(runes) {
		return 0
	}
	runes = runes[n.Column-1:]
	switch {
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		return quotedWidth(runes)
	case n.Style == 0 && strings.HasPrefix(string(runes), n.Value):
		return utf8.RuneCountInString(n.Value)
	}
	return 0
}

// Position returns the line and column of a character of a node's string, by
// its offset. It walks the string along the text it was written as: quotes,
// escapes, folded lines and indentation are in the text only.
func (d *Document) Position(n *Node, offset int) (line, column int) {
	w := walker{lines: d.lines, line: n.Line, column: n.Column}
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
	if w.line < 1 || w.line > len(d.lines) {
		return n.Line, n.Column
	}
	return w.line, w.column
}

// A walker is a place in a file.
type walker struct {
	lines        []string
	line, column int // both from 1
	cached       int // the line in runes
	runes        []rune
}

// peek returns the character at the place; a line ends in '\n'.
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
		case (r == ' ' || r == '\n') && c == '\n':
			return // a fold or an end of line, at the line's end
		case c == '\n':
			w.line, w.column = w.line+1, 1
		case blank || c == '\'':
			w.column++ // indentation, or a doubled quote
		default:
			return // not how it was written; stay near
		}
	}
}

// escapeWidth returns the length of the escape sequence that runes begin with.
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

// Hide masks the values in a node in all excerpts: one of them may be a secret.
func (d *Document) Hide(n *Node) {
	for _, c := range n.Content {
		d.Hide(c)
	}
	if n.Kind != yaml.ScalarNode || n.Line < 1 || n.Line > len(d.shown) {
		return
	}
	if width := scalarWidth(n, d.lines[n.Line-1]); width > 0 || n.Value == "" {
		d.mask(n.Line, n.Column, width)
		return
	}
	// Everything from its beginning: where it ends is not worth a mistake.
	for line, column := n.Line, n.Column; line <= len(d.shown); line, column = line+1, 1 {
		d.mask(line, column, len(d.lines[line-1]))
	}
}

// hideSecret hides a value where the file may hold secrets.
func (d *Document) hideSecret(n *Node) {
	if d.options.Secrets {
		d.Hide(n)
	}
}

// maxMasked bounds the text that mask reads, in bytes. Beyond it there are no
// excerpts: thousands of values in one long line would take minutes.
const maxMasked = 8 << 20

// mask replaces characters of a line by asterisks, in excerpts.
func (d *Document) mask(line, column, width int) {
	if d.masked += 1 + len(d.shown[line-1]); d.masked > maxMasked {
		d.shown = nil
		return
	}
	if &d.shown[0] == &d.lines[0] {
		d.shown = slices.Clone(d.lines)
	}
	runes := []rune(d.shown[line-1])
	for i := column - 1; i < min(column-1+width, len(runes)); i++ {
		runes[i] = '*'
	}
	d.shown[line-1] = string(runes)
}
