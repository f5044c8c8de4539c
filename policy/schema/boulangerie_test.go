package schema

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"
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

// TestGoldenTokens verifies tokens of the gem from the bytes up and expects
// what the gem said of them.
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
			schema := mustLoad(t, v.Schema)
			id, err := ParseIdentifier(string(m.Id()))
			if err != nil {
				t.Fatal(err)
			}
			if id.SchemaID != schema.ID() || string(m.Id()) != v.Identifier {
				t.Errorf("identifier %+v of schema %s", id, schema.ID())
			}
			now, err := time.Parse(time.RFC3339, v.VerifyAt)
			if err != nil {
				t.Fatal(err)
			}
			err = anyMatcher(t, schema).Check(t.Context(), conditions, Request{Now: now})
			expect(t, err, v.Result)
		})
	}
}

// expect compares an error with what the gem raised.
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
	var refused *CaveatError
	if !errors.As(err, &refused) || !errors.Is(err, ErrUnmet) || refused.Name != name {
		t.Errorf("got %v, want %s unmet", err, name)
	}
}

// anyMatcher makes a Checker that lets every caveat but expires and
// not-before hold if it parses.
func anyMatcher(t testing.TB, schema *Schema) *Checker {
	t.Helper()
	matchers := map[string]Matcher{}
	for _, c := range schema.Caveats() {
		if c.Name != "expires" && c.Name != "not-before" {
			matchers[c.Name] = func(any, Request) bool { return true }
		}
	}
	checker, err := New(Config{Schema: schema, Matchers: matchers})
	if err != nil {
		t.Fatal(err)
	}
	return checker
}

