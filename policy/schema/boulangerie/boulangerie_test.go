package boulangerie

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/schema"
)

const simpleSchema = "---\nschema-id: 7dc57277e5b399ac\npredicates:\n  v0:\n    not-before: DateTime\n    expires: DateTime\n"

const exampleSchema = `---
schema-id: ee6da70e5ba01fec
predicates:
  v0:
    not-before: DateTime
    expires: DateTime
    blobby: Binary
    booleany: Boolean
    boolean-list: List(Boolean)
    datetime-list: List(DateTime)
  v1:
    another-booleany: Boolean
  v2:
    decimal-list: List(Decimal)
    atom-list: List(Atom)
  v3:
    uri-list: List(URI)
`

// vector is a token made and verified by the gem itself.
type vector struct {
	Name       string   `json:"name"`
	Schema     string   `json:"schema"`
	RootKey    string   `json:"root_key_ascii"`
	Identifier string   `json:"identifier"`
	Token      string   `json:"token_v1_base64url"`
	Signature  string   `json:"signature_hex"`
	Caveats    []string `json:"caveats"`
	VerifyAt   string   `json:"verify_at"`
	Result     string   `json:"result"`
}

func vectors(t *testing.T) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/boulangerie.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestGoldenTokens verifies tokens of the gem from the bytes up, and compares the
// results with those of the gem.
func TestGoldenTokens(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			raw, err := base64.RawURLEncoding.DecodeString(v.Token)
			if err != nil {
				t.Fatal(err)
			}
			var m macaroon.Macaroon
			if err := m.UnmarshalBinary(raw); err != nil {
				t.Fatal(err)
			}
			conditions, err := m.VerifySignature([]byte(v.RootKey), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(m.Signature()); got != v.Signature {
				t.Errorf("signature %s, want %s", got, v.Signature)
			}
			if !slices.Equal(conditions, v.Caveats) {
				t.Errorf("conditions %q, want %q", conditions, v.Caveats)
			}
			loaded := mustLoad(t, v.Schema)
			id, err := ParseIdentifier(string(m.Id()))
			if err != nil {
				t.Fatal(err)
			}
			if id.SchemaID != loaded.ID() || string(m.Id()) != v.Identifier {
				t.Errorf("identifier %+v of schema %s", id, loaded.ID())
			}
			now, err := time.Parse(time.RFC3339, v.VerifyAt)
			if err != nil {
				t.Fatal(err)
			}
			err = anyMatcher(t, loaded).Check(t.Context(), conditions, schema.Request{Now: now})
			expect(t, err, v.Result)
		})
	}
}

// expect compares an error with the exception of the gem.
func expect(t *testing.T, err error, result string) {
	t.Helper()
	if result == "ok" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	const unsatisfied = "CaveatUnsatisfiedError: Caveat not met. Unable to satisfy: "
	text, ok := strings.CutPrefix(result, unsatisfied)
	if !ok {
		t.Fatalf("unknown result %q", result)
	}
	name, _, _ := strings.Cut(text, ": ")
	var refused *schema.CaveatError
	if !errors.As(err, &refused) || !errors.Is(err, schema.ErrUnmet) || refused.Name != name {
		t.Errorf("got %v, want %s unmet", err, name)
	}
}

// anyMatcher returns a checker for which every caveat that parses holds, but for
// expires and not-before.
func anyMatcher(t testing.TB, loaded *schema.Schema) *schema.Checker {
	t.Helper()
	matchers := map[string]schema.Matcher{}
	for _, c := range loaded.Caveats() {
		if c.Name != "expires" && c.Name != "not-before" {
			matchers[c.Name] = func(any, schema.Request) bool { return true }
		}
	}
	checker, err := schema.New(schema.Config{Schema: loaded, Matchers: matchers})
	if err != nil {
		t.Fatal(err)
	}
	return checker
}

