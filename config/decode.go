package config

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 8 << 20

// maxProblems bounds the problems that are reported of a file.
const maxProblems = 1000

// A decoder decodes the YAML of a file, and values from the environment and from
// flags, along the types of Config. It remembers the place of each value, where
// problems found later are reported.
type decoder struct {
	file   *yamlfile.Document
	others []*yamlfile.Document // one for each variable and flag
	places map[string]place     // by key
	failed map[string]bool      // keys with a problem, and those that are misspelt
}

// A place is the node of a value in its source; nil is the source as a whole.
type place struct {
	doc  *yamlfile.Document
	node *yamlfile.Node
}

func newDecoder(name string, data []byte) *decoder {
	file := yamlfile.Read(name, data, yamlfile.Options{
		MaxBytes: maxFile, MaxProblems: maxProblems, AllowEmpty: true, Secrets: true, Paths: paths(),
	})
	return &decoder{file: file, places: map[string]place{"": {doc: file}}, failed: make(map[string]bool)}
}

// document decodes the file, and reports false if it is not a mapping, nor empty.
func (d *decoder) document(into *Config) bool {
	if root := d.file.Root; root != nil {
		d.value(place{d.file, root}, reflect.ValueOf(into).Elem(), "")
		return yamlfile.IsMapping(root)
	}
	return !d.file.Failed()
}

// at reports a problem of a key, at the place of its value or of the mapping around
// it. Of one key the first problem is reported: a value that cannot be decoded has
// others as a consequence.
func (d *decoder) at(key, format string, args ...any) { d.problem(key, key, format, args...) }

// missing reports a missing key, with an optional hint.
func (d *decoder) missing(key, hint string) {
	if hint != "" {
		hint = "; " + hint
	}
	holder := holderOf(key)
	d.problem(key, holder, "key %q is missing%s", strings.TrimPrefix(key[len(holder):], "."), hint)
}

// problem reports the first problem of a key at the place of another one, or of the
// one around that.
func (d *decoder) problem(key, at, format string, args ...any) {
	if d.failed[key] {
		return
	}
	d.failed[key] = true
	holder := at
	p, ok := d.places[holder]
	for !ok {
		holder = holderOf(holder)
		p, ok = d.places[holder]
	}
	p.doc.Invalid(p.node, at, format, args...)
}

// err returns all problems, those of the file in its order, or nil.
func (d *decoder) err() error {
	all := d.file.Problems()
	for _, doc := range d.others {
		all = append(all, doc.Problems()...)
	}
	all.Sort()
	return all.Err()
}

// value decodes a node by the type of v. Where it cannot, it reports why and
// leaves v as it was.
func (d *decoder) value(at place, v reflect.Value, key string) {
	n := at.node
	switch {
	case yamlfile.IsNull(n):
		d.at(key, "want a value, got nothing; leave the key out for the default")
	case isScalar(v):
		d.scalar(at, v, key)
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(newPart(v.Type()))
		}
		d.value(at, v.Elem(), key)
	case v.Kind() == reflect.Slice:
		d.list(at, v, key)
	case !yamlfile.IsMapping(n):
		d.failed[key] = true
		at.doc.Mistyped(n, key, "a mapping of "+strings.Join(keysOf(v.Type()), ", "))
	default:
		d.mapping(at, v, key)
	}
}

// newPart returns a part of the configuration with its defaults.
func newPart(pointer reflect.Type) reflect.Value {
	p := reflect.New(pointer.Elem())
	if part, ok := p.Interface().(interface{ setDefaults() }); ok {
		part.setDefaults()
	}
	return p
}

// list decodes a list. A list of scalars with one entry may be written as the
// entry alone.
func (d *decoder) list(at place, v reflect.Value, key string) {
	items := []*yamlfile.Node{at.node}
	if !yamlfile.IsScalar(at.node) || !isScalar(reflect.New(v.Type().Elem()).Elem()) {
		items = at.doc.Items(at.node, key, math.MaxInt)
		if !yamlfile.IsList(at.node) {
			d.failed[key] = true
			return
		}
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		d.places[itemKey] = place{at.doc, item}
		d.value(d.places[itemKey], list.Index(i), itemKey)
	}
	v.Set(list)
}

// mapping decodes into a struct.
func (d *decoder) mapping(at place, v reflect.Value, key string) {
	fields := at.doc.Fields(at.node, key, keysOf(v.Type())...)
	for i, name := range allKeysOf(v.Type()) {
		path := join(key, name)
		node := fields.Get(name)
		if node == nil {
			d.failed[path] = fields.Misspelt(name)
			continue
		}
		d.places[path] = place{at.doc, node}
		d.value(d.places[path], v.Field(i), path)
		if v.Type().Field(i).Tag.Get("hide") != "" {
			at.doc.Hide(node)
		}
	}
}

// set decodes a text from the environment or a flag into the value of a key.
// Lists are separated by commas.
func (d *decoder) set(into *Config, key, text, source string) {
	v := reflect.ValueOf(into).Elem()
	for name := range strings.SplitSeq(key, ".") {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(newPart(v.Type()))
			}
			v = v.Elem()
		}
		v = fieldOf(v, name)
	}
	doc := yamlfile.Read(source, nil, yamlfile.Options{AllowEmpty: true, Secrets: true})
	d.others = append(d.others, doc)
	d.places[key], d.failed[key] = place{doc, yamlfile.Scalar(text)}, false
	if v.Kind() == reflect.Slice {
		var list []string
		for part := range strings.SplitSeq(text, ",") {
			list = append(list, strings.TrimSpace(part))
		}
		v.Set(reflect.ValueOf(list))
		return
	}
	if v.Kind() == reflect.String {
		d.places[key].node.Tag = "!!str" // 123 is a string here without quotes
	}
	d.scalar(d.places[key], v, key)
}
