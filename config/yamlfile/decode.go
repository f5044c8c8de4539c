package yamlfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// IsText reports whether a node is a string without an explicit tag.
func IsText(n *Node) bool { return isScalar(n, "!!str") }

// IsNull reports whether a node is null, written out or as nothing at all.
func IsNull(n *Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// IsEmpty reports whether a node is null, an empty string, or a mapping or list
// without entries.
func IsEmpty(n *Node) bool {
	return n.Kind != yaml.AliasNode && len(n.Content) == 0 && (n.Kind != yaml.ScalarNode || n.Value == "" || IsNull(n))
}

// IsScalar reports whether a node is one value: no mapping, list or alias.
func IsScalar(n *Node) bool { return n.Kind == yaml.ScalarNode }

// IsMapping reports whether a node is a mapping.
func IsMapping(n *Node) bool { return n.Kind == yaml.MappingNode }

// IsList reports whether a node is a list.
func IsList(n *Node) bool { return n.Kind == yaml.SequenceNode }

func isScalar(n *Node, tag string) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == tag && !tagged(n)
}

func tagged(n *Node) bool { return n.Style&yaml.TaggedStyle != 0 }

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
	if n.Kind != yaml.MappingNode || tagged(n) {
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
		case !IsText(key):
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
// optional hint at what to write, unless it is misspelt.
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
	case n.Kind != yaml.SequenceNode || tagged(n):
		d.Mistyped(n, path, "a list")
		return nil
	case len(n.Content) > most:
		d.Invalid(n, path, "want at most %d items, got %d", most, len(n.Content))
		return nil
	}
	d.noAnchor(n, path)
	return n.Content
}

// Text decodes a string of at most most bytes.
func (d *Document) Text(n *Node, path string, most int) (string, bool) {
	switch {
	case !IsText(n):
		d.Mistyped(n, path, "a string")
		return "", false
	case len(n.Value) > most:
		d.Invalid(n, path, "want at most %d bytes, got %d", most, len(n.Value))
		return "", false
	}
	d.noAnchor(n, path)
	return n.Value, true
}

// Bool decodes true or false.
func (d *Document) Bool(n *Node, path string) bool {
	if !isScalar(n, "!!bool") {
		d.Mistyped(n, path, "true or false")
		return false
	}
	d.noAnchor(n, path)
	return strings.EqualFold(n.Value, "true")
}

// Int decodes a whole number from least to most. It is written in decimal and
// without a leading zero or plus sign: the other ways of YAML mean different
// numbers to different readers. Where it reports a problem, it returns false.
func (d *Document) Int(n *Node, path string, least, most int) (int, bool) {
	v, err := strconv.Atoi(n.Value)
	if !isScalar(n, "!!int") || err != nil || strconv.Itoa(v) != n.Value {
		d.Mistyped(n, path, "a whole number")
		return 0, false
	}
	switch {
	case least == most && v != least:
		d.Invalid(n, path, "want %d, got %d", least, v)
		return 0, false
	case v < least || v > most:
		d.Invalid(n, path, "want %d to %d, got %d", least, most, v)
		return 0, false
	}
	d.noAnchor(n, path)
	return v, true
}

// Raw decodes one value of any type as the text it was written as. want
// describes it in the problem.
func (d *Document) Raw(n *Node, path, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode || tagged(n) || IsNull(n) {
		d.Mistyped(n, path, want)
		return "", false
	}
	d.noAnchor(n, path)
	return n.Value, true
}

// Duration decodes a duration from least to most, in the form of
// [ParseDuration].
func (d *Document) Duration(n *Node, path string, least, most time.Duration) (time.Duration, bool) {
	text, ok := d.Raw(n, path, durationForm)
	if !ok {
		return 0, false
	}
	v, err := ParseDuration(text)
	if err != nil {
		d.Invalid(n, path, "%v", err)
		return 0, false
	}
	if v < least || v > most {
		d.Invalid(n, path, "want %s to %s, got %s", least, most, v)
		return 0, false
	}
	return v, true
}

