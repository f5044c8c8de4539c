package matrix

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// WriteAllowList writes the routes of narrowed tokens as a table in Markdown. The
// versions of a pattern share a line.
func WriteAllowList(w io.Writer) error {
	type line struct {
		path    string
		methods []string
		narrow  Narrowing
		events  bool
	}
	var lines []*line
	for _, r := range routes {
		if r.Narrow == 0 {
			continue
		}
		at := slices.IndexFunc(lines, func(l *line) bool { return l.path == r.unversioned && l.narrow == r.Narrow })
		if at < 0 {
			at = len(lines)
			lines = append(lines, &line{path: r.unversioned, narrow: r.Narrow, events: r.Events})
		}
		if !slices.Contains(lines[at].methods, r.Method) {
			lines[at].methods = append(lines[at].methods, r.Method)
		}
	}
	var b strings.Builder
	b.WriteString("| path | methods | limited | `read-only` | `room` |\n|---|---|---|---|---|\n")
	for _, l := range lines {
		room := mark(l.narrow.Has(InRoom))
		if l.events {
			room += ", events of this room only"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", l.path, strings.Join(l.methods, ", "), mark(l.narrow.Has(Limited)),
			mark(l.narrow.Has(ReadOnly)), room)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func mark(yes bool) string {
	if yes {
		return "yes"
	}
	return ""
}
