package yamlfile

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// isText reports whether a node is a string without an explicit tag.
func isText(n *Node) bool { return isScalar(n, "!!str") }

// IsNull reports whether a node is null: explicitly, or without a value.
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

// Scalar returns the node of a value that does not stand in the file, such as one
// of an environment variable, typed as YAML types it.
func Scalar(text string) *Node { return &Node{Kind: yaml.ScalarNode, Value: text} }

// Mistyped reports that a node is of another type than the wanted one, such as "a list".
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
	d.Invalid(n, path, "want %s, got %s%s", want, describe(n), hint)
}

// describe returns the type of a node, or its value, for a message.
func describe(n *Node) string {
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
