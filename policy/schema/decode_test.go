package schema

import (
	"errors"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
)

// commentExample returns the schema in the package comment, and the comment.
func commentExample(t testing.TB) (example, comment string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	inside := false
	for line := range strings.Lines(file.Doc.Text()) {
		if strings.HasPrefix(line, "\tformat: 1") {
			inside = true
		}
		if inside && strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "\t") {
			break
		}
		if inside {
			b.WriteString(strings.TrimPrefix(line, "\t"))
		}
	}
	return b.String(), file.Doc.Text()
}

// TestCommentExample loads the file that the package comment shows.
func TestCommentExample(t *testing.T) {
	t.Parallel()
	text, comment := commentExample(t)
	if problems := Check("example.yaml", []byte(text)); len(problems) != 0 {
		t.Fatalf("problems: %v", problems)
	}
	schema := mustLoad(t, text)
	want := []Caveat{
		{Name: "time-before", Type: "time", Style: StyleArg, Version: 1, Required: true, Repeat: true, MaxLen: 256,
			Check: "now < value", Doc: "The macaroon is valid before this time."},
		{Name: "client-ip", Type: "network", Style: StyleArg, Version: 1, Repeat: true, MaxLen: 256, Check: "value.containsIP(ip)"},
		{Name: "user_id", Type: "user_id", Style: StyleEquals, Version: 1, MaxLen: 256, Check: "true"},
		{Name: "device", Type: "atom", Style: StyleArg, Version: 2, MaxLen: 64, Check: "value == device"},
		{Name: "scope", Type: "list(atom)", Style: StyleColon, Version: 2, MaxLen: 256, Check: "scopes.all(s, s in value)"},
		{Name: "read-only", Type: "flag", Style: StyleArg, Version: 2, Check: `scopes.all(s, s.endsWith("/read"))`},
	}
	if got := schema.Caveats(); !reflect.DeepEqual(got, want) {
		t.Errorf("caveats\n%+v, want\n%+v", got, want)
	}
	context := [][3]string{
		{"device", "string", "The device that the request is made with."},
		{"scopes", "list(string)", "The scopes that the request needs."},
	}
	var got [][3]string
	for _, v := range schema.context {
		got = append(got, [3]string{v.Name, v.name, v.Doc})
	}
	if !reflect.DeepEqual(got, context) {
		t.Errorf("context %+v, want %+v", got, context)
	}
	if schema.Format() != Format1 || schema.ID() != "example" || schema.Version() != 2 {
		t.Errorf("format %s, id %s, version %d", schema.Format(), schema.ID(), schema.Version())
	}
	for _, typ := range version1Types() {
		if typ.parse != nil && !strings.HasPrefix(typ.name, "list(") && !strings.Contains(comment, "\n\t"+typ.name+" ") {
			t.Errorf("the package comment does not name the type %s", typ.name)
		}
	}
	for _, style := range styleNames() {
		if !strings.Contains(comment, "\n\t"+style+"    ") {
			t.Errorf("the package comment does not name the style %s", style)
		}
	}
}

// one returns a schema with one caveat whose declaration is body.
func one(body string) string {
	return "format: 1\nid: x\nversions:\n  v1:\n    a: {" + body + "}\n"
}