func mustLoad(t testing.TB, text string) *Schema {
	t.Helper()
	schema, err := Load("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestBoulangerieSchema(t *testing.T) {
	t.Parallel()
	schema := mustLoad(t, exampleSchema)
	if schema.Format() != FormatBoulangerie || schema.ID() != "ee6da70e5ba01fec" || schema.Version() != 3 {
		t.Errorf("format %s, id %s, version %d", schema.Format(), schema.ID(), schema.Version())
	}
	want := []Caveat{
		{Name: "not-before", Type: "DateTime"}, {Name: "expires", Type: "DateTime"},
		{Name: "blobby", Type: "Binary"}, {Name: "booleany", Type: "Boolean"},
		{Name: "boolean-list", Type: "List(Boolean)"}, {Name: "datetime-list", Type: "List(DateTime)"},
		{Name: "another-booleany", Type: "Boolean", Version: 1},
		{Name: "decimal-list", Type: "List(Decimal)", Version: 2}, {Name: "atom-list", Type: "List(Atom)", Version: 2},
		{Name: "uri-list", Type: "List(URI)", Version: 3},
	}
	for i := range want {
		want[i].Style, want[i].Repeat = StyleColon, true
	}
	if got := schema.Caveats(); !reflect.DeepEqual(got, want) {
		t.Errorf("caveats\n%+v, want\n%+v", got, want)
	}
	if !schema.Knows("uri-list") || schema.Knows("uri") {
		t.Error("Knows does not know")
	}
}

// TestBoulangerieTypes holds the registry to the gem's eleven names.
func TestBoulangerieTypes(t *testing.T) {
	t.Parallel()
	var names []string
	for _, typ := range boulangerieTypes() {
		names = append(names, typ.name)
	}
	slices.Sort(names)
	want := strings.Split("Atom Binary Boolean DateTime Decimal List(Atom) List(Boolean) List(DateTime) List(Decimal) List(URI) URI", " ")
	if !slices.Equal(names, want) {
		t.Errorf("types %q, want %q", names, want)
	}
}

func TestBoulangerieAccepts(t *testing.T) {
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
		schema, err := Load("test.yaml", []byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if schema.ID() != tt.id || schema.Version() != tt.version {
			t.Errorf("%s: id %q version %d", name, schema.ID(), schema.Version())
		}
	}
}

func TestBoulangerieRefuses(t *testing.T) {
	t.Parallel()
	const id = "schema-id: 7dc57277e5b399ac\n"
	tests := map[string]struct {
		text string
		kind error
		want string // the first problem
	}{
		"unidentified":        {"predicates:\n  v0:\n    a: Atom\n", ErrSchemaID, "f:1:1: no schema-id present (must be 16-digit hex number)"},
		"empty id":            {"schema-id: ''\npredicates: {v0: {a: Atom}}", ErrSchemaID, "f:1:12: no schema-id present (must be 16-digit hex number)"},
		"null id":             {"schema-id:\npredicates: {v0: {a: Atom}}", ErrSchemaID, "f:1:11: no schema-id present (must be 16-digit hex number)"},
		"short id":            {"schema-id: 7dc57277e5b399a\npredicates: {v0: {a: Atom}}", ErrSchemaID, `f:1:12: bad schema-id: "7dc57277e5b399a" is not a 16-digit hex number`},
		"octal id":            {"schema-id: 0123456701234567\npredicates: {v0: {a: Atom}}", ErrSchemaID, "f:1:12: bad schema-id: YAML reads 0123456701234567 as an octal number; quote it"},
		"float id":            {"schema-id: 1234567.90123456\npredicates: {v0: {a: Atom}}", ErrSchemaID, `f:1:12: bad schema-id: "1234567.90123456" is not a 16-digit hex number`},
		"list id":             {"schema-id: [7dc57277e5b399ac]\npredicates: {v0: {a: Atom}}", ErrSchemaID, "f:1:12: bad schema-id: want 16 hexadecimal digits, got a list"},
		"no predicates":       {id, ErrParse, "f:1:1: no predicates in schema"},
		"empty predicates":    {id + "predicates: {}", ErrParse, "f:2:13: no predicates in schema"},
		"badly versioned":     {"schema-id: 4bdc087990c59423\npredicates:\n  v0:\n    a: Atom\n  v2:\n    b: Atom\n", ErrVersion, `f:5:3: non-sequential version: "v2", want v1`},
		"starts at v1":        {id + "predicates: {v1: {a: Atom}}", ErrVersion, `f:2:14: non-sequential version: "v1", want v0`},
		"out of order":        {id + "predicates:\n  v1: {a: Atom}\n  v0: {b: Atom}\n", ErrVersion, `f:3:3: non-sequential version: "v1", want v0`},
		"upper-case version":  {id + "predicates: {V0: {a: Atom}}", ErrVersion, `f:2:14: malformed version identifier: "V0"`},
		"numeric version":     {id + "predicates: {0: {a: Atom}}", ErrVersion, "f:2:14: predicates: want a name, got 0, which YAML does not read as a string; quote it"},
		"huge version":        {id + "predicates: {v99999999999999999999: {a: Atom}}", ErrVersion, `f:2:14: non-sequential version: "v99999999999999999999", want v0`},
		"badly typed":         {"schema-id: b08c80c83260c2be\npredicates:\n  v0:\n    broken: Derp\n", ErrType, `f:4:13: unknown type "Derp" for predicate "broken"`},
		"nearly typed":        {id + "predicates: {v0: {a: DateTme}}", ErrType, `f:2:22: unknown type "DateTme" for predicate "a" (did you mean "DateTime"?)`},
		"type in lower case":  {id + "predicates: {v0: {a: atom}}", ErrType, `f:2:22: unknown type "atom" for predicate "a" (did you mean "Atom"?)`},
		"type with a space":   {id + "predicates: {v0: {a: 'Atom '}}", ErrType, `f:2:22: unknown type "Atom " for predicate "a" (did you mean "Atom"?)`},
		"list of binary":      {id + "predicates: {v0: {a: List(Binary)}}", ErrType, `f:2:22: unknown type "List(Binary)" for predicate "a"`},
		"type is no string":   {id + "predicates: {v0: {a: true}}", ErrType, `f:2:22: invalid predicate "a": want the name of a type, got true, which YAML does not read as a string; quote it`},
		"duplicate predicate": {"schema-id: d145e7d95af54557\npredicates:\n  v0:\n    booleany: Boolean\n  v1:\n    booleany: Boolean\n", ErrParse, `f:6:5: caveat "booleany" specified twice, first in version v0`},
		"duplicate key":       {id + "predicates:\n  v0:\n    a: Atom\n    a: URI\n", ErrParse, `f:5:5: version v0: "a" a second time, first in line 4`},
		"invalid keys":        {"schema-id: 5ab536cb81c7fdc5\nrandomgarbage: Cool!\npredicates: {v0: {a: Atom}}", ErrParse, `f:2:1: unrecognized key in schema: "randomgarbage"`},
		"null version":        {id + "predicates:\n  v0:\n", ErrParse, "f:3:6: version v0: want a mapping, got nothing"},
		"impossible name":     {id + "predicates: {v0: {a b: Atom}}", ErrParse, `f:2:19: caveat name "a b": want up to 64 letters, digits and . / - _`},
		"yes":                 {id + "predicates: {v0: {yes: Atom}}", ErrParse, `f:2:19: predicate "yes": Ruby does not read this as a string; quote it`},
		"alias":               {id + "predicates: {v0: &v {a: Atom}, v1: *v}", ErrParse, "f:2:36: version v1: want a mapping, got an alias; write the value out"},
		"tag":                 {id + "predicates: {v0: {a: !ruby/object Atom}}", ErrType, `f:2:22: invalid predicate "a": want the name of a type, got a value with the tag "!ruby/object"; leave the tag away`},
		"second document":     {simpleSchema + "---\na: b\n", ErrParse, "f:7:1: a second document: a schema file holds one"},
	}
	for name, tt := range tests {
		_, err := Load("f", []byte(tt.text))
		var problems Problems
		if !errors.As(err, &problems) || !errors.Is(err, tt.kind) {
			t.Errorf("%s: got %v, want %v", name, err, tt.kind)
			continue
		}
		if got := problems[0].Error(); got != tt.want {
			t.Errorf("%s: got\n%s, want\n%s", name, got, tt.want)
		}
	}
}

// TestRubyExceptions holds the kinds to the gem's tree of exceptions.
func TestRubyExceptions(t *testing.T) {
	t.Parallel()
	if !errors.Is(ErrSchemaID, ErrParse) || !errors.Is(ErrVersion, ErrParse) || errors.Is(ErrType, ErrParse) {
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

func TestBoulangerieChecker(t *testing.T) {
	t.Parallel()
	schema := mustLoad(t, "schema-id: 7dc57277e5b399ac\npredicates: {v0: {expires: DateTime, role: Atom}}")
	if _, err := New(Config{Schema: schema}); err == nil || !strings.Contains(err.Error(), "no matcher defined for: role") {
		t.Errorf("a schema without a matcher: %v", err)
	}
	checker, err := New(Config{Schema: schema, Matchers: map[string]Matcher{
		"role": func(v any, r Request) bool { return v == r.Values["role"] },
	}})
	if err != nil {
		t.Fatal(err)
	}
	request := Request{Now: time.Date(2016, 1, 10, 0, 0, 0, 0, time.UTC), Values: map[string]any{"role": "admin"}, Version: 99}
	tests := map[string]struct {
		conditions []string
		want       error
	}{
		"golden":             {nil, nil},
		"both":               {[]string{"expires: 2016-01-10T00:00:01Z", "role: admin"}, nil},
		"repeated":           {[]string{"role: admin", "role: admin"}, nil},
		"attenuated":         {[]string{"expires: 2016-01-11T00:00:00Z", "expires: 2016-01-09T00:00:00Z"}, ErrUnmet},
		"another role":       {[]string{"role: user"}, ErrUnmet},
		"unknown":            {[]string{"derp: 1"}, ErrUnknown},
		"no space":           {[]string{"role:admin"}, ErrMalformed},
		"two spaces":         {[]string{"role:  admin"}, ErrMalformed},
		"another style":      {[]string{"role admin"}, ErrMalformed},
		"no name":            {[]string{": admin"}, ErrMalformed},
		"value of other typ": {[]string{"expires: tomorrow"}, ErrMalformed},
	}
	for name, tt := range tests {
		if err := checker.Check(t.Context(), tt.conditions, request); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	err = checker.Check(t.Context(), []string{"expires: 2999-01-01T00:00:00Z"}, Request{})
	if !errors.Is(err, ErrUndecided) {
		t.Errorf("without a clock: %v", err)
	}
}

// TestBoulangerieOverride replaces a built-in matcher, as the gem lets one.
func TestBoulangerieOverride(t *testing.T) {
	t.Parallel()
	schema := mustLoad(t, "schema-id: 7dc57277e5b399ac\npredicates: {v0: {expires: Decimal}}")
	if _, err := New(Config{Schema: schema}); err == nil {
		t.Error("a number has a built-in matcher for times")
	}
	checker, err := New(Config{Schema: schema, Matchers: map[string]Matcher{
		"expires": func(v any, r Request) bool { return r.Now.Unix() < v.(*big.Int).Int64() },
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := checker.CheckOne(t.Context(), "expires: 11", Request{Now: time.Unix(10, 0)}); err != nil {
		t.Error(err)
	}
	if err := checker.CheckOne(t.Context(), "expires: 10", Request{Now: time.Unix(10, 0)}); !errors.Is(err, ErrUnmet) {
		t.Error(err)
	}
}
