package uri

import "testing"

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Reference{
		"":                    {},
		"a/b:c":               {Path: "a/b:c"},
		"//h/p":               {HasAuthority: true, Path: "/p"},
		"mailto:a@b":          {Scheme: "mailto", Path: "a@b"},
		"https://u:p@[::1]:8": {Scheme: "https", HasAuthority: true},
		"x:/p?q r#f":          {Scheme: "x", Path: "/p", HasQuery: true, Query: "q r", HasFragment: true},
		"http://[v1.x]/%20":   {Scheme: "http", HasAuthority: true, Path: "/%20"},
	} {
		if got, ok := Parse(text); !ok || got != want {
			t.Errorf("%q: got %+v, %t", text, got, ok)
		}
	}
	for _, text := range []string{"é", "1a:b", "a%2", "a#b#c", "//a@b@c", "//h:x", "//[::1", "//[fe80::1%25x]", "a\\b", "x:/a b"} {
		if got, ok := Parse(text); ok {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"x:?a=b/?c": true, "x:?a b": false, "x:": true} {
		if got, ok := Parse(text); !ok || got.Strict() != want {
			t.Errorf("%q: strict %t, want %t", text, got.Strict(), want)
		}
	}
}
