// Package boulangerie reads the caveat schemas of Boulangerie, a Ruby gem of 2015,
// and the identifiers of its tokens:
//
//	schema-id: 7dc57277e5b399ac
//	predicates:
//	  v0:
//	    not-before: DateTime
//	    expires: DateTime
//	  v1:
//	    role: Atom
//
// The types are Atom, Binary, Boolean, DateTime, Decimal, URI, and List of all but
// Binary. A schema does not define when a caveat holds: expires and not-before are
// compared with the time, and for every other caveat the program brings a
// [schema.Matcher]. Caveats read "name: value", none is required, and each may be
// repeated. The version in a token's [Identifier] has no effect. A token verifies
// here if it verifies in the gem.
//
// The gem's exceptions are kinds of problems: ParseError is [schema.ErrParse],
// InvalidSchemaIdError [ErrSchemaID], InvalidVersionError [schema.ErrVersion] and
// TypeError [schema.ErrType].
//
// Where the gem crashes, or accepts a file that cannot be used, this package
// reports an error with its place: a name given twice in one version, a name that
// no caveat can have or that YAML reads as a number or boolean, a version that is
// not a mapping, anchors, aliases, tags, a second document, and a file beyond the
// limits of package schema. A time without an offset is UTC and not in the zone of
// the machine, and a year has at most nine digits.
package boulangerie

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/schema"
)

// Format is the format of the schemas of this package.
const Format schema.Format = "boulangerie"

// ErrSchemaID is the kind of a missing or bad schema-id. It wraps [schema.ErrParse].
var ErrSchemaID = fmt.Errorf("%w: bad schema-id", schema.ErrParse)

// Load parses a schema file of either format: of Boulangerie if it has schema-id or
// predicates and no key format, and of format 1 otherwise. It is [schema.Load] in
// all other respects.
func Load(filename string, data []byte) (*schema.Schema, error) {
	d := read(filename, data)
	if d == nil {
		return schema.Load(filename, data)
	}
	if err := d.Problems().Err(); err != nil {
		return nil, err
	}
	return d.schema.Schema(), nil
}

// Check returns all problems of a schema file of either format, as [schema.Check] does.
func Check(filename string, data []byte) yamlfile.Problems {
	if d := read(filename, data); d != nil {
		return d.Problems()
	}
	return schema.Check(filename, data)
}

// A decoder decodes a file into a schema.
type decoder struct {
	*yamlfile.Document
	schema schema.Foreign
}

// read returns a decoded Boulangerie file, or nil for any other.
func read(filename string, data []byte) *decoder {
	doc := yamlfile.Read(filename, data, yamlfile.Options{MaxBytes: schema.MaxFile, MaxNodes: schema.MaxNodes, Kind: schema.ErrParse})
	if doc.Root == nil || !isBoulangerie(doc.Root) {
		return nil
	}
	d := &decoder{Document: doc, schema: schema.Foreign{Format: Format}}
	d.decode()
	return d
}

func isBoulangerie(root *yamlfile.Node) bool {
	found := false
	for i := 0; yamlfile.IsMapping(root) && i < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case "format":
			return false
		case "schema-id", "predicates":
			found = true
		}
	}
	return found
}

func (d *decoder) decode() {
	fields := d.Fields(d.Root, "", "schema-id", "predicates")
	d.schemaID(fields)
	for i, v := range d.versions(fields) {
		if d.version(v, i) {
			d.schema.Version = i
			for _, e := range d.Entries(v.Value, "version "+v.Key) {
				d.predicate(e)
			}
		}
	}
	d.schema.About = fmt.Sprintf("A Boulangerie schema, version %d. None of its caveats is required, and each may be\n"+
		"given any number of times; all must hold.", d.schema.Version)
}

// versions returns the entries under predicates.
func (d *decoder) versions(fields *yamlfile.Fields) []yamlfile.Entry {
	n := fields.Require("predicates", "")
	if n == nil {
		return nil
	}
	if yamlfile.IsEmpty(n) {
		d.Invalid(n, "predicates", "want a mapping with v0, got nothing")
		return nil
	}
	if yamlfile.IsMapping(n) {
		d.Kind = schema.ErrVersion // of a key that is not a string
	}
	versions := d.Entries(n, "predicates")
	if len(versions) > schema.MaxVersions {
		d.Errorf(versions[schema.MaxVersions].At, "more than %d versions", schema.MaxVersions)
		versions = nil
	}
	d.Kind = schema.ErrParse
	return versions
}

