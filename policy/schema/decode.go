package schema

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
)

// defaultMaxLen is the max_len of a caveat that names none, and greatestMaxLen the
// bound on those that do.
const (
	defaultMaxLen  = 256
	greatestMaxLen = 4096
)

// A decoder decodes a file of format 1 into a schema.
type decoder struct {
	*yamlfile.Document
	schema   *Schema
	compiler compiler
	style    Style // of caveats that name none
}

func (d *decoder) decode() {
	fields := d.Fields(d.Root, "", "format", "id", "doc", "style", "context", "versions")
	if n := fields.Require("format", "write format: 1"); n != nil {
		if _, ok := d.Int(n, "format", 1, 1); !ok {
			return
		}
	}
	id := fields.Require("id", "write a name for the schema")
	d.schema.id, _ = d.Text(id, "id", MaxName)
	if _, err := parseAtom(d.schema.id); err != nil && d.schema.id != "" {
		d.Invalid(id, "id", "%v", err)
	}
	d.schema.doc = d.doc(fields.Get("doc"))
	d.style = d.styleOf(fields.Get("style"), StyleArg)
	d.context(fields.Get("context"))
	for i, v := range d.versions(fields) {
		if want := fmt.Sprintf("v%d", i+1); v.Key != want {
			d.reportAs(ErrVersion, v.At, "versions", "want %s, got %q; versions count up from v1", want, yamlfile.Shorten(v.Key))
			continue
		}
		d.schema.version = i + 1
		for _, e := range d.Entries(v.Value, "version "+v.Key) {
			if err := d.schema.nameError(e.Key); err != nil {
				d.Errorf(e.At, "%v", err)
				continue
			}
			d.caveat(e)
		}
	}
}

// versions returns the entries under versions.
func (d *decoder) versions(fields *yamlfile.Fields) []yamlfile.Entry {
	n := fields.Require("versions", "the caveats are under versions, v1")
	if n == nil {
		return nil
	}
	if yamlfile.IsEmpty(n) {
		d.Invalid(n, "versions", "want a mapping with v1, got nothing")
		return nil
	}
	if yamlfile.IsMapping(n) {
		d.Kind = ErrVersion // of a key that is not a string
	}
	versions := d.Entries(n, "versions")
	d.Kind = ErrParse
	if len(versions) > MaxVersions {
		d.reportAs(ErrVersion, versions[MaxVersions].At, "", "more than %d versions", MaxVersions)
		return nil
	}
	return versions
}

// reportAs reports a problem of another kind than ErrParse.
func (d *decoder) reportAs(kind error, n *yamlfile.Node, path, format string, args ...any) {
	d.Kind = kind
	d.Invalid(n, path, format, args...)
	d.Kind = ErrParse
}

// caveat decodes the declaration of one caveat.
func (d *decoder) caveat(e yamlfile.Entry) {
	path := fmt.Sprintf("caveat %q", e.Key)
	if !yamlfile.IsMapping(e.Value) {
		d.Mistyped(e.Value, path, "a mapping with type and check")
		return
	}
	fields := d.Fields(e.Value, path, "type", "required", "repeat", "max_len", "style", "check", "doc")
	fields.At = e.At
	typeNode := fields.Require("type", "")
	checkNode := fields.Require("check", `write check: "true" if the caveat only informs`)
	c := &caveat{Caveat: Caveat{Name: e.Key, Version: d.schema.version, Doc: d.doc(fields.Get("doc"))}}
	c.Style = d.styleOf(fields.Get("style"), d.style)
	c.Required = d.Bool(fields.Get("required"), "required")
	c.Repeat = d.Bool(fields.Get("repeat"), "repeat")
	t := d.typed(typeNode, path, func(t valueType) bool { return t.parse != nil })
	c.MaxLen = d.maxLen(fields.Get("max_len"), t.name == flagType)
	// The caveat is added before its check compiles, so that its name counts as taken.
	// A schema with a problem is never used.
	d.schema.add(c, t)
	if t.cel == nil {
		return
	}
	if text, ok := d.Text(checkNode, "check", 4*MaxCheck); ok {
		c.Check = strings.TrimSpace(text)
		c.shown = yamlfile.Shorten(strings.Join(strings.Fields(c.Check), " "))
		c.check = d.compile(checkNode, c, t)
	}
}

// maxLen decodes the max_len of a caveat. A flag has none.
func (d *decoder) maxLen(n *yamlfile.Node, flag bool) int {
	if flag {
		if n != nil {
			d.Invalid(n, "max_len", "a flag has no value")
		}
		return 0
	}
	limit, _ := d.Int(n, "max_len", 1, greatestMaxLen)
	return cmp.Or(limit, defaultMaxLen)
}

// typed decodes the name of a type, of those that are usable. The zero type has no name.
func (d *decoder) typed(n *yamlfile.Node, path string, usable func(valueType) bool) valueType {
	d.Kind = ErrType
	defer func() { d.Kind = ErrParse }()
	name, ok := d.Text(n, path+": type", MaxDoc)
	if !ok {
		return valueType{}
	}
	var names []string
	for _, t := range version1Types() {
		switch {
		case usable(t) && t.name == name:
			return t
		case usable(t):
			names = append(names, t.name)
		case t.name == name && t.parse == nil:
			d.Invalid(n, path, "only a context value can be a %s: its elements may have spaces", name)
			return valueType{}
		}
	}
	d.Invalid(n, path, "type %q is unknown%s", yamlfile.Shorten(name), yamlfile.SuggestOrList(name, names))
	return valueType{}
}

// styleOf decodes the name of a style, and returns other if there is none.
func (d *decoder) styleOf(n *yamlfile.Node, other Style) Style {
	text, _ := d.OneOf(n, "style", styleNames()...)
	return cmp.Or(Style(text), other)
}

// doc decodes text for readers of the reference.
func (d *decoder) doc(n *yamlfile.Node) string {
	text, _ := d.Text(n, "doc", MaxDoc)
	return strings.TrimSpace(text)
}

// variableName is the form of a context value's name: an identifier of CEL.
var variableName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// reservedNames returns the variables, types and keywords of checks.
func reservedNames() []string {
	return strings.Fields("value now ip cidr bool bytes double duration dyn int list map null_type string " +
		"timestamp type uint true false null in as break const continue else for function if import let loop " +
		"package namespace return var void while")
}

// context decodes the context values that checks may use.
func (d *decoder) context(n *yamlfile.Node) {
	for _, e := range d.Entries(n, "context") {
		path := fmt.Sprintf("context value %q", yamlfile.Shorten(e.Key))
		switch {
		case len(d.schema.context) == MaxContext:
			d.Errorf(e.At, "more than %d context values", MaxContext)
			return
		case len(e.Key) > MaxName, !variableName.MatchString(e.Key):
			d.Invalid(e.At, path, "want up to %d lower-case letters, digits and _", MaxName)
			continue
		case slices.Contains(reservedNames(), e.Key):
			d.Invalid(e.At, path, "the name is reserved")
			continue
		case !yamlfile.IsMapping(e.Value):
			d.Mistyped(e.Value, path, "a mapping with type")
			continue
		}
		fields := d.Fields(e.Value, path, "type", "doc")
		fields.At = e.At
		t := d.typed(fields.Require("type", ""), path, func(t valueType) bool { return t.native != nil })
		v := variable{Name: e.Key, Doc: d.doc(fields.Get("doc")), valueType: t}
		if t.name != "" {
			d.schema.variable[e.Key] = len(d.schema.context)
			d.schema.context = append(d.schema.context, v)
		}
	}
}
