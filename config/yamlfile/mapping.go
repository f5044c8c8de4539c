package yamlfile

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// An Entry is a key of a mapping and its value.
type Entry struct {
	Key   string
	At    *Node // the key
	Value *Node
}

// Entries returns the entries of a mapping with keys of any name, in the order
// of the file. Keys that are not strings, and duplicates, are reported and left
// out. path names the mapping in problems.
func (d *Document) Entries(n *Node, path string) []Entry {
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.MappingNode || tagged(n):
		d.Mistyped(n, path, "a mapping")
		return nil
	}
	d.noAnchor(n, path)
	first := make(map[string]int, len(n.Content)/2)
	entries := make([]Entry, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		line, twice := first[key.Value]
		switch {
		case !isText(key):
			d.Mistyped(key, path, "a name as key")
		case twice:
			d.Invalid(key, path, "key %q is a duplicate; the first is in line %d", Shorten(key.Value), line)
		default:
			d.noAnchor(key, path)
			first[key.Value] = key.Line
			entries = append(entries, Entry{key.Value, key, value})
			continue
		}
		d.hideSecret(value)
	}
	return entries
}

// Fields is a mapping with a fixed set of keys.
type Fields struct {
	At *Node // where a missing key is reported

	doc    *Document
	path   string
	valid  bool // the node is a mapping
	values map[string]*Node
	near   map[string]bool // keys that an unknown one resembles
}

// Fields decodes a mapping that has no keys but the known ones. path names the
// mapping in problems; it is empty at the top.
func (d *Document) Fields(n *Node, path string, known ...string) *Fields {
	f := &Fields{At: n, doc: d, path: path, valid: IsMapping(n), values: map[string]*Node{}, near: map[string]bool{}}
	for _, e := range d.Entries(n, path) {
		if slices.Contains(known, e.Key) {
			f.values[e.Key] = e.Value
			continue
		}
		d.Invalid(e.At, path, "key %q is unknown%s", Shorten(e.Key), d.unknown(e.Key, known))
		d.hideSecret(e.Value)
		f.near[Nearest(e.Key, known)] = true
	}
	return f
}

// Get returns the value of a key, or nil.
func (f *Fields) Get(key string) *Node { return f.values[key] }

// Len returns the number of known keys that the mapping has.
func (f *Fields) Len() int { return len(f.values) }

// Misspelt reports whether a key is missing and an unknown one resembles it.
func (f *Fields) Misspelt(key string) bool { return f.values[key] == nil && f.near[key] }

// Require returns the value of a key. A missing key is reported, with an
// optional hint, unless it is misspelt.
func (f *Fields) Require(key, hint string) *Node {
	n := f.values[key]
	if n == nil && f.valid && !f.near[key] {
		if hint != "" {
			hint = "; " + hint
		}
		f.doc.Invalid(f.At, f.path, "key %q is missing%s", key, hint)
	}
	return n
}

// Items returns the items of a list of at most most.
func (d *Document) Items(n *Node, path string, most int) []*Node {
	switch {
	case n == nil:
	case n.Kind != yaml.SequenceNode || tagged(n):
		d.Mistyped(n, path, "a list")
	case len(n.Content) > most:
		d.Invalid(n, path, "want at most %d items, got %d", most, len(n.Content))
	default:
		d.noAnchor(n, path)
		return n.Content
	}
	return nil
}
