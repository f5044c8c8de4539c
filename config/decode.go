package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 8 << 20

// decoder puts a YAML document into a Config. The YAML library's own decoder
// knows no columns and stops at the first mistake of some kinds, so this one
// walks the library's tree of nodes along the types of Config.
type decoder struct {
	report
	source string // name of the file
}

// document decodes data, which holds one mapping or nothing. It reports false
// if data is not even that.
func (d *decoder) document(data []byte, into *Config) bool {
	d.places[""] = Place{Source: d.source}
	if len(data) > maxFile {
		d.at("", "is longer than %d bytes", maxFile)
		return false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return true
	case err != nil:
		d.syntax(err)
		return false
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		d.atNode(&second, "", "a second document; there can be one only")
		return false
	case !errors.Is(err, io.EOF):
		d.syntax(err)
		return false
	}
	root := doc.Content[0]
	if isNull(root) && root.Value == "" {
		return true // nothing but comments
	}
	d.value(root, reflect.ValueOf(into).Elem(), "")
	return root.Kind == yaml.MappingNode
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)

// syntax reports what the YAML library says, which names a line if it can.
func (d *decoder) syntax(err error) {
	text := err.Error()
	place := Place{Source: d.source}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		place.Line, _ = strconv.Atoi(m[1]) // no line in the text: none here
	}
	d.problems = append(d.problems, Problem{Place: place, Message: "not YAML: " + text})
}

func (d *decoder) place(n *yaml.Node) Place {
	return Place{Source: d.source, Line: n.Line, Column: n.Column}
}

// atNode reports a problem at a node instead of where its key came from.
func (d *decoder) atNode(n *yaml.Node, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{Place: d.place(n), Key: key, Message: fmt.Sprintf(format, args...)})
}

// value decodes a node by the type of v. Where it cannot, it reports why and
// leaves v as it was.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key string) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.atNode(n, key, "an alias; write the value out")
	case n.Kind == yaml.ScalarNode && n.Style&yaml.TaggedStyle != 0:
		d.atNode(n, key, "has the tag %s; leave it away", n.Tag)
	case n.Kind == yaml.ScalarNode && isNull(n):
		d.atNode(n, key, "has no value; leave the key out to have the default")
	case isScalar(v):
		if n.Kind != yaml.ScalarNode {
			d.atNode(n, key, "want %s, got %s", wanted(v), kindOf(n))
		} else if err := setScalar(v, n); err != nil {
			d.atNode(n, key, "%v", err)
		}
	case v.Kind() == reflect.Pointer:
		d.pointer(n, v, key)
	case v.Kind() == reflect.Slice:
		d.slice(n, v, key)
	case n.Kind != yaml.MappingNode:
		d.atNode(n, key, "want a mapping of %s, got %s", strings.Join(keysOf(v.Type()), ", "), kindOf(n))
	default:
		d.mapping(n, v, key)
	}
}

// pointer decodes a part of the configuration that may be absent.
func (d *decoder) pointer(n *yaml.Node, v reflect.Value, key string) {
	if v.IsNil() {
		v.Set(newPart(v.Type()))
	}
	d.value(n, v.Elem(), key)
}

// newPart makes a part of the configuration with its defaults.
func newPart(pointer reflect.Type) reflect.Value {
	p := reflect.New(pointer.Elem())
	if part, ok := p.Interface().(interface{ setDefaults() }); ok {
		part.setDefaults()
	}
	return p
}

// slice decodes a list. A list of scalars with one entry may be written as the
// entry alone.
func (d *decoder) slice(n *yaml.Node, v reflect.Value, key string) {
	list := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	nodes := n.Content
	switch {
	case n.Kind == yaml.SequenceNode:
	case n.Kind == yaml.ScalarNode && isScalar(reflect.New(v.Type().Elem()).Elem()):
		nodes = []*yaml.Node{n}
	default:
		d.atNode(n, key, "want a list, got %s", kindOf(n))
		return
	}
	for i, entry := range nodes {
		entryKey := fmt.Sprintf("%s[%d]", key, i)
		d.places[entryKey] = d.place(entry)
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(entry, e, entryKey)
		list = reflect.Append(list, e)
	}
	v.Set(list)
}

// mapping decodes into a struct.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string) {
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		path := join(key, name.Value)
		if name.Kind != yaml.ScalarNode || name.ShortTag() != "!!str" {
			d.atNode(name, key, "want a name, got %s", kindOf(name))
			continue
		}
		if line, ok := first[name.Value]; ok {
			d.atNode(name, path, "a second time; first in line %d", line)
			continue
		}
		first[name.Value] = name.Line
		field, ok := fieldOf(v, name.Value)
		if !ok {
			d.atNode(name, path, "unknown key%s", hint(name.Value, v.Type()))
			continue
		}
		d.places[path] = d.place(value)
		d.value(value, field, path)
	}
}

// set decodes a text from elsewhere than the file, such as the environment,
// into what the key names. Lists are separated by commas.
func (d *decoder) set(into *Config, key, text string, from Place) {
	v := reflect.ValueOf(into).Elem()
	for name := range strings.SplitSeq(key, ".") {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(newPart(v.Type()))
			}
			v = v.Elem()
		}
		v, _ = fieldOf(v, name) // a test holds that all such keys exist
	}
	d.places[key] = from
	node := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	if v.Kind() == reflect.String {
		node.Tag = "!!str" // a text like 123 is one even without quotes
	}
	if v.Kind() == reflect.Slice {
		list := reflect.MakeSlice(v.Type(), 0, 1)
		for part := range strings.SplitSeq(text, ",") {
			list = reflect.Append(list, reflect.ValueOf(strings.TrimSpace(part)))
		}
		v.Set(list)
		return
	}
	if err := setScalar(v, node); err != nil {
		d.at(key, "%v", err)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindOf names what a node is, for people.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if n.ShortTag() == "!!str" {
		return strconv.Quote(cut(n.Value))
	}
	return cut(n.Value)
}

// cut bounds what is repeated of a value.
func cut(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