// Prefix decodes an address or a network, in the form of [ParsePrefix].
func (d *Document) Prefix(n *Node, path string) (netip.Prefix, bool) {
	text, ok := d.Raw(n, path, prefixForm)
	if !ok {
		return netip.Prefix{}, false
	}
	v, err := ParsePrefix(text)
	if err != nil {
		d.Invalid(n, path, "%v", err)
	}
	return v, err == nil
}

// OneOf decodes one of some names.
func (d *Document) OneOf(n *Node, path string, names ...string) (string, bool) {
	want := strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	text, ok := d.Raw(n, path, want)
	if ok && !slices.Contains(names, text) {
		d.Invalid(n, path, "want %s, got %s%s", want, Describe(n), Suggest(text, names))
		return "", false
	}
	return text, ok
}

// durationForm is how messages describe a duration.
const durationForm = "a duration such as 90s, 5m, 12h or 30d"

// ParseDuration parses a duration in the form of [time.ParseDuration], before
// which a number of days, of 24 hours each, may stand: 90s, 1h30m, 90d, 1d12h.
func ParseDuration(s string) (time.Duration, error) {
	rest, sign := s, time.Duration(1)
	switch {
	case strings.HasPrefix(s, "-"):
		rest, sign = s[1:], -1
	case strings.HasPrefix(s, "+"):
		rest = s[1:]
	}
	var days time.Duration
	if number, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, notDuration(s)
		}
		days, rest = time.Duration(n)*24*time.Hour, after
		if rest == "" {
			return sign * days, nil
		}
	}
	if rest == "" || rest[0] == '-' || rest[0] == '+' {
		return 0, notDuration(s)
	}
	d, err := time.ParseDuration(rest)
	if err != nil || days+d < days {
		return 0, notDuration(s)
	}
	return sign * (days + d), nil
}

func notDuration(s string) error {
	if _, err := strconv.Atoi(s); err == nil {
		return fmt.Errorf("want %s, got %s; write %ss for seconds", durationForm, s, s)
	}
	return fmt.Errorf("want %s, got %q", durationForm, Shorten(s))
}

// prefixForm is how messages describe an address or a network.
const prefixForm = "an address or a network such as 192.0.2.0/24"

// ParsePrefix parses a network in CIDR form, or an address, which is a network
// of itself. IPv4 addresses in IPv6 form are taken as IPv4. Errors are a zone,
// address bits beyond the network's length, and a network that covers IPv4
// addresses in IPv6 form.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("want %s, got %q", prefixForm, Shorten(s))
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("want IPv4 networks in IPv4 form, got %s", p)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has address bits beyond its length; write %s", p, p.Masked())
	}
	return p, nil
}

// Scalar returns the node of a value that does not stand in the file, such as one
// of an environment variable, typed as YAML types it.
func Scalar(text string) *Node { return &Node{Kind: yaml.ScalarNode, Value: text} }

// Mistyped reports that a node is not what was wanted, such as "a list".
func (d *Document) Mistyped(n *Node, path, want string) {
	if n.Kind != yaml.ScalarNode {
		d.hideSecret(n)
	}
	hint := ""
	switch {
	case n.Kind != yaml.ScalarNode || IsNull(n):
	case want == "a string" && tagged(n) && !strings.HasPrefix(n.Tag, "!!"):
		hint = "; text that begins with ! belongs in single quotes"
	case want == "a string":
		hint = "; quote it if it is one"
	}
	d.Invalid(n, path, "want %s, got %s%s", want, Describe(n), hint)
}

// Describe returns what a node is, for a message about another that was wanted.
func Describe(n *Node) string {
	switch {
	case n.Kind == yaml.AliasNode:
		return "an alias (*" + Shorten(n.Value) + "); write the value out"
	case tagged(n):
		return "a value with the tag " + Shorten(n.Tag)
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case IsNull(n):
		return "nothing"
	case n.ShortTag() == "!!str":
		return strconv.Quote(Shorten(n.Value))
	}
	return Shorten(n.Value)
}

// noAnchor reports an anchor. Aliases are of no type, and reported as such.
func (d *Document) noAnchor(n *Node, path string) {
	if n.Anchor != "" {
		d.Invalid(n, path, "anchor &%s is not allowed; write the value out", Shorten(n.Anchor))
	}
}
