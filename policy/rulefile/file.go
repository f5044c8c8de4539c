package rulefile

import (
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/discharger/discharger/policy/cel"
)

// Limits of what a rule file may hold.
const (
	maxPolicies = 64
	maxRules    = 200   // of a policy
	maxTests    = 1000  // of a policy
	maxLists    = 256   // of each kind
	maxList     = 10000 // entries
	maxEntry    = 255   // bytes of an entry
	maxDoc      = 4096
)

// A File is a rule file that was read and not compiled: every key is known,
// every value has the right type, and expressions are text.
type File struct {
	*source
	Networks map[string][]netip.Prefix
	Lists    map[string][]string
	Webhooks map[string]*Webhook
	Policies []*Policy
	untested bool // tests are not read
}

// A Policy is a policy of a file.
type Policy struct {
	Name      string
	At        *yaml.Node
	Doc       string
	Rules     []*Rule
	Otherwise *Then
	Tests     []*Test
}

// A Rule is a rule of a policy.
type Rule struct {
	Name string
	At   *yaml.Node // the name
	Doc  string
	When *yaml.Node // an expression
	Then *Then
}

// Read reads a rule file. Mistakes are among its problems; the rest is kept.
// The file's own tests are left out unless tests is true.
func Read(name string, data []byte, tests bool) *File {
	f := &File{source: &source{name: name}, untested: !tests}
	f.read(data)
	return f
}

func (f *File) read(data []byte) {
	root := f.parse(data)
	if root == nil {
		return
	}
	if root.Kind != yaml.MappingNode {
		f.ErrorAt(root, "a rule file is a mapping with the keys version and policies, not %s", describe(root))
		return
	}
	keys := f.keys(root, "the file", "version", "networks", "lists", "webhooks", "policies")
	f.version(root, keys["version"])
	f.readNetworks(keys["networks"])
	f.readLists(keys["lists"])
	f.readWebhooks(keys["webhooks"])
	n := keys["policies"]
	if n == nil {
		f.ErrorAt(root, "the file has no key policies")
		return
	}
	entries := f.entries(n, "policies")
	if len(entries) > maxPolicies {
		f.ErrorAt(n, "%d policies; at most %d are allowed", len(entries), maxPolicies)
		return
	}
	if len(entries) == 0 && !f.Failed() {
		f.ErrorAt(n, "there is no policy under policies")
	}
	for _, e := range entries {
		if f.nameAt(e.At, e.Key, "the policy") {
			f.Policies = append(f.Policies, f.readPolicy(e))
		}
	}
}

func (f *File) version(root, n *yaml.Node) {
	switch {
	case n == nil:
		f.ErrorAt(root, "the file does not say its version; write version: 1")
	case n.Kind != yaml.ScalarNode || n.Value != "1":
		f.ErrorAt(n, "version is 1, not %s", describe(n))
	}
}

func (f *File) readNetworks(n *yaml.Node) {
	f.Networks = map[string][]netip.Prefix{}
	if n == nil {
		return
	}
	for _, e := range f.listEntries(n, "networks") {
		if !f.listName(e) {
			continue
		}
		var prefixes []netip.Prefix
		for _, text := range f.strings(e.Value, "the network list "+e.Key, "an entry of the network list "+e.Key, maxList, maxEntry) {
			p, err := cel.ParsePrefix(text.Value)
			if err != nil {
				f.ErrorAt(text, "%v", err)
				continue
			}
			prefixes = append(prefixes, p)
		}
		f.Networks[e.Key] = prefixes
	}
}

func (f *File) readLists(n *yaml.Node) {
	f.Lists = map[string][]string{}
	if n == nil {
		return
	}
	for _, e := range f.listEntries(n, "lists") {
		if !f.listName(e) {
			continue
		}
		var values []string
		for _, text := range f.strings(e.Value, "the list "+e.Key, "an entry of the list "+e.Key, maxList, maxEntry) {
			if _, err := cel.ParsePrefix(text.Value); err == nil {
				f.ErrorAt(text, "%s is an address; under lists it would be compared as text, so it belongs under networks", text.Value)
				continue
			}
			values = append(values, text.Value)
		}
		f.Lists[e.Key] = values
	}
}

