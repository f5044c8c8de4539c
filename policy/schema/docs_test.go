package schema

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestDocs compares references with reviewed ones.
func TestDocs(t *testing.T) {
	t.Parallel()
	example, _ := commentExample(t)
	for file, text := range map[string]string{
		"std.md":     stdFile,
		"example.md": example,
	} {
		want, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if got := Docs(mustLoad(t, text)); got != string(want) {
			t.Errorf("%s: got\n%s", file, got)
		}
	}
}

// TestDocsEscapes keeps text of a schema inside its table cell.
func TestDocsEscapes(t *testing.T) {
	t.Parallel()
	docs := Docs(mustLoad(t, `
format: 1
id: x
context: {a: {type: string, doc: "one | two\nthree"}}
versions: {v1: {b: {type: string, required: true, check: "value\n  == a"}}}
`))
	for _, want := range []string{"| `a` | `string` | one \\| two three |\n", "      value\n        == a\n", "- required, once\n"} {
		if !strings.Contains(docs, want) {
			t.Errorf("no %q in\n%s", want, docs)
		}
	}
}

func TestStd(t *testing.T) {
	t.Parallel()
	schema, err := Std()
	if err != nil {
		t.Fatal(err)
	}
	if len(Check("std.yaml", []byte(stdFile))) != 0 {
		t.Error("std has problems")
	}
	for _, name := range []string{"time-before", "client-ip"} {
		if !schema.Knows(name) {
			t.Errorf("std does not know %s", name)
		}
	}
	if err := schema.CheckCaveat("client-ip 203.0.113.7"); err != nil {
		t.Error(err)
	}
	if err := schema.CheckCaveat("client-ip example.org"); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if n := len(schema.Caveats()); n != 2 {
		t.Errorf("std has %d caveats", n)
	}
}
