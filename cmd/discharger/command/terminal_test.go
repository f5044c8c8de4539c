package command

import (
	"testing"
)

// TestQuoted checks that control characters are escaped.
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

// TestPlain checks that control characters in an error of a service are escaped, and
// that its text stays readable.
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
