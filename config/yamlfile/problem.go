package yamlfile

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// A Problem is one mistake in a file, and its place.
type Problem struct {
	File    string // as given to [Read]; for a value from elsewhere $VARIABLE or --flag
	Line    int    // from 1; 0: the file as a whole
	Column  int    // in characters, from 1; 0: the line as a whole
	Width   int    // characters to underline
	Path    string // the value's path or name, such as discharge.ttl; empty at the top
	Message string // one line, with a suggestion if there is one
	Text    string // the line of the file
	Warning bool   // the file can be used
	Err     error  // kind of problem, for errors.Is; nil: none
}

// Error returns file:line:column: path: message, on one line.
func (p *Problem) Error() string {
	place, warning := p.File, ""
	if place != "" && p.Line > 0 {
		place += fmt.Sprintf(":%d", p.Line)
		if p.Column > 0 {
			place += fmt.Sprintf(":%d", p.Column)
		}
	}
	if p.Warning {
		warning = "warning"
	}
	parts := []string{place, warning, p.Path, p.Message}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), ": ")
}

// Unwrap returns the kind of problem.
func (p *Problem) Unwrap() error { return p.Err }

// WriteTo writes the line of Error, and below it an excerpt of the file with the
// place underlined.
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

// excerptWidth is the length of an excerpt, in characters.
const excerptWidth = 100

// excerpt returns the part of a line around a column, printable, and a second
// line that underlines width characters from that column.
func excerpt(line string, column, width int) (text, mark string) {
	const more = "... "
	runes := []rune(strings.ReplaceAll(line, "\t", " "))
	start, indent := 0, ""
	if len(runes) > excerptWidth && column > excerptWidth*3/4 {
		start, indent = min(column-1-excerptWidth/2, len(runes)), more
	}
	end := min(start+excerptWidth, len(runes))
	text = indent + strings.TrimRight(printable(string(runes[start:end])), " ")
	if end < len(runes) {
		text += strings.TrimRight(" "+more, " ")
	}
	if column < 1 {
		return text, ""
	}
	before := len(indent) + max(0, column-1-start)
	width = max(1, min(width, end-(column-1)))
	return text, strings.Repeat(" ", before) + strings.Repeat("^", width)
}

// printable replaces the characters that a terminal should not be sent.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// Problems is the error of a file that cannot be used: all of its problems,
// warnings included.
type Problems []*Problem

// Error returns the problems, one on each line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems, so that errors.Is finds their kinds.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// WriteTo writes all problems with their excerpts.
func (ps Problems) WriteTo(w io.Writer) (total int64, err error) {
	for _, p := range ps {
		n, err := p.WriteTo(w)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Err returns ps as an error if any of the problems is more than a warning, and
// nil otherwise.
func (ps Problems) Err() error {
	if slices.ContainsFunc(ps, func(p *Problem) bool { return !p.Warning }) {
		return ps
	}
	return nil
}

// Sort orders the problems of one file by place, those of equal places as they
// were reported.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
