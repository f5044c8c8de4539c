package schema

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/discharger/discharger/config/yamlfile"
)

// detail returns a problem with its excerpt, without the last newline.
func detail(t testing.TB, p *yamlfile.Problem) string {
	t.Helper()
	var b strings.Builder
	if _, err := p.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestDetail(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want string
	}{
		"under the word": {one("type: string, check: valeu"), "f:5:30: check of caveat \"a\": undeclared reference to 'valeu' (did you mean 'value'?)\n" +
			"    5 |     a: {type: string, check: valeu}\n" +
			"      |                              ^^^^^"},
		"whole file": {"", `f: file is empty`},
		"only a line": {"format: 1\nid: a: b\n",
			"f:2: not YAML: mapping values are not allowed in this context\n    2 | id: a: b"},
		"tabs": {"format: 1\nid:\t7\nversions: {v1: {}}",
			"f:2:5: id: want a string, got 7; quote it if it is one\n    2 | id: 7\n      |     ^"},
		"wide": {"format: 1\nid: x\ndoc: {ä: b}\nversions: {v1: {}}",
			"f:3:6: doc: want a string, got a mapping\n    3 | doc: {ä: b}\n      |      ^"},
		"terminal": {"format: 1\nid: x\nversions: {v1: {}}\n\u200bz: b",
			"f:4:1: key \"\\u200bz\" is unknown; it is one of format, id, doc, style, context, versions\n    4 | ?z: b\n      | ^^"},
		"CR LF": {"format: 1\r\nid: x\r\nb: c\r\nversions: {v1: {}}\r\n",
			"f:3:1: key \"b\" is unknown; it is one of format, id, doc, style, context, versions\n    3 | b: c\n      | ^"},
		"byte order mark": {"\uFEFFid: x\nformat: 1\nversions: {v1: {}}\nb: c",
			"f:4:1: key \"b\" is unknown; it is one of format, id, doc, style, context, versions\n    4 | b: c\n      | ^"},
		"warning": {one("type: string, check: now == now"),
			"f:5:30: warning: check of caveat \"a\": value is not used\n" +
				"    5 |     a: {type: string, check: now == now}\n" +
				"      |                              ^^^^^^^^^^"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			problems := Check("f", []byte(tt.text))
			if len(problems) != 1 || detail(t, problems[0]) != tt.want {
				t.Errorf("%s: got %d problems, %v\n%s\nwant\n%s", name, len(problems), problems, detail(t, problems[0]), tt.want)
			}
		})
	}
}

// TestLongLine shows the part of a long line around a problem.
func TestLongLine(t *testing.T) {
	t.Parallel()
	text := "{format: 1, id: x, versions: {v1: {}}, doc: '" + strings.Repeat("a", 500) + "', b: c, c: '" + strings.Repeat("d", 500) + "'}"
	problems := Check("f", []byte(text))
	if len(problems) != 2 {
		t.Fatal(problems)
	}
	lines := strings.Split(detail(t, problems[0]), "\n")
	if len(lines) != 3 || len([]rune(lines[1])) > 120 {
		t.Fatalf("lines %q", lines)
	}
	at := strings.Index(lines[2], "^")
	shown := []rune(lines[1])
	if string(shown[at:at+4]) != "b: c" {
		t.Errorf("the caret is under %q", string(shown[at:]))
	}
}

