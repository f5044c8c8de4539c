package command

import (
	"testing"
)

// Nothing that a terminal would act on gets through.
func TestQuoted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"@alice:example.org": "@alice:example.org",
		"ä日":                 "ä日",
		"\x1b[2J":            `"\x1b[2J"`,
		"a\nb":               `"a\nb"`,
		"\u202eabc":          `"\u202eabc"`,
		`a"b`:                `"a\"b"`,
		"\xff":               `"\xff"`,
	} {
		if got := Quoted(text); got != want {
			t.Errorf("%q became %s, want %s", text, got, want)
		}
	}
}

// What a service says in an error does not get through either, and stays
// readable.
func TestPlain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"refused: «no»\n\tagain": "refused: «no»\n\tagain",
		"\x1b[2J\u202eabc\xff":   `\x1b[2J\u202eabc` + "\ufffd",
	} {
		if got := Plain(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
