package policy

import (
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
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

// A fileDef is a rule file, read but not compiled: every key is known, every
// value has the right type, and expressions are still text.
type fileDef struct {
	src      *source
	untested bool // tests are not read
	networks map[string]*networkSet
	lists    map[string]*stringList
	webhooks map[string]*webhookDef
	policies []*policyDef
}

type policyDef struct {
	name      string
	at        *yaml.Node
	doc       string
	rules     []*ruleDef
	otherwise *thenDef
	tests     []*testDef
}

type ruleDef struct {
	name string
	at   *yaml.Node // the name
	doc  string
	when *yaml.Node
	then *thenDef
}

// read reads a rule file. What is wrong is reported; what is right is kept.
func (f *fileDef) read(data []byte) {
	root := f.src.parse(data)
	if root == nil {
		return
	}
	if root.Kind != yaml.MappingNode {
		f.src.errorAt(root, "a rule file is a mapping with the keys version and policies, not %s", describe(root))
		return
	}
	keys := f.src.keys(root, "the file", "version", "networks", "lists", "webhooks", "policies")
	f.version(root, keys["version"])
	f.readNetworks(keys["networks"])
	f.readLists(keys["lists"])
	f.readWebhooks(keys["webhooks"])
	n := keys["policies"]
	if n == nil {
		f.src.errorAt(root, "the file has no key policies")
		return
	}
	entries := f.src.entries(n, "policies")
	if len(entries) > maxPolicies {
		f.src.errorAt(n, "%d policies; at most %d are allowed", len(entries), maxPolicies)
		return
	}
	if len(entries) == 0 && !f.src.failed() {
		f.src.errorAt(n, "there is no policy under policies")
	}
	for _, e := range entries {
		if f.src.nameAt(e.at, e.key, "the policy") {
			f.policies = append(f.policies, f.readPolicy(e))
		}
	}
}

func (f *fileDef) version(root, n *yaml.Node) {
	switch {
	case n == nil:
		f.src.errorAt(root, "the file does not say its version; write version: 1")
	case n.Kind != yaml.ScalarNode || n.Value != "1":
		f.src.errorAt(n, "version is 1, not %s", describe(n))
	}
}

func (f *fileDef) readNetworks(n *yaml.Node) {
	f.networks = map[string]*networkSet{}
	if n == nil {
		return
	}
	for _, e := range f.listEntries(n, "networks") {
		if !f.listName(e) {
			continue
		}
		var prefixes []netip.Prefix
		for _, text := range f.strings(e.value, "the network list "+e.key) {
			p, err := parsePrefix(text.Value)
			if err != nil {
				f.src.errorAt(text, "%v", err)
				continue
			}
			prefixes = append(prefixes, p)
		}
		f.networks[e.key] = newNetworkSet(prefixes)
	}
}

func (f *fileDef) readLists(n *yaml.Node) {
	f.lists = map[string]*stringList{}
	if n == nil {
		return
	}
	for _, e := range f.listEntries(n, "lists") {
		if !f.listName(e) {
			continue
		}
		var values []string
		for _, text := range f.strings(e.value, "the list "+e.key) {
			if _, err := parsePrefix(text.Value); err == nil {
				f.src.errorAt(text, "%s is an address; under lists it would be compared as text, so it belongs under networks", text.Value)
				continue
			}
			values = append(values, text.Value)
		}
		f.lists[e.key] = newStringList(values)
	}
}

// listEntries returns the lists under a key.
func (f *fileDef) listEntries(n *yaml.Node, what string) []entry {
	entries := f.src.entries(n, what)
	if len(entries) > maxLists {
		f.src.errorAt(n, "%d lists; at most %d are allowed", len(entries), maxLists)
		return nil
	}
	return entries
}

// listName checks that a list's name can stand in an expression.
func (f *fileDef) listName(e entry) bool {
	if !f.src.nameAt(e.at, e.key, "the list") {
		return false
	}
	if strings.Contains(e.key, "-") || e.key[0] >= '0' && e.key[0] <= '9' {
		f.src.errorAt(e.at, "the list %q: the name of a list begins with a letter and has no -, so that an expression can have it", e.key)
		return false
	}
	return true
}

// strings returns a list's items, which are strings.
func (f *fileDef) strings(n *yaml.Node, what string) []*yaml.Node {
	var out []*yaml.Node
	for _, item := range f.src.items(n, what, maxList) {
		if _, ok := f.src.text(item, "an entry of "+what, maxEntry); ok {
			out = append(out, item)
		}
	}
	return out
}

func (f *fileDef) readPolicy(e entry) *policyDef {
	p := &policyDef{name: e.key, at: e.at}
	what := "the policy " + e.key
	keys := f.src.keys(e.value, what, "doc", "rules", "otherwise", "tests")
	if n := keys["doc"]; n != nil {
		p.doc, _ = f.src.text(n, "doc", maxDoc)
	}
	if n := keys["rules"]; n != nil {
		names := map[string]int{}
		for _, item := range f.src.items(n, "rules", maxRules) {
			if r := f.readRule(item, names); r != nil {
				p.rules = append(p.rules, r)
			}
		}
	}
	if n := keys["otherwise"]; n != nil {
		p.otherwise = f.readThen(n, "otherwise")
	} else if e.value.Kind == yaml.MappingNode {
		f.src.errorAt(e.at, "%s has no otherwise, which decides where no rule matches; write, for instance, otherwise: allow", what)
	}
	if n := keys["tests"]; n != nil && !f.untested {
		for _, item := range f.src.items(n, "tests", maxTests) {
			if t := f.readTest(item); t != nil {
				p.tests = append(p.tests, t)
			}
		}
	}
	return p
}

// otherwiseRule is the name of the rule that decides where none matches.
const otherwiseRule = "otherwise"

func (f *fileDef) readRule(n *yaml.Node, names map[string]int) *ruleDef {
	if n.Kind != yaml.MappingNode {
		f.src.errorAt(n, "a rule is a mapping with name, when and then, not %s", describe(n))
		return nil
	}
	before := len(f.src.problems)
	keys := f.src.keys(n, "a rule", "name", "doc", "when", "then")
	r := &ruleDef{at: n, when: keys["when"]}
	if len(f.src.problems) == before { // else what is missing may be there, misspelt
		for _, missing := range []string{"name", "when", "then"} {
			if keys[missing] == nil {
				f.src.errorAt(n, "the rule has no %s", missing)
			}
		}
	}
	if at := keys["name"]; at != nil {
		f.ruleName(r, at, names)
	}
	if doc := keys["doc"]; doc != nil {
		r.doc, _ = f.src.text(doc, "doc", maxDoc)
	}
	if r.when != nil {
		if _, ok := f.src.text(r.when, "when, an expression,", 4*maxExpression); !ok {
			r.when = nil
		}
	}
	if then := keys["then"]; then != nil {
		r.then = f.readThen(then, "then")
	}
	return r
}

// ruleName reads a rule's name, which is its own in the policy.
func (f *fileDef) ruleName(r *ruleDef, at *yaml.Node, names map[string]int) {
	name, ok := f.src.text(at, "name", maxEntry)
	if !ok || !f.src.nameAt(at, name, "the rule") {
		return
	}
	r.name, r.at = name, at
	if line, twice := names[name]; twice {
		f.src.errorAt(at, "the policy has a rule %s already, in line %d", name, line)
	}
	names[name] = at.Line
	if name == otherwiseRule {
		f.src.errorAt(at, "a rule cannot be named otherwise")
	}
}