// TestAllProblems finds problems of every kind in one go, in order.
func TestAllProblems(t *testing.T) {
	t.Parallel()
	text := `format: 1
versions:
  v1:
    a: {type: tiem, check: now < value}
    b: {type: time, check: now < valeu}
    c: {type: time}
    a: {type: time, check: now < value}
  v4: {}
stlye: cond arg
`
	var got []string
	kinds := map[error]bool{}
	for _, p := range Check("f", []byte(text)) {
		got = append(got, strings.TrimPrefix(p.Error(), "f:"))
		kinds[p.Err] = true
	}
	want := []string{
		`1:1: key "id" is missing; write a name for the schema`,
		`4:15: caveat "a": type "tiem" is unknown (did you mean time?)`,
		`5:34: check of caveat "b": undeclared reference to 'valeu' (did you mean 'value'?)`,
		`6:5: caveat "c": key "check" is missing; write check: "true" if the caveat only informs`,
		`7:5: version v1: key "a" is a duplicate; the first is in line 4`,
		`8:3: versions: want v2, got "v4"; versions count up from v1`,
		`9:1: key "stlye" is unknown (did you mean style?)`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, kind := range []error{ErrParse, ErrType, ErrCheck, ErrVersion} {
		if !kinds[kind] {
			t.Errorf("no problem is %v", kind)
		}
	}
}

// TestLimits goes one beyond every bound on a file.
func TestLimits(t *testing.T) {
	t.Parallel()
	const head = "format: 1\nid: x\n"
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	versions := func(n int) string {
		return strings.ReplaceAll(repeat(n, "  v%d: {}\n"), "v0:", "x:")
	}
	tests := map[string]struct{ text, want string }{
		"file":     {strings.Repeat("#", MaxFile+1), "f: file has 1048577 bytes, want at most 1048576"},
		"nodes":    {"[" + strings.Repeat("a,", MaxNodes) + "]", "f: file has more than 100000 YAML nodes"},
		"nesting":  {head + "a: " + strings.Repeat("[", 20_000), "f:3: not YAML: exceeded max depth of 10000"},
		"caveats":  {head + "versions:\n  v1:\n" + repeat(MaxCaveats+1, "    c%d: {type: flag, check: value}\n"), "f:261:5: more than 256 caveats"},
		"versions": {head + "versions:\n" + versions(MaxVersions+1), "f:68:3: more than 64 versions"},
		"context":  {head + "context:\n" + repeat(MaxContext+1, "  c%d: {type: string}\n") + "versions: {v1: {}}\n", "f:68:3: more than 64 context values"},
		"check":    {one("type: string, check: value == '" + strings.Repeat("a", MaxCheck) + "'"), `f:5:30: check of caveat "a": want at most 2048 characters`},
		"check, by bytes": {one("type: string, check: value == '" + strings.Repeat("ü", 4*MaxCheck) + "'"),
			"f:5:30: check: want at most 8192 bytes, got 16395"},
		"recursion": {one("type: int, check: '" + strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200) + " == 1'"),
			`f:5:28: check of caveat "a": expression recursion limit exceeded: 50`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Load("f", []byte(tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("%s: got %.200v, want %s", name, err, tt.want)
			}
		})
	}
}

// TestManyProblems stops counting at a hundred.
func TestManyProblems(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("format: 1\nid: x\nversions: {v1: {}}\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "k%d: x\n", i)
	}
	problems := Check("f", []byte(b.String()))
	if len(problems) != 100+1 {
		t.Fatalf("%d problems", len(problems))
	}
	if got := problems[100].Error(); got != "f: more than 100 problems; the rest is not shown" {
		t.Errorf("last problem %s", got)
	}
	if _, err := Load("f", []byte(b.String())); !errors.Is(err, ErrParse) {
		t.Errorf("Load: %v", err)
	}
}

// TestManyWarnings loads a file with more warnings than are reported.
func TestManyWarnings(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("format: 1\nid: x\nversions:\n  v1:\n")
	for i := range MaxCaveats {
		fmt.Fprintf(&b, "    c%d: {type: time, check: now == now}\n", i)
	}
	if problems := Check("f", []byte(b.String())); len(problems) != 100 {
		t.Errorf("%d problems", len(problems))
	}
	if _, err := Load("f", []byte(b.String())); err != nil {
		t.Error(err)
	}
}

// TestLineBreaks finds the place after every line break of YAML.
func TestLineBreaks(t *testing.T) {
	t.Parallel()
	for _, br := range []string{"\n", "\r\n", "\r", "\u0085", "\u2028", "\u2029"} {
		text := "# one" + br + "# two" + br + "format: 1\nid: x\ndoc: \"a" + br + "  b\"\nversions: {v1: {a: {type: string, check: nov}}}"
		problems := Check("f", []byte(text))
		if len(problems) != 1 || problems[0].Line != 7 || problems[0].Column != 42 || !strings.HasPrefix(problems[0].Text, "versions") {
			t.Errorf("%q: %+v", br, problems)
		}
	}
}
