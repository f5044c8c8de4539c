package rulefile

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// A Problem is one thing that is wrong in a rule file, and where.
type Problem struct {
	File    string // as given to Read
	Line    int    // from 1; 0: the whole file
	Column  int    // in characters, from 1; 0: the whole line
	Width   int    // characters to underline, at least 1 where Column is known
	Message string // one line, with a suggestion where there is one
	Text    string // the line of the file
	Warning bool   // the file can be used all the same
}

// Error returns file:line:column: message, on one line.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// lineWidth is how many characters of a line are shown around a problem.
const lineWidth = 110

// WriteTo writes what Error returns, and below it the line of the file with
// the place underlined.
func (p *Problem) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	b.WriteString(p.Error())
	b.WriteByte('\n')
	if p.Line > 0 && p.Text != "" {
		text, mark := excerpt(p.Text, p.Column, p.Width)
		fmt.Fprintf(&b, "%5d | %s\n", p.Line, text)
		if mark != "" {
			fmt.Fprintf(&b, "      | %s\n", mark)
		}
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// excerpt cuts a line to the part around a column, makes it printable, and
// returns a second line that underlines width characters from that column.
func excerpt(line string, column, width int) (text, mark string) {
	shown := []rune(line)
	for i, r := range shown {
		if r == '\t' || !unicode.IsPrint(r) {
			shown[i] = ' '
		}
	}
	start := 0
	if len(shown) > lineWidth && column > lineWidth*3/4 {
		start = min(column-1-lineWidth/2, len(shown))
	}
	end := min(start+lineWidth, len(shown))
	text = strings.TrimRight(string(shown[start:end]), " ")
	if column < 1 {
		return text, ""
	}
	before := max(0, column-1-start)
	width = max(1, min(width, end-start-before))
	return text, strings.Repeat(" ", before) + strings.Repeat("^", width)
}

// Problems is the error about files that cannot be used. It
// holds their warnings too.
type Problems []*Problem

// Error returns the problems, one on each line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// WriteTo writes all problems with the lines they are on.
func (ps Problems) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for _, p := range ps {
		n, err := p.WriteTo(w)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Err returns ps as an error if any of them is more than a warning.
func (ps Problems) Err() error {
	if slices.ContainsFunc(ps, func(p *Problem) bool { return !p.Warning }) {
		return ps
	}
	return nil
}

// sort orders the problems of one file by place.
func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
