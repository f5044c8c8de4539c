package token

import (
	"net/url"
	"testing"
)

// FuzzCutToken checks that CutQuery removes every token from a query, and no other
// parameter.
func FuzzCutToken(f *testing.F) {
	for _, q := range []string{"a=b&access_token=x", "access_token=x;y", "access%5ftoken=x&&", "a;b;access_token=;c"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		rest, tokens := CutQuery(query)
		if len(tokens) == 0 {
			if rest != query {
				t.Fatalf("%q became %q", query, rest)
			}
			return
		}
		if _, more := CutQuery(rest); len(more) > 0 {
			t.Fatalf("%q: the rest has a token: %q", query, rest)
		}
		if !mayHold(query) {
			t.Fatalf("%q was overlooked", query)
		}
		if values, err := url.ParseQuery(rest); err == nil && values.Has(ParamAccessToken) {
			t.Fatalf("%q: %q still has one", query, rest)
		}
	})
}
