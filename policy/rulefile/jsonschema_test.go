package rulefile_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rulefile"
	"github.com/discharger/discharger/policy/rules"
	"go.yaml.in/yaml/v3"
)

// conforms validates a value with the keywords of JSON Schema that rule files use, and
// fails on any other keyword.
func conforms(root, schema map[string]any, v any, at string) error {
	for key, want := range schema {
		if err := keyword(root, schema, key, want, v, at); err != nil {
			return err
		}
	}
	return nil
}

func keyword(root, schema map[string]any, key string, want, v any, at string) error {
	fail := func(format string, args ...any) error { return fmt.Errorf(at+": "+format, args...) }
	object, isObject := v.(map[string]any)
	list, isList := v.([]any)
	text, isText := v.(string)
	switch key {
	case "description", "examples", "format", "$schema", "title", "$defs":
	case "$ref":
		name := strings.TrimPrefix(want.(string), "#/$defs/")
		return conforms(root, root["$defs"].(map[string]any)[name].(map[string]any), v, at)
	case "type":
		kinds := map[string]bool{"object": isObject, "array": isList, "string": isText}
		if _, ok := v.(bool); ok {
			kinds["boolean"] = true
		}
		if _, ok := v.(int); ok {
			kinds["integer"] = true
		}
		if f, ok := v.(float64); ok && f == float64(int64(f)) {
			kinds["integer"] = true
		}
		if !kinds[want.(string)] {
			return fail("%v is no %v", v, want)
		}
	case "properties":
		for name, value := range object {
			if sub, ok := want.(map[string]any)[name]; ok {
				if err := conforms(root, sub.(map[string]any), value, at+"/"+name); err != nil {
					return err
				}
			}
		}
	case "additionalProperties":
		known, _ := schema["properties"].(map[string]any)
		for name, value := range object {
			if _, ok := known[name]; ok {
				continue
			}
			if want == false {
				return fail("unknown key %s", name)
			}
			if err := conforms(root, want.(map[string]any), value, at+"/"+name); err != nil {
				return err
			}
		}
	case "propertyNames":
		for name := range object {
			if err := conforms(root, want.(map[string]any), name, at+"/"+name); err != nil {
				return err
			}
		}
	case "required":
		for _, name := range want.([]any) {
			if _, ok := object[name.(string)]; !ok {
				return fail("key %v is missing", name)
			}
		}
	case "items":
		for i, item := range list {
			if err := conforms(root, want.(map[string]any), item, fmt.Sprintf("%s/%d", at, i)); err != nil {
				return err
			}
		}
	case "maxItems":
		if len(list) > int(want.(float64)) {
			return fail("too many items")
		}
	case "maxProperties":
		if len(object) > int(want.(float64)) {
			return fail("too many keys")
		}
	case "maxLength", "minLength":
		n := utf8.RuneCountInString(text)
		if isText && (key == "maxLength" && n > int(want.(float64)) || key == "minLength" && n < int(want.(float64))) {
			return fail("%q has a bad length", text)
		}
	case "minimum", "maximum":
		n := reflect.ValueOf(v)
		if n.CanInt() && (key == "minimum" && float64(n.Int()) < want.(float64) || key == "maximum" && float64(n.Int()) > want.(float64)) {
			return fail("%v is out of range", v)
		}
	case "pattern":
		if isText && !regexp.MustCompile(want.(string)).MatchString(text) {
			return fail("%q does not match %v", text, want)
		}
	case "enum":
		if !slices.Contains(want.([]any), v) {
			return fail("%v is none of %v", v, want)
		}
	case "const":
		if fmt.Sprint(want) != fmt.Sprint(v) {
			return fail("%v is not %v", v, want)
		}
	case "oneOf":
		matches, reasons := 0, []string{}
		for _, sub := range want.([]any) {
			if err := conforms(root, sub.(map[string]any), v, at); err != nil {
				reasons = append(reasons, err.Error())
			} else {
				matches++
			}
		}
		if matches != 1 {
			return fail("%d of the alternatives match: %s", matches, strings.Join(reasons, "; "))
		}
	default:
		return fail("the schema has the unknown keyword %s", key)
	}
	return nil
}

