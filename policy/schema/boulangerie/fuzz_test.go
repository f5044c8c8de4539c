package boulangerie

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/discharger/discharger/policy/schema"
)

// FuzzLoad loads any bytes as a schema: there are problems with places that exist,
// or a schema that can be used.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		simpleSchema, exampleSchema, "schema-id: 0123456701234567\npredicates: {v1: {yes: &a Derp}, v0: *a}", "format: 1\nid: x\nversions: {v1: {}}", "{", "predicates: [v0]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		problems := Check("f", data)
		loaded, err := Load("f", data)
		if failed := problems.Err() != nil; failed != (err != nil) || failed == (loaded != nil) {
			t.Fatalf("Check finds %v, Load %v", problems, err)
		}
		for _, p := range problems {
			if p.Message == "" || p.Err == nil || strings.ContainsAny(p.Error(), "\n\r") || p.Column > 0 && p.Line == 0 {
				t.Errorf("bad problem %+v", p)
			}
		}
		if loaded != nil {
			schema.Docs(loaded)
			anyMatcher(t, loaded)
		}
	})
}

// everyType returns a checker of a schema with a caveat of every type.
func everyType(t testing.TB) *schema.Checker {
	var b strings.Builder
	b.WriteString("schema-id: 7dc57277e5b399ac\npredicates:\n  v0:\n")
	for _, name := range typeNames() {
		b.WriteString("    " + caveatOf(name) + ": " + name + "\n")
	}
	return anyMatcher(t, mustLoad(t, b.String()))
}

// caveatOf returns the name that everyType gives the caveat of a type.
func caveatOf(typeName string) string {
	return strings.NewReplacer("(", "-", ")", "").Replace(typeName)
}

// FuzzParse parses any text as a caveat of any type.
func FuzzParse(f *testing.F) {
	checker := everyType(f)
	for _, seed := range []string{"", " ", "Decimal: 0d_1", "DateTime: 2016-02-30T24:00:00-99:99", "URI: mailto:a@b", "List-URI: a b", "\xff: \xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := checker.CheckOne(t.Context(), text, schema.Request{})
		var refused *schema.CaveatError
		if err != nil && (!errors.As(err, &refused) || refused.Err == nil || !utf8.ValidString(err.Error())) {
			t.Errorf("%q: nameless error %v", text, err)
		}
	})
}

// TestEveryExample parses and checks the example of each type in the reference.
func TestEveryExample(t *testing.T) {
	t.Parallel()
	checker := everyType(t)
	for _, typ := range types() {
		if err := checker.CheckOne(t.Context(), caveatOf(typ.Type)+": "+typ.Example, schema.Request{}); err != nil {
			t.Errorf("%s: %v", typ.Type, err)
		}
	}
}

// FuzzIdentifier reads any text as the identifier of a Boulangerie token.
func FuzzIdentifier(f *testing.F) {
	f.Add("v:0 uuid:6c9f2a52-0d3c-4f0f-8a0e-1d3b2d6e5a10 kid:key1 sch:7dc57277e5b399ac@0 iat:2016-01-10T00:00:00Z")
	f.Add("v:0d0  uuid: kid: sch:zzzzzzzzzzzzzzzz@99999999999999999999 iat:-1-01-01T24:00:00+9999")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseIdentifier(text)
		switch {
		case err != nil && (id != Identifier{} || !errors.Is(err, schema.ErrMalformed)):
			t.Errorf("%q: %+v, %v", text, id, err)
		case err == nil && (len(id.SchemaID) != 16 || id.Version < 0 || !strings.Contains(text, id.UUID)):
			t.Errorf("%q: %+v", text, id)
		}
	})
}
