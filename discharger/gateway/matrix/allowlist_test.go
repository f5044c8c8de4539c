package matrix

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the list of routes into the documentation")

const documentation = "../../../deploy/narrowed-tokens.md"

// The documentation lists the routes of the table. Go test -update writes it.
func TestAllowListIsDocumented(t *testing.T) {
	t.Parallel()
	list := allowList()
	text, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	text, old, ok := bytes.Cut(text, []byte("| path |"))
	if !ok {
		t.Fatalf("%s has no table", documentation)
	}
	if *update {
		if err := os.WriteFile(documentation, append(text, list...), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if "| path |"+string(old) != list {
		t.Errorf("%s is out of date: run go test -update", documentation)
	}
}

// allowList returns the routes of narrowed tokens as a table in Markdown. The versions of
// a pattern share a line.
func allowList() string {
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
		path := unversioned(r.Pattern)
		at := slices.IndexFunc(lines, func(l *line) bool { return l.path == path && l.narrow == r.Narrow })
		if at < 0 {
			at = len(lines)
			lines = append(lines, &line{path: path, narrow: r.Narrow, events: r.Events})
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
	return b.String()
}

func mark(yes bool) string {
	if yes {
		return "yes"
	}
	return ""
}

// unversioned returns a pattern without its version.
func unversioned(pattern string) string {
	for _, prefix := range [...]string{"/_matrix/client/", "/_matrix/media/"} {
		rest, ok := strings.CutPrefix(pattern, prefix)
		if !ok || rest == "versions" {
			continue
		}
		for _, rows := range [...][]row{clientRows, mediaRows} {
			for _, r := range rows {
				for version := range strings.SplitSeq(r.versions, " ") {
					if path, _ := strings.CutPrefix(rest, version+"/"); path == r.pattern || path == r.pattern+"/{txn}" {
						return prefix + "…/" + path
					}
				}
			}
		}
	}
	return pattern
}