func mustLoad(t testing.TB, text string) *schema.Schema {
	t.Helper()
	loaded, err := Load("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestSchema(t *testing.T) {
	t.Parallel()
	loaded := mustLoad(t, exampleSchema)
	if loaded.Format() != Format || loaded.ID() != "ee6da70e5ba01fec" || loaded.Version() != 3 {
		t.Errorf("format %s, id %s, version %d", loaded.Format(), loaded.ID(), loaded.Version())
	}
	want := []schema.Caveat{
		{Name: "not-before", Type: "DateTime"}, {Name: "expires", Type: "DateTime"},
		{Name: "blobby", Type: "Binary"}, {Name: "booleany", Type: "Boolean"},
		{Name: "boolean-list", Type: "List(Boolean)"}, {Name: "datetime-list", Type: "List(DateTime)"},
		{Name: "another-booleany", Type: "Boolean", Version: 1},
		{Name: "decimal-list", Type: "List(Decimal)", Version: 2}, {Name: "atom-list", Type: "List(Atom)", Version: 2},
		{Name: "uri-list", Type: "List(URI)", Version: 3},
	}
	for i := range want {
		want[i].Style, want[i].Repeat = schema.StyleColon, true
	}
	if got := loaded.Caveats(); !reflect.DeepEqual(got, want) {
		t.Errorf("caveats\n%+v, want\n%+v", got, want)
	}
	if !loaded.Knows("uri-list") || loaded.Knows("uri") {
		t.Error("wrong names are known")
	}
}

// TestTypes holds the registry to the gem's eleven names.
func TestTypes(t *testing.T) {
	t.Parallel()
	var names []string
	for _, typ := range types() {
		names = append(names, typ.Type)
	}
	slices.Sort(names)
	want := strings.Split("Atom Binary Boolean DateTime Decimal List(Atom) List(Boolean) List(DateTime) List(Decimal) List(URI) URI", " ")
	if !slices.Equal(names, want) {
		t.Errorf("types %q, want %q", names, want)
	}
}

func TestAccepts(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text, id string
		version  int
	}{
		"simple":             {simpleSchema, "7dc57277e5b399ac", 0},
		"empty version":      {"schema-id: 7dc57277e5b399ac\npredicates: {v0: {}, v1: {a: Atom}}", "7dc57277e5b399ac", 1},
		"v00":                {"schema-id: 7dc57277e5b399ac\npredicates: {v00: {a: Atom}}", "7dc57277e5b399ac", 0},
		"decimal id":         {"schema-id: 1234567890123456\npredicates: {v0: {a: Atom}}", "1234567890123456", 0},
		"id like a float":    {"schema-id: 12345678901234e5\npredicates: {v0: {a: Atom}}", "12345678901234e5", 0},
		"quoted octal":       {"schema-id: '0123456701234567'\npredicates: {v0: {a: Atom}}", "0123456701234567", 0},
		"upper case":         {"schema-id: EE6DA70E5BA01FEC\npredicates: {v0: {a: Atom}}", "EE6DA70E5BA01FEC", 0},
		"seventeen digits":   {"schema-id: ee6da70e5ba01fec0\npredicates: {v0: {a: Atom}}", "ee6da70e5ba01fec0", 0},
		"digits in text":     {"schema-id: xxee6da70e5ba01fecyy\npredicates: {v0: {a: Atom}}", "xxee6da70e5ba01fecyy", 0},
		"reversed key order": {"predicates: {v0: {a: Atom}}\nschema-id: 7dc57277e5b399ac", "7dc57277e5b399ac", 0},
		"quoted yes":         {"schema-id: 7dc57277e5b399ac\npredicates: {v0: {'yes': Atom}}", "7dc57277e5b399ac", 0},
		"all name bytes":     {"schema-id: 7dc57277e5b399ac\npredicates: {v0: {a.B/c-d_9: Atom}}", "7dc57277e5b399ac", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			loaded, err := Load("test.yaml", []byte(tt.text))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if loaded.ID() != tt.id || loaded.Version() != tt.version {
				t.Errorf("%s: id %q version %d", name, loaded.ID(), loaded.Version())
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	const id = "schema-id: 7dc57277e5b399ac\n"
	tests := map[string]struct {
		text string
		kind error
		want string // the first problem
	}{
		"unidentified":        {"predicates:\n  v0:\n    a: Atom\n", ErrSchemaID, `f:1:1: key "schema-id" is missing; write 16 hexadecimal digits`},
		"empty id":            {"schema-id: ''\npredicates: {v0: {a: Atom}}", ErrSchemaID, `f:1:12: schema-id: want 16 hexadecimal digits, got ""`},
		"null id":             {"schema-id:\npredicates: {v0: {a: Atom}}", ErrSchemaID, `f:1:11: schema-id: want 16 hexadecimal digits, got nothing`},
		"short id":            {"schema-id: 7dc57277e5b399a\npredicates: {v0: {a: Atom}}", ErrSchemaID, `f:1:12: schema-id: want 16 hexadecimal digits, got "7dc57277e5b399a"`},
		"octal id":            {"schema-id: 0123456701234567\npredicates: {v0: {a: Atom}}", ErrSchemaID, `f:1:12: schema-id: want 16 hexadecimal digits, got 0123456701234567, which YAML reads as an octal number; quote it`},
		"float id":            {"schema-id: 1234567.90123456\npredicates: {v0: {a: Atom}}", ErrSchemaID, `f:1:12: schema-id: want 16 hexadecimal digits, got "1234567.90123456"`},
		"list id":             {"schema-id: [7dc57277e5b399ac]\npredicates: {v0: {a: Atom}}", ErrSchemaID, `f:1:12: schema-id: want 16 hexadecimal digits, got a list`},
		"no predicates":       {id, schema.ErrParse, `f:1:1: key "predicates" is missing`},
		"empty predicates":    {id + "predicates: {}", schema.ErrParse, `f:2:13: predicates: want a mapping with v0, got nothing`},
		"badly versioned":     {"schema-id: 4bdc087990c59423\npredicates:\n  v0:\n    a: Atom\n  v2:\n    b: Atom\n", schema.ErrVersion, `f:5:3: predicates: want v1, got "v2"; versions count up from v0`},
		"starts at v1":        {id + "predicates: {v1: {a: Atom}}", schema.ErrVersion, `f:2:14: predicates: want v0, got "v1"; versions count up from v0`},
		"out of order":        {id + "predicates:\n  v1: {a: Atom}\n  v0: {b: Atom}\n", schema.ErrVersion, `f:3:3: predicates: want v0, got "v1"; versions count up from v0`},
		"upper-case version":  {id + "predicates: {V0: {a: Atom}}", schema.ErrVersion, `f:2:14: predicates: want v0, got "V0"; versions count up from v0`},
		"numeric version":     {id + "predicates: {0: {a: Atom}}", schema.ErrVersion, `f:2:14: predicates: want a name as key, got 0`},
		"huge version":        {id + "predicates: {v99999999999999999999: {a: Atom}}", schema.ErrVersion, `f:2:14: predicates: want v0, got "v99999999999999999999"; versions count up from v0`},
		"badly typed":         {"schema-id: b08c80c83260c2be\npredicates:\n  v0:\n    broken: Derp\n", schema.ErrType, `f:4:13: predicate "broken": type "Derp" is unknown; it is one of Atom, Boolean, DateTime, Decimal, URI, Binary, List(Atom), List(Boolean), List(DateTime), List(Decimal), List(URI)`},
		"nearly typed":        {id + "predicates: {v0: {a: DateTme}}", schema.ErrType, `f:2:22: predicate "a": type "DateTme" is unknown (did you mean DateTime?)`},
		"type in lower case":  {id + "predicates: {v0: {a: atom}}", schema.ErrType, `f:2:22: predicate "a": type "atom" is unknown (did you mean Atom?)`},
		"type with a space":   {id + "predicates: {v0: {a: 'Atom '}}", schema.ErrType, `f:2:22: predicate "a": type "Atom " is unknown (did you mean Atom?)`},
		"list of binary":      {id + "predicates: {v0: {a: List(Binary)}}", schema.ErrType, `f:2:22: predicate "a": type "List(Binary)" is unknown; it is one of Atom, Boolean, DateTime, Decimal, URI, Binary, List(Atom), List(Boolean), List(DateTime), List(Decimal), List(URI)`},
		"type is no string":   {id + "predicates: {v0: {a: true}}", schema.ErrType, `f:2:22: predicate "a": type: want a string, got true; quote it if it is one`},
		"duplicate predicate": {"schema-id: d145e7d95af54557\npredicates:\n  v0:\n    booleany: Boolean\n  v1:\n    booleany: Boolean\n", schema.ErrParse, `f:6:5: caveat "booleany" is a duplicate; the first is in version v0`},
		"duplicate key":       {id + "predicates:\n  v0:\n    a: Atom\n    a: URI\n", schema.ErrParse, `f:5:5: version v0: key "a" is a duplicate; the first is in line 4`},
		"invalid keys":        {"schema-id: 5ab536cb81c7fdc5\nrandomgarbage: Cool!\npredicates: {v0: {a: Atom}}", schema.ErrParse, `f:2:1: key "randomgarbage" is unknown; it is one of schema-id, predicates`},
		"null version":        {id + "predicates:\n  v0:\n", schema.ErrParse, "f:3:6: version v0: want a mapping, got nothing"},
		"impossible name":     {id + "predicates: {v0: {a b: Atom}}", schema.ErrParse, `f:2:19: caveat name "a b": want up to 64 letters, digits and . / - _`},
		"yes":                 {id + "predicates: {v0: {yes: Atom}}", schema.ErrParse, `f:2:19: predicate "yes": Ruby does not read this as a string; quote it`},
		"alias":               {id + "predicates: {v0: &v {a: Atom}, v1: *v}", schema.ErrParse, `f:2:18: version v0: anchor &v is not allowed; write the value out`},
		"tag":                 {id + "predicates: {v0: {a: !ruby/object Atom}}", schema.ErrType, `f:2:22: predicate "a": type: want a string, got a value with the tag !ruby/object; text that begins with ! belongs in single quotes`},
		"second document":     {simpleSchema + "---\na: b\n", schema.ErrParse, `f:7:1: a second document begins here, want one`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Load("f", []byte(tt.text))
			var problems yamlfile.Problems
			if !errors.As(err, &problems) || !errors.Is(err, tt.kind) {
				t.Errorf("%s: got %v, want %v", name, err, tt.kind)
				return
			}
			if got := problems[0].Error(); got != tt.want {
				t.Errorf("%s: got\n%s, want\n%s", name, got, tt.want)
			}
		})
	}
}

// TestRubyExceptions holds the kinds to the gem's tree of exceptions.
func TestRubyExceptions(t *testing.T) {
	t.Parallel()
	if !errors.Is(ErrSchemaID, schema.ErrParse) || !errors.Is(schema.ErrVersion, schema.ErrParse) || errors.Is(schema.ErrType, schema.ErrParse) {
		t.Error("InvalidSchemaIdError and InvalidVersionError are ParseErrors, TypeError is not")
	}
}

func TestUnusableSchemaIDWarns(t *testing.T) {
	t.Parallel()
	text := "schema-id: EE6DA70E5BA01FEC\npredicates: {v0: {a: Atom}}"
	problems := Check("f", []byte(text))
	if len(problems) != 1 || !problems[0].Warning {
		t.Fatalf("problems %v", problems)
	}
	const want = `f:1:12: warning: schema-id "EE6DA70E5BA01FEC" is not 16 lower-case digits: no token can name this schema`
	if got := problems[0].Error(); got != want {
		t.Errorf("got %s", got)
	}
}

func TestChecker(t *testing.T) {
	t.Parallel()
	loaded := mustLoad(t, "schema-id: 7dc57277e5b399ac\npredicates: {v0: {expires: DateTime, role: Atom}}")
	if _, err := schema.New(schema.Config{Schema: loaded}); err == nil || !strings.Contains(err.Error(), "no matcher defined for: role") {
		t.Errorf("a schema without a matcher: %v", err)
	}
	checker, err := schema.New(schema.Config{Schema: loaded, Matchers: map[string]schema.Matcher{
		"role": func(v any, r schema.Request) bool { return v == r.Values["role"] },
	}})
	if err != nil {
		t.Fatal(err)
	}
	request := schema.Request{Now: time.Date(2016, 1, 10, 0, 0, 0, 0, time.UTC), Values: map[string]any{"role": "admin"}, Version: 99}
	tests := map[string]struct {
		conditions []string
		want       error
	}{
		"golden":             {nil, nil},
		"both":               {[]string{"expires: 2016-01-10T00:00:01Z", "role: admin"}, nil},
		"repeated":           {[]string{"role: admin", "role: admin"}, nil},
		"attenuated":         {[]string{"expires: 2016-01-11T00:00:00Z", "expires: 2016-01-09T00:00:00Z"}, schema.ErrUnmet},
		"another role":       {[]string{"role: user"}, schema.ErrUnmet},
		"unknown":            {[]string{"derp: 1"}, schema.ErrUnknown},
		"no space":           {[]string{"role:admin"}, schema.ErrMalformed},
		"two spaces":         {[]string{"role:  admin"}, schema.ErrMalformed},
		"another style":      {[]string{"role admin"}, schema.ErrMalformed},
		"no name":            {[]string{": admin"}, schema.ErrMalformed},
		"value of other typ": {[]string{"expires: tomorrow"}, schema.ErrMalformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := checker.Check(t.Context(), tt.conditions, request); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", name, err, tt.want)
			}
		})
	}
	err = checker.Check(t.Context(), []string{"expires: 2999-01-01T00:00:00Z"}, schema.Request{})
	if !errors.Is(err, schema.ErrUndecided) {
		t.Errorf("without a clock: %v", err)
	}
}