func schemaOf(t *testing.T) map[string]any {
	t.Helper()
	data, err := rulefile.JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestJSONSchemaOfFiles(t *testing.T) {
	t.Parallel()
	root := schemaOf(t)
	check := func(text string) error {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return conforms(root, root, v, "")
	}
	files, err := fs.Glob(rules.Builtin(), "*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	good := []string{`version: 1
networks: {office: [192.0.2.0/24, "2001:db8::/32"]}
lists: {admins: ["@root:example.org"]}
policies:
  p:
    rules:
      - {name: a, when: 'request.ip in networks.office', then: deny}
      - {name: b, when: 'user.id in lists.admins', then: {effect: allow, ttl: grant.ttl}}
    otherwise: allow
`}
	for _, name := range files {
		data, err := fs.ReadFile(rules.Builtin(), name)
		if err != nil {
			t.Fatal(err)
		}
		good = append(good, string(data))
	}
	for _, decided := range []string{
		"{effect: allow, ttl: 90d, caveats: [a b], labels: {a: b}, keep_sessions: 3}",
		"{effect: deny, code: no, message: No, soft_logout: true}", "{effect: defer, retry_after: 1h30m}", "{webhook: w}", "reauth",
	} {
		good = append(good, then(decided))
	}
	for i, text := range good {
		t.Run(fmt.Sprintf("valid/%d", i), func(t *testing.T) {
			if err := check(text); err != nil {
				t.Errorf("%v in\n%s", err, text)
			}
		})
	}
	for i, text := range []string{
		"version: 2\npolicies: {p: {otherwise: allow}}", "version: 1", "version: 1\npolicies: {p: {rules: []}}",
		then("permit"), then("{ttl: 5m}"), then("{effect: deny, colour: red}"), then("{webhook: w, ttl: 5m}"),
		then("{effect: defer, retry_after: soon}"), then("{effect: deny, code: NO}"),
		"version: 1\nlists: {a-b: [x]}\npolicies: {p: {otherwise: allow}}", "version: 1\nnetworks: {a: x}\npolicies: {p: {otherwise: allow}}",
		"version: 1\npolicies: {p: {otherwise: allow, tests: [{name: t, expect: allow, input: {session: {age: 3}}}]}}",
	} {
		t.Run(fmt.Sprintf("invalid/%d", i), func(t *testing.T) {
			if check(text) == nil {
				t.Errorf("the schema allows\n%s", text)
			}
		})
	}
}

// TestJSONSchemaOfInput compares the table of fields with the Go structs: every field of an
// Input is documented, and no other.
func TestJSONSchemaOfInput(t *testing.T) {
	t.Parallel()
	root := schemaOf(t)
	defs := root["$defs"].(map[string]any)
	in := policy.SampleInput()
	in.Session.Expires = in.Now
	in.Session.Labels["a"] = "b"
	full := policy.Decision{Effect: policy.EffectAllow, TTL: 1e9, Caveats: []string{"a b"}, Code: "c", Message: "m", SoftLogout: true,
		Labels: map[string]string{"a": "b"}, KeepSessions: 1, RetryAfter: 1e9, Rule: "p/r", Hash: "h"}
	for name, v := range map[string]any{"input": in, "decision": full} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := json.Unmarshal(data, &object); err != nil {
			t.Fatal(err)
		}
		schema := defs[name].(map[string]any)
		if err := conforms(root, schema, object, name); err != nil {
			t.Error(err)
		}
		if missing := undocumented(schema, object, name); len(missing) > 0 {
			t.Errorf("in the schema but not in the struct: %v", missing)
		}
	}
	var b strings.Builder
	if err := rulefile.WriteFields(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"now  (timestamp)\n", "session.labels  (map(string, string))\n", "    One of open, rotate, held.\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the list of fields lacks %q", want)
		}
	}
}

// undocumented lists the properties of a schema that an object lacks.
func undocumented(schema map[string]any, object any, at string) []string {
	properties, ok := schema["properties"].(map[string]any)
	if !ok {
		return nil
	}
	var all []string
	for name, sub := range properties {
		o, _ := object.(map[string]any)
		v, found := o[name]
		if !found {
			all = append(all, at+"."+name)
			continue
		}
		all = append(all, undocumented(sub.(map[string]any), v, at+"."+name)...)
	}
	return all
}

// then returns a file with one rule and this decision.
func then(then string) string {
	return "version: 1\npolicies:\n  p:\n    rules:\n      - name: r\n        when: session.epoch > 7\n        then: " + then + "\n    otherwise: allow\n"
}
