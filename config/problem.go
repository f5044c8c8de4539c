package config

import (
	"fmt"
	"slices"
	"strings"
)

// Place is where a setting comes from. The zero value is a default.
type Place struct {
	Source string // name of the file, "$" and a variable's name, or "--" and a flag's
	Line   int    // from 1; 0: not in a file
	Column int    // from 1; 0: only the line is known
}

// String gives source:line:column, as far as it is known.
func (p Place) String() string {
	switch {
	case p.Line == 0:
		return p.Source
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.Source, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.Source, p.Line, p.Column)
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Place   Place
	Key     string // such as homeservers[1].name; empty: the file as a whole
	Message string
}

// Error gives the place, the key and the message, in one line.
func (p Problem) Error() string {
	parts := make([]string, 0, 3)
	if place := p.Place.String(); place != "" {
		parts = append(parts, place)
	}
	if p.Key != "" {
		parts = append(parts, p.Key)
	}
	return strings.Join(append(parts, p.Message), ": ")
}

// Problems is the error for a configuration that cannot be used: everything
// that is wrong with it, in the order of the file. It is never empty.
type Problems []Problem

// Error gives one line for each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// report collects problems, and remembers where every key came from.
type report struct {
	places   map[string]Place
	problems Problems
}

// at reports a problem with a key, at the place that its value came from. A key
// that is not there has the place of what should hold it. Of one key only the
// first problem is reported: with a value that could not be read, others are to
// be expected.
func (r *report) at(key, format string, args ...any) {
	if slices.ContainsFunc(r.problems, func(p Problem) bool { return p.Key == key }) {
		return
	}
	place, holder := r.places[key], key
	for place == (Place{}) && holder != "" {
		holder = holder[:max(strings.LastIndexAny(holder, ".["), 0)]
		place = r.places[holder]
	}
	r.problems = append(r.problems, Problem{Place: place, Key: key, Message: fmt.Sprintf(format, args...)})
}

// err is nil if there are no problems.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if d := a.Place.Line - b.Place.Line; d != 0 {
			return d
		}
		return a.Place.Column - b.Place.Column
	})
	return r.problems
}

// alike finds the candidate that a misspelled word most resembles, or "". Two
// words are alike if most of them is a common beginning and a common end, which
// holds for any one letter missing, added, wrong or swapped with its neighbour,
// and for plurals.
func alike(word string, candidates []string) string {
	best, most := "", 0.5
	for _, c := range candidates {
		short := min(len(word), len(c))
		begin := 0
		for begin < short && word[begin] == c[begin] {
			begin++
		}
		end := 0
		for end < short-begin && word[len(word)-1-end] == c[len(c)-1-end] {
			end++
		}
		if share := float64(begin+end) / float64(max(len(word), len(c))); share >= most {
			best, most = c, share
		}
	}
	return best
}
