// Package yamlfile reads files that people write in YAML, strictly, and reports
// every mistake of a file at once, each with its place.
//
// A file is one document of mappings, lists, strings, numbers, booleans and
// durations. Rejected are keys that are unknown, missing or duplicate, values of
// another type, explicit tags, anchors, aliases, merge keys, a second document, text
// that is not UTF-8, and files beyond the limits of [Options].
//
// # Reading
//
// The methods of a [Document] decode one node each. A method that cannot decode a
// node reports why, and returns the zero value, so that one pass finds as many
// mistakes as possible. A nil node stands for a key that the file lacks, and its value
// is the zero value. Readers report problems of their own through the same Document:
//
//	doc := yamlfile.Read("rules.yaml", data, yamlfile.Options{})
//	if doc.Root != nil {
//		fields := doc.Fields(doc.Root, "", "version", "doc")
//		version, _ = doc.Int(fields.Require("version", "write version: 1"), "version", 1, 1)
//		text, _ = doc.Text(fields.Get("doc"), "doc", 4096)
//	}
//	err := doc.Problems().Err()
//
// # Problems
//
// A [Problem] looks the same for every kind of file:
//
//	rules.yaml:2:1: key "polcies" is unknown (did you mean policies?)
//	    2 | polcies:
//	      | ^^^^^^^
//
// and each kind of mistake one wording. Below the top level the name of the
// value stands before it, as in "discharge.ttl: want a duration …":
//
//	key "x" is unknown (did you mean y?)
//	key "x" is missing
//	key "x" is a duplicate; the first is in line 4
//	want a list, got a mapping
//	want a duration such as 90s, 5m, 12h or 30d, got 5; write 5s for seconds
//	want 1 to 10, got 11
//
// A missing key is not reported where an unknown key resembles it: that is one
// mistake. Where a file may hold secrets, [Options.Secrets] keeps the values that
// could be one out of the excerpts.
package yamlfile

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A Node is a value or a key of a document, with its line and column.
type Node = yaml.Node

// Options are the limits of a file. The zero value has the defaults.
type Options struct {
	MaxBytes    int   // size of the file; 0 means 1 MiB
	MaxNodes    int   // bound on the YAML nodes, each of 200 bytes in memory; 0 means no bound beside MaxBytes
	MaxProblems int   // problems that are kept; 0 means 100
	AllowEmpty  bool  // a file may have no document: Root is nil then
	Kind        error // Err of problems reported without one of their own

	// Secrets hides, in excerpts, values of keys that are unknown, duplicate
	// or of the wrong type, and lines that are not YAML.
	Secrets bool

	// Paths lists all keys of the file by their full paths, such as
	// discharge.ttl. One of them is suggested for a key in the wrong mapping.
	Paths []string

	// SyntaxHint returns text to append to a syntax error near a line (from 1, 0:
	// unknown); nil appends nothing.
	SyntaxHint func(lines []string, line int) string
}

// A Document is a parsed file and the problems found in it so far.
type Document struct {
	Root *Node // nil: the file has no document that can be decoded
	Kind error // [Problem.Err] of problems reported from here on

	options  Options
	name     string
	lines    []string // without their ends
	shown    []string // lines with hidden values masked; nil: there are no excerpts
	masked   int      // bytes that masking has read
	problems Problems
	dropped  bool // an error beyond MaxProblems
}

// Read parses a file. name stands in its problems only.
func Read(name string, data []byte, o Options) *Document {
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<20)
	o.MaxProblems = cmp.Or(o.MaxProblems, 100)
	d := &Document{name: name, options: o, Kind: o.Kind}
	switch {
	case len(data) > o.MaxBytes:
		d.whole("file has %d bytes, want at most %d", len(data), o.MaxBytes)
	case !utf8.Valid(data):
		d.whole("file is not UTF-8 text")
	case o.MaxNodes > 0 && marks(data) > o.MaxNodes:
		d.whole("file has more than %d YAML nodes", o.MaxNodes)
	default:
		d.parse(bytes.TrimPrefix(data, []byte("\uFEFF")))
	}
	return d
}

// parse sets Root to the root of the only document.
func (d *Document) parse(data []byte) {
	d.lines = splitLines(string(data))
	d.shown = d.lines
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var first, second Node
	if err := decoder.Decode(&first); errors.Is(err, io.EOF) {
		d.empty()
		return
	} else if err != nil {
		d.syntax(err)
		return
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		d.Errorf(&second, "a second document begins here, want one")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	case IsNull(first.Content[0]) && first.Content[0].Value == "":
		d.empty() // nothing but comments
	default:
		d.Root = first.Content[0]
	}
}

func (d *Document) empty() {
	if !d.options.AllowEmpty {
		d.whole("file is empty")
	}
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line ([0-9]{1,9}): )?`)

// syntax reports an error of the YAML library, which has at most a line.
func (d *Document) syntax(err error) {
	text, line := err.Error(), 0
	if m := syntaxLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		line, _ = strconv.Atoi(m[1]) // 0 where there is none
	}
	line = min(line, len(d.lines))
	if hint := d.options.SyntaxHint; hint != nil {
		text += hint(d.lines, line)
	}
	if d.options.Secrets {
		d.shown = nil
	}
	d.Report(&Problem{Line: line, Message: "not YAML: " + text})
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
	ends := strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")
	return strings.Split(ends.Replace(text), "\n")
}