// listEntries returns the lists under a key.
func (f *File) listEntries(n *yaml.Node, what string) []Entry {
	entries := f.entries(n, what)
	if len(entries) > maxLists {
		f.ErrorAt(n, "%d lists; at most %d are allowed", len(entries), maxLists)
		return nil
	}
	return entries
}

// listName checks that a list's name can stand in an expression.
func (f *File) listName(e Entry) bool {
	if !f.nameAt(e.At, e.Key, "the list") {
		return false
	}
	if strings.Contains(e.Key, "-") || e.Key[0] >= '0' && e.Key[0] <= '9' {
		f.ErrorAt(e.At, "the list %q: the name of a list begins with a letter and has no -, so that an expression can have it", e.Key)
		return false
	}
	return true
}

// strings returns the items of a list of strings.
func (f *File) strings(n *yaml.Node, what, item string, most, longest int) []*yaml.Node {
	return slices.DeleteFunc(slices.Clone(f.items(n, what, most)), func(n *yaml.Node) bool {
		_, ok := f.text(n, item, longest)
		return !ok
	})
}

func (f *File) readPolicy(e Entry) *Policy {
	p := &Policy{Name: e.Key, At: e.At}
	what := "the policy " + e.Key
	keys := f.keys(e.Value, what, "doc", "rules", "otherwise", "tests")
	if n := keys["doc"]; n != nil {
		p.Doc, _ = f.text(n, "doc", maxDoc)
	}
	if n := keys["rules"]; n != nil {
		names := map[string]int{}
		for _, item := range f.items(n, "rules", maxRules) {
			if r := f.readRule(item, names); r != nil {
				p.Rules = append(p.Rules, r)
			}
		}
	}
	if n := keys["otherwise"]; n != nil {
		p.Otherwise = f.readThen(n, "otherwise")
	} else if e.Value.Kind == yaml.MappingNode {
		f.ErrorAt(e.At, "%s has no otherwise, which decides where no rule matches; write, for instance, otherwise: allow", what)
	}
	if n := keys["tests"]; n != nil && !f.untested {
		for _, item := range f.items(n, "tests", maxTests) {
			if t := f.readTest(item); t != nil {
				p.Tests = append(p.Tests, t)
			}
		}
	}
	return p
}

// Otherwise is the name of the rule that decides where none matches.
const Otherwise = "otherwise"

func (f *File) readRule(n *yaml.Node, names map[string]int) *Rule {
	if n.Kind != yaml.MappingNode {
		f.ErrorAt(n, "a rule is a mapping with name, when and then, not %s", describe(n))
		return nil
	}
	before := len(f.problems)
	keys := f.keys(n, "a rule", "name", "doc", "when", "then")
	r := &Rule{At: n, When: keys["when"]}
	if len(f.problems) == before { // else what is missing may be there, misspelt
		for _, missing := range []string{"name", "when", "then"} {
			if keys[missing] == nil {
				f.ErrorAt(n, "the rule has no %s", missing)
			}
		}
	}
	if at := keys["name"]; at != nil {
		f.ruleName(r, at, names)
	}
	if doc := keys["doc"]; doc != nil {
		r.Doc, _ = f.text(doc, "doc", maxDoc)
	}
	if r.When != nil {
		if _, ok := f.text(r.When, "when, an expression,", 4*cel.MaxExpression); !ok {
			r.When = nil
		}
	}
	if then := keys["then"]; then != nil {
		r.Then = f.readThen(then, "then")
	}
	return r
}

// ruleName reads a rule's name, which is its own in the policy.
func (f *File) ruleName(r *Rule, at *yaml.Node, names map[string]int) {
	name, ok := f.text(at, "name", maxEntry)
	if !ok || !f.nameAt(at, name, "the rule") {
		return
	}
	r.Name, r.At = name, at
	if line, twice := names[name]; twice {
		f.ErrorAt(at, "the policy has a rule %s already, in line %d", name, line)
	}
	names[name] = at.Line
	if name == Otherwise {
		f.ErrorAt(at, "a rule cannot be named otherwise")
	}
}