func mustLoad(t testing.TB, text string) *Schema {
	t.Helper()
	schema, err := Load("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestLoadRejects(t *testing.T) {
	t.Parallel()
	const head = "format: 1\nid: x\n"
	const fine = `type: string, check: value == "x"`
	tests := map[string]struct {
		text string
		kind error
		want string // all problems, a line each
	}{
		"empty":                {"", ErrParse, `f: file is empty`},
		"comment":              {"# nothing\n", ErrParse, `f: file is empty`},
		"scalar":               {"hello", ErrParse, `f:1:1: want a mapping, got "hello"`},
		"list":                 {"- a", ErrParse, "f:1:1: want a mapping, got a list"},
		"not YAML":             {"format: 1\nid: [\n", ErrParse, "f:2: not YAML: did not find expected node content"},
		"unquoted style":       {"format: 1\nid: x\nstyle: name: value\n", ErrParse, "f:3: not YAML: mapping values are not allowed in this context"},
		"tab":                  {"format: 1\n\tid: x\n", ErrParse, "f:2: not YAML: found a tab character that violates indentation"},
		"not UTF-8":            {"format: 1\nid: \xff\n", ErrParse, `f: file is not UTF-8 text`},
		"second document":      {one(fine) + "---\na: b\n", ErrParse, `f:6:1: a second document begins here, want one`},
		"bad second":           {one(fine) + "---\n[\n", ErrParse, "f:7: not YAML: did not find expected node content"},
		"no format":            {"id: x\nversions: {v1: {}}\n", ErrParse, `f:1:1: key "format" is missing; write format: 1`},
		"another format":       {"format: 2\nid: 7\n", ErrParse, `f:1:9: format: want 1, got 2`},
		"format is text":       {"format: one\n", ErrParse, `f:1:9: format: want a whole number, got "one"`},
		"no id":                {"format: 1\nversions: {v1: {}}\n", ErrParse, `f:1:1: key "id" is missing; write a name for the schema`},
		"bad id":               {"format: 1\nid: a b\nversions: {v1: {}}\n", ErrParse, "f:2:5: id: want letters, digits and . / - _ only"},
		"numeric id":           {"format: 1\nid: 17\nversions: {v1: {}}\n", ErrParse, `f:2:5: id: want a string, got 17; quote it if it is one`},
		"unknown key":          {head + "versoins: {v1: {}}\nversions: {v1: {}}\n", ErrParse, `f:3:1: key "versoins" is unknown (did you mean versions?)`},
		"mixed formats":        {head + "schema-id: 7dc57277e5b399ac\nversions: {v1: {}}\n", ErrParse, `f:3:1: key "schema-id" is unknown; it is one of format, id, doc, style, context, versions`},
		"key twice":            {head + "id: y\nversions: {v1: {}}\n", ErrParse, `f:3:1: key "id" is a duplicate; the first is in line 2`},
		"key is a number":      {head + "5: y\nversions: {v1: {}}\n", ErrParse, `f:3:1: want a name as key, got 5`},
		"key is a list":        {head + "? [a]\n: y\nversions: {v1: {}}\n", ErrParse, `f:3:3: want a name as key, got a list`},
		"merge key":            {head + "<<: {a: b}\nversions: {v1: {}}\n", ErrParse, `f:3:1: want a name as key, got <<`},
		"unknown style":        {head + "style: key=value\nversions: {v1: {}}\n", ErrParse, `f:3:8: style: want cond arg, key = value, key < value or name: value, got "key=value" (did you mean key = value?)`},
		"no versions":          {head, ErrParse, `f:1:1: key "versions" is missing; the caveats are under versions, v1`},
		"empty versions":       {head + "versions:\n", ErrParse, `f:3:10: versions: want a mapping with v1, got nothing`},
		"versions is a list":   {head + "versions: [v1]\n", ErrParse, "f:3:11: versions: want a mapping, got a list"},
		"starts at v0":         {head + "versions: {v0: {}}\n", ErrVersion, `f:3:12: versions: want v1, got "v0"; versions count up from v1`},
		"gap":                  {head + "versions: {v1: {}, v3: {}}\n", ErrVersion, `f:3:20: versions: want v2, got "v3"; versions count up from v1`},
		"versions is an alias": {head + "doc: &d x\nversions: *d\n", ErrParse, "f:3:6: doc: anchor &d is not allowed; write the value out\nf:4:11: versions: want a mapping, got an alias (*d); write the value out"},
		"null version":         {head + "versions: {v1: }\n", ErrParse, "f:3:16: version v1: want a mapping, got nothing"},
		"caveat is a type":     {head + "versions: {v1: {a: string}}\n", ErrParse, `f:3:20: caveat "a": want a mapping with type and check, got "string"`},
		"bad name":             {head + "versions: {v1: {a=b: {type: flag, check: value}}}\n", ErrParse, `f:3:17: caveat name "a=b": want up to 64 letters, digits and . / - _`},
		"long name":            {head + "versions: {v1: {" + strings.Repeat("a", 65) + ": {type: flag, check: value}}}\n", ErrParse, `f:3:17: caveat name "` + strings.Repeat("a", 60) + `…": want up to 64 letters, digits and . / - _`},
		"name in two":          {head + "versions: {v1: {a: {type: flag, check: value}}, v2: {a: {type: flag, check: value}}}\n", ErrParse, `f:3:54: caveat "a" is a duplicate; the first is in version v1`},
		"nothing":              {one(""), ErrParse, "f:5:5: caveat \"a\": key \"type\" is missing\nf:5:5: caveat \"a\": key \"check\" is missing; write check: \"true\" if the caveat only informs"},
		"unknown caveat key":   {one(fine + ", requierd: true"), ErrParse, `f:5:44: caveat "a": key "requierd" is unknown (did you mean required?)`},
		"unknown type":         {one("type: tiem, check: now < value"), ErrType, `f:5:15: caveat "a": type "tiem" is unknown (did you mean time?)`},
		"type too long":        {one("type: " + strings.Repeat("ü", 70) + ", check: now < value"), ErrType, `f:5:15: caveat "a": type "` + strings.Repeat("ü", 60) + `…" is unknown`},
		"type cut in a rune":   {one("type: x" + strings.Repeat("ü", 70) + ", check: now < value"), ErrType, `f:5:15: caveat "a": type "x` + strings.Repeat("ü", 59) + `…" is unknown`},
		"list of text":         {one("type: list(string), check: now < value"), ErrType, `f:5:15: caveat "a": only a context value can be a list(string): its elements may have spaces`},
		"type is a number":     {one("type: 7, check: value"), ErrType, `f:5:15: caveat "a": type: want a string, got 7; quote it if it is one`},
		"required is text":     {one(fine + `, required: "true"`), ErrParse, `f:5:54: required: want true or false, got "true"`},
		"repeat is yes":        {one(fine + `, repeat: yes`), ErrParse, `f:5:52: repeat: want true or false, got "yes"`},
		"max_len 0":            {one(fine + ", max_len: 0"), ErrParse, `f:5:53: max_len: want 1 to 4096, got 0`},
		"max_len too large":    {one(fine + ", max_len: 4097"), ErrParse, `f:5:53: max_len: want 1 to 4096, got 4097`},
		"max_len is a float":   {one(fine + ", max_len: 1.5"), ErrParse, "f:5:53: max_len: want a whole number, got 1.5"},
		"max_len is octal":     {one(fine + ", max_len: 0100"), ErrParse, "f:5:53: max_len: want a whole number, got 0100"},
		"max_len of a flag":    {one("type: flag, check: value, max_len: 5"), ErrParse, "f:5:44: max_len: a flag has no value"},
		"check is a bool":      {one("type: string, check: true"), ErrParse, `f:5:30: check: want a string, got true; quote it if it is one`},
		"alias":                {head + "versions: {v1: {a: &a {type: flag, check: value}, b: *a}}\n", ErrParse, "f:3:20: caveat \"a\": anchor &a is not allowed; write the value out\nf:3:54: caveat \"b\": want a mapping with type and check, got an alias (*a); write the value out"},
		"tag":                  {one(`type: !!str string, check: value == "x"`), ErrType, `f:5:15: caveat "a": type: want a string, got a value with the tag !!str; quote it if it is one`},
		"context name":         {head + "context: {Device: {type: string}}\nversions: {v1: {}}\n", ErrParse, `f:3:11: context value "Device": want up to 64 lower-case letters, digits and _`},
		"context name taken":   {head + "context: {now: {type: time}}\nversions: {v1: {}}\n", ErrParse, `f:3:11: context value "now": the name is reserved`},
		"context is a type":    {head + "context: {device: string}\nversions: {v1: {}}\n", ErrParse, `f:3:19: context value "device": want a mapping with type, got "string"`},
		"context no type":      {head + "context: {device: {}}\nversions: {v1: {}}\n", ErrParse, `f:3:11: context value "device": key "type" is missing`},
		"context type":         {head + "context: {device: {type: atom}}\nversions: {v1: {}}\n", ErrType, `f:3:26: context value "device": type "atom" is unknown; it is one of string, bool, int, time, duration, ip, network, list(string), list(bool), list(int), list(time), list(duration), list(ip), list(network)`},
		"long doc":             {head + "doc: " + strings.Repeat("a", MaxDoc+1) + "\nversions: {v1: {}}\n", ErrParse, `f:3:6: doc: want at most 4096 bytes, got 4097`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Load("f", []byte(tt.text))
			if !errors.Is(err, tt.kind) || err.Error() != tt.want {
				t.Errorf("%s: got\n%v\nwant\n%s", name, err, tt.want)
			}
		})
	}
}