var (
	hex16    = regexp.MustCompile(`[0-9a-fA-F]{16}`)
	usableID = regexp.MustCompile(`^[a-z0-9]{16}$`)
	octalInt = regexp.MustCompile(`^[-+]?0[0-7_,]+$`)
	rubyBool = regexp.MustCompile(`^(?i:yes|no|on|off)$`)
	rubyVer  = regexp.MustCompile(`^v([0-9]+)$`)
)

// schemaID decodes the schema-id, which YAML may type as a number. Like the gem it
// accepts any text with sixteen hexadecimal digits in it, and warns of those that
// no identifier can have.
func (d *decoder) schemaID(fields *yamlfile.Fields) {
	d.Kind = ErrSchemaID
	defer func() { d.Kind = schema.ErrParse }()
	const want = "16 hexadecimal digits"
	n := fields.Require("schema-id", "write "+want)
	if n == nil {
		return
	}
	id, ok := d.Raw(n, "schema-id", want)
	switch {
	case !ok:
	case n.Style == 0 && octalInt.MatchString(id):
		d.Invalid(n, "schema-id", "want %s, got %s, which YAML reads as an octal number; quote it", want, yamlfile.Shorten(id))
	case !hex16.MatchString(id), len(id) > schema.MaxName:
		d.Invalid(n, "schema-id", "want %s, got %q", want, yamlfile.Shorten(id))
	case !usableID.MatchString(id):
		d.Warnf(n, "schema-id %q is not 16 lower-case digits: no token can name this schema", id)
		d.schema.ID = id
	default:
		d.schema.ID = id
	}
}

// version reports whether the name of a version is its place in the file.
func (d *decoder) version(v yamlfile.Entry, place int) bool {
	if m := rubyVer.FindStringSubmatch(v.Key); m != nil {
		if number, err := strconv.Atoi(m[1]); err == nil && number == place {
			return true
		}
	}
	d.Kind = schema.ErrVersion
	d.Invalid(v.At, "predicates", "want v%d, got %q; versions count up from v0", place, yamlfile.Shorten(v.Key))
	d.Kind = schema.ErrParse
	return false
}

// predicate decodes one predicate, a name and a type.
func (d *decoder) predicate(e yamlfile.Entry) {
	path := fmt.Sprintf("predicate %q", yamlfile.Shorten(e.Key))
	if e.At.Style == 0 && rubyBool.MatchString(e.Key) {
		d.Invalid(e.At, path, "Ruby does not read this as a string; quote it")
		return
	}
	d.Kind = schema.ErrType
	name, ok := d.Text(e.Value, path+": type", schema.MaxDoc)
	i := slices.IndexFunc(types(), func(t schema.Definition) bool { return t.Type == name })
	if ok && i < 0 {
		d.Invalid(e.Value, path, "type %q is unknown%s", yamlfile.Shorten(name), yamlfile.SuggestOrList(name, typeNames()))
	}
	d.Kind = schema.ErrParse
	if i < 0 {
		return
	}
	t := types()[i]
	t.Name, t.Style, t.Parse = e.Key, schema.StyleColon, oneLine(t.Parse)
	if t.Match = builtin(e.Key, t.Type); t.Match != nil {
		t.Holds = "compared with the time"
	}
	if err := d.schema.Add(t); err != nil {
		d.Errorf(e.At, "%v", err)
	}
}

// builtin returns the matcher that Boulangerie has for a predicate, or nil.
func builtin(name, typeName string) schema.Matcher {
	if typeName != "DateTime" {
		return nil
	}
	switch name {
	case "expires":
		return func(value any, r schema.Request) bool { return r.Now.Before(value.(time.Time)) }
	case "not-before":
		return func(value any, r schema.Request) bool { return !r.Now.Before(value.(time.Time)) }
	}
	return nil
}
