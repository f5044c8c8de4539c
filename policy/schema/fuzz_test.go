package schema

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzLoad loads any bytes as a schema: there are problems with places that exist,
// or a schema that can be used.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		stdFile, one("type: list(ip), check: ip in value, max_len: 40"),
		"format: 1\nid: x\ncontext: {a: {type: list(string)}}\nversions: {v1: {b: {type: string, check: >\n  a.exists(c,\n  c == value)}}}",
		"format: 1\r\nid: x\r\nversions:\r\n  v1:\r\n    b:\r\n      type: time\r\n      check: |\r\n        nov < value\r\n",
		"format: 1\n--- !x\n", "? [a]\n: b", "{", "#\u0085format: 1\u2028id: x\nversions: {v1: {a: {type: flag, check: |\u2029  nov\r  && a}}}", "\uFEFFformat: 1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		problems := Check("f", data)
		schema, err := Load("f", data)
		failed := problems.Err() != nil
		if failed != (err != nil) || failed == (schema != nil) {
			t.Fatalf("Check finds %v, Load %v", problems, err)
		}
		for _, p := range problems {
			if p.Message == "" || p.Err == nil || strings.ContainsAny(p.Error(), "\n\r") || p.Column > 0 && p.Line == 0 {
				t.Errorf("bad problem %+v", p)
			}
			if shown := detail(t, p); !utf8.ValidString(shown) {
				t.Errorf("detail is not text: %q", shown)
			}
		}
		if schema == nil {
			return
		}
		use(t, schema)
	})
}

// use calls every method of a schema.
func use(t *testing.T, schema *Schema) {
	if Docs(schema) == "" {
		t.Error("no reference")
	}
	matchers := map[string]Matcher{}
	for _, c := range schema.Caveats() {
		matchers[c.Name] = func(any, Request) bool { return true }
	}
	checker, err := New(Config{Schema: schema, Matchers: matchers})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range schema.caveats {
		if !schema.Knows(c.Name) {
			t.Errorf("does not know %q", c.Name)
		}
		if _, err := schema.Parse(c.example); err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("example %q: %v", c.example, err)
		}
		anyOutcome(t, checker, c.example)
	}
}

// anyOutcome verifies a condition. An error must be a CaveatError.
func anyOutcome(t *testing.T, checker *Checker, condition string) {
	r := request()
	r.IP = netip.MustParseAddr("2001:db8::1")
	err := checker.Check(t.Context(), []string{condition, condition}, r)
	var refused *CaveatError
	if err != nil && (!errors.As(err, &refused) || refused.Err == nil || !utf8.ValidString(err.Error())) {
		t.Errorf("%q: nameless error %v", condition, err)
	}
}

// everyType returns a checker of a schema with a caveat of every type and style.
func everyType(t testing.TB) *Checker {
	var ours strings.Builder
	ours.WriteString("format: 1\nid: x\nversions:\n  v1:\n")
	for i, typ := range version1Types() {
		if typ.parse != nil {
			name := strings.NewReplacer("(", "-", ")", "").Replace(typ.name)
			ours.WriteString("    " + name + ": {type: " + typ.name + ", repeat: true, check: value == value, max_len: 300, style: '" +
				styleNames()[i%len(styleNames())] + "'}\n")
		}
	}
	text := strings.Replace(ours.String(), "flag, repeat: true, check: value == value, max_len: 300", "flag, repeat: true, check: value", 1)
	return checkerOf(t, text)
}

// FuzzParse parses any text as a caveat of any type. A parsed caveat is one of the
// schema.
func FuzzParse(f *testing.F) {
	checker := everyType(f)
	for _, cav := range checker.schema.caveats {
		f.Add(cav.example)
	}
	for _, seed := range []string{"", " ", "time", "time = ", "uri: %", "user_id: @a:[::1]:80", "\xff: \xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := checker.schema.Parse(text)
		if err != nil {
			if got != (Condition{}) || !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrMalformed) || !utf8.ValidString(err.Error()) {
				t.Errorf("%q: %+v, %v", text, got, err)
			}
			return
		}
		if !strings.HasPrefix(text, got.Name) || !checker.schema.Knows(got.Name) || got.Value == nil {
			t.Errorf("%q: %+v", text, got)
		}
		anyOutcome(t, checker, text)
	})
}

// FuzzCheckExpression compiles and evaluates any text as a check, within the bound of
// cost.
func FuzzCheckExpression(f *testing.F) {
	for _, seed := range []string{
		"now < value", "value.containsIP(ip)", "many.all(a, many.exists(b, a == b || a in many))", "matches(text, '^a+$')",
		"many.map(a, [a, a]).size() > 2", "text + text != text", "ip('1.2.3.4') == ip", "now.getHours('Europe/London') > 3",
		"duration('1h') < now - timestamp(text)", "{text: 1}[text] == 1", "type(value) == string", "has({'a': 1}.a)", "dyn(value) == 1",
	} {
		f.Add(seed)
	}
	kinds := []string{"string", "list(atom)", "time", "network", "int"}
	f.Fuzz(func(t *testing.T, expression string) {
		if strings.ContainsAny(expression, "\n\r\u0085\u2028\u2029") || !utf8.ValidString(expression) {
			return
		}
		quoted := "'" + strings.ReplaceAll(expression, "'", "''") + "'"
		for _, kind := range kinds {
			text := "format: 1\nid: x\ncontext: {text: {type: string}, many: {type: list(string)}}\n" +
				"versions: {v1: {a: {type: " + kind + ", repeat: true, check: " + quoted + "}}}"
			schema, err := Load("f", []byte(text))
			if err != nil {
				continue
			}
			checker, err := New(Config{Schema: schema})
			if err != nil {
				t.Fatal(err)
			}
			r := request()
			maps.Copy(r.Values, map[string]any{"text": strings.Repeat("x", maxContextText), "many": slices.Repeat([]string{"x"}, maxContextItems)})
			err = checker.CheckOne(t.Context(), schema.caveats[0].example, r)
			var refused *CaveatError
			if errors.As(err, &refused) && refused.Reason == "check costs too much" {
				t.Errorf("%s: the estimate let %q through", kind, expression)
			}
		}
	})
}