func TestChecksRefused(t *testing.T) {
	t.Parallel()
	head := "format: 1\nid: x\ncontext: {zone: {type: string}, many: {type: list(string)}}\nversions:\n  v1:\n    a:\n      type: string\n"
	tests := map[string]struct{ check, want string }{
		"typo":            {"check: valeu == 'x'\n", `f:8:14: check of caveat "a": undeclared reference to 'valeu' (did you mean 'value'?)`},
		"second operand":  {"check: value == nov\n", `f:8:23: check of caveat "a": undeclared reference to 'nov' (did you mean 'now'?)`},
		"quoted":          {"check: 'value == \"x\" && value == nov'\n", `f:8:40: check of caveat "a": undeclared reference to 'nov' (did you mean 'now'?)`},
		"escaped":         {`check: "value == \"x\" && nov"` + "\n", `f:8:33: check of caveat "a": undeclared reference to 'nov' (did you mean 'now'?)`},
		"block":           {"check: |\n        value == 'x' &&\n          nov\n", `f:10:11: check of caveat "a": undeclared reference to 'nov' (did you mean 'now'?)`},
		"block with gap":  {"check: |\n\n        nov\n", `f:10:9: check of caveat "a": undeclared reference to 'nov' (did you mean 'now'?)`},
		"folded":          {"check: >\n        value == 'x' &&\n        nov\n", `f:10:9: check of caveat "a": undeclared reference to 'nov' (did you mean 'now'?)`},
		"after wide text": {"check: value == 'ééé' && nov\n", `f:8:32: check of caveat "a": undeclared reference to 'nov' (did you mean 'now'?)`},
		"syntax":          {"check: value ==\n", `f:8:22: check of caveat "a": Syntax error: mismatched input '<EOF>'`},
		"types":           {"check: value < now\n", `f:8:20: check of caveat "a": found no matching overload for '_<_' applied to '(string, timestamp)'`},
		"not a bool":      {"check: value + 'x'\n", `f:8:14: check of caveat "a": want bool, got string`},
		"dynamic":         {"check: dyn(value)\n", `f:8:14: check of caveat "a": want bool, got dyn`},
		"bad pattern":     {"check: value.matches('(')\n", `f:8:28: check of caveat "a": invalid matches argument`},
		"large pattern":   {"check: value.matches('(a{100}){9}(b{100}){9}')\n", `f:8:28: check of caveat "a": regex program size 1838 exceeds limit of 1000`},
		"holder's regexp": {"check: \"'x'.matches(value)\"\n", `f:8:14: check of caveat "a": the pattern of matches must be a literal`},
		"global matches":  {"check: matches('x', value)\n", `f:8:14: check of caveat "a": the pattern of matches must be a literal`},
		"holder's zone":   {"check: now.getHours(value) > 3\n", `f:8:14: check of caveat "a": the time zone of getHours must be a literal`},
		"context zone":    {"check: value == 'x' && now.getDayOfWeek(zone) > 3\n", `f:8:14: check of caveat "a": the time zone of getDayOfWeek must be a literal`},
		"bad address":     {"check: cidr('300.0.0.0/8').containsIP(ip)\n", `f:8:19: check of caveat "a": invalid cidr argument: CIDR "300.0.0.0/8" parse error during conversion from string: netip.ParsePrefix("300.0.0.0/8"): ParseAddr("300.0.0.0"): IPv4 field has value >255`},
		"costly":          {"check: many.all(a, many.all(b, many.all(c, a + b + c != value)))\n", `f:8:14: check of caveat "a": may cost 143151426, want at most 10000; a smaller max_len or fewer loops would help`},
		"very costly":     {"check: " + strings.Repeat("many.all(a, ", 8) + "true" + strings.Repeat(")", 8) + "\n", `f:8:14: check of caveat "a": may cost any amount, want at most 10000; a smaller max_len or fewer loops would help`},
		"end of a block":  {"check: |\n        value ==\n", `f:9:18: check of caveat "a": Syntax error: mismatched input '<EOF>'`},
		"unprintable": {"check: \"value == \\x1b\\u0085\"\n", `f:8:27: check of caveat "a": Syntax error: token recognition error at: '?'` + "\n" +
			`f:8:33: check of caveat "a": Syntax error: token recognition error at: ' '` + "\n" + `f:8:34: check of caveat "a": Syntax error: mismatched input '<EOF>'`},
		"no such function": {"check: value.split(' ').size() > 0\n", `f:8:25: check of caveat "a": undeclared reference to 'split'`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Load("f", []byte(head+"      "+tt.check))
			if !errors.Is(err, ErrCheck) {
				t.Errorf("%s: got %v", name, err)
				return
			}
			if err.Error() != tt.want {
				t.Errorf("%s: got\n%v\nwant\n%s", name, err, tt.want)
			}
		})
	}
}
