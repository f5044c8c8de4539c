package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// The kinds of problem a schema file can have. A [Problem] wraps one of
// them; for a Boulangerie schema each stands for one exception of the gem.
var (
	// ErrParse is a file that does not follow the grammar: ParseError.
	ErrParse = errors.New("schema cannot be read")
	// ErrSchemaID is a missing or bad schema-id: InvalidSchemaIdError, which
	// is a ParseError too.
	ErrSchemaID = fmt.Errorf("%w: bad schema-id", ErrParse)
	// ErrVersion is a version that is malformed or out of order:
	// InvalidVersionError, which is a ParseError too.
	ErrVersion = fmt.Errorf("%w: bad version", ErrParse)
	// ErrType is a type that does not exist: TypeError, which is not a
	// ParseError.
	ErrType = errors.New("no such type")
	// ErrCheck is a check that does not compile, is not a yes or no, or may
	// cost too much. Only format 1 has checks.
	ErrCheck = errors.New("bad check")
)

// A Problem is one thing that is wrong in a schema file, and where.
type Problem struct {
	File    string // as given to Load or Check
	Line    int    // from 1; 0 when the problem is the whole file
	Column  int    // in characters, from 1; 0 when only the line is known
	Message string // one line, without the place
	Source  string // the line of the file it is on, "" when there is none
	Warning bool   // the schema loads all the same
	Err     error  // one of the kinds above
}

// Error returns the place and the message on one line, in the form editors
// jump to: file:line:column: message.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Line > 0 && p.Column > 0 {
		fmt.Fprintf(&b, ":%d", p.Column)
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Unwrap returns the kind of problem.
func (p Problem) Unwrap() error { return p.Err }

// Detail returns what Error returns and below it, when the place is known,
// the line of the file with a caret under the column. It does not end in a
// newline.
func (p Problem) Detail() string {
	if p.Source == "" || p.Column < 1 {
		return p.Error()
	}
	line, caret := excerpt(p.Source, p.Column)
	return fmt.Sprintf("%s\n%5d | %s\n      | %s^", p.Error(), p.Line, line, caret)
}

// excerptWidth is how much of a line Detail shows, in characters.
const excerptWidth = 100

// excerpt cuts a line down to the part around column, replaces what would
// disturb a terminal, and returns the white space that puts a caret under
// that column.
func excerpt(line string, column int) (shown, indent string) {
	runes := []rune(line)
	at := min(column-1, len(runes))
	from := max(0, at-excerptWidth*2/3)
	to := min(len(runes), from+excerptWidth)
	var text, space strings.Builder
	if from > 0 {
		text.WriteString("… ")
		space.WriteString("  ")
	}
	for i, r := range runes[from:to] {
		if r != '\t' && !unicode.IsPrint(r) {
			r = '?'
		}
		text.WriteRune(r)
		switch {
		case from+i >= at:
		case r == '\t':
			space.WriteByte('\t')
		default:
			space.WriteByte(' ')
		}
	}
	if to < len(runes) {
		text.WriteString(" …")
	}
	return text.String(), space.String()
}

// Problems is the error that [Load] returns: everything that keeps a file
// from being a schema, in the order of the file.
type Problems []Problem

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

// maxProblems is how many problems of one file are reported.
const maxProblems = 100

// report collects the problems of one file.
type report struct {
	file     string
	lines    []string // of the file, without their ends
	problems []Problem
	dropped  bool // more than maxProblems, and not only warnings
}

func (r *report) add(p Problem) {
	if len(r.problems) == maxProblems {
		r.dropped = r.dropped || !p.Warning
		return
	}
	p.File = r.file
	if p.Line > 0 && p.Line <= len(r.lines) {
		p.Source = r.lines[p.Line-1]
	}
	r.problems = append(r.problems, p)
}

// sorted returns the problems in the order of the file.
func (r *report) sorted() []Problem {
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if r.dropped {
		r.problems = append(r.problems, Problem{
			File:    r.file,
			Message: fmt.Sprintf("more than %d problems; the rest is not shown", maxProblems),
			Err:     ErrParse,
		})
		r.dropped = false
	}
	return r.problems
}

// failed says whether any problem is more than a warning.
func (r *report) failed() bool {
	return r.dropped || slices.ContainsFunc(r.problems, func(p Problem) bool { return !p.Warning })
}