// TestOverride replaces a built-in matcher, as the gem allows.
func TestOverride(t *testing.T) {
	t.Parallel()
	loaded := mustLoad(t, "schema-id: 7dc57277e5b399ac\npredicates: {v0: {expires: Decimal}}")
	if _, err := schema.New(schema.Config{Schema: loaded}); err == nil {
		t.Error("a number has a built-in matcher for times")
	}
	checker, err := schema.New(schema.Config{Schema: loaded, Matchers: map[string]schema.Matcher{
		"expires": func(v any, r schema.Request) bool { return r.Now.Unix() < v.(*big.Int).Int64() },
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := checker.CheckOne(t.Context(), "expires: 11", schema.Request{Now: time.Unix(10, 0)}); err != nil {
		t.Error(err)
	}
	if err := checker.CheckOne(t.Context(), "expires: 10", schema.Request{Now: time.Unix(10, 0)}); !errors.Is(err, schema.ErrUnmet) {
		t.Error(err)
	}
}

func TestDocs(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/boulangerie.md")
	if err != nil {
		t.Fatal(err)
	}
	text := "schema-id: 7dc57277e5b399ac\npredicates:\n  v0: {expires: DateTime}\n  v1: {roles: List(Atom)}\n"
	if got := schema.Docs(mustLoad(t, text)); got != string(want) {
		t.Errorf("got\n%s", got)
	}
}

// TestLimits goes one beyond the bounds on a file.
func TestLimits(t *testing.T) {
	t.Parallel()
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const head = "schema-id: 7dc57277e5b399ac\npredicates:\n"
	for name, tt := range map[string]struct{ text, want string }{
		"predicates": {head + "  v0:\n" + repeat(schema.MaxCaveats+1, "    c%d: Atom\n"), "f:260:5: more than 256 caveats"},
		"versions":   {head + repeat(schema.MaxVersions+1, "  v%d: {}\n"), "f:67:3: more than 64 versions"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Load("f", []byte(tt.text)); err == nil || err.Error() != tt.want {
				t.Errorf("got %.200v, want %s", err, tt.want)
			}
		})
	}
}

// TestFormat1 loads files of the other format.
func TestFormat1(t *testing.T) {
	t.Parallel()
	loaded := mustLoad(t, "format: 1\nid: x\nversions: {v1: {}}\n")
	if loaded.Format() != schema.Format1 {
		t.Errorf("format %s", loaded.Format())
	}
	_, err := Load("f", []byte("format: 1\nid: x\nschema-id: 7dc57277e5b399ac\nversions: {v1: {}}\n"))
	if err == nil || !strings.Contains(err.Error(), `key "schema-id" is unknown`) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkCheckFive(b *testing.B) {
	checker := anyMatcher(b, mustLoad(b, exampleSchema))
	conditions := []string{
		"not-before: 2030-01-01T00:00:00Z", "expires: 2030-01-03T00:00:00Z", "booleany: true",
		"decimal-list: 1 -2 003", "atom-list: a b/c d",
	}
	r := schema.Request{Now: time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)}
	b.ReportAllocs()
	for b.Loop() {
		if err := checker.Check(b.Context(), conditions, r); err != nil {
			b.Fatal(err)
		}
	}
}
