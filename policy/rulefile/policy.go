package rulefile

import "github.com/discharger/discharger/config/yamlfile"

// A Policy is a decoded policy. Parts with mistakes are nil.
type Policy struct {
	Name      string
	At        *yamlfile.Node // position of the name
	Doc       string
	Rules     []*Rule
	Otherwise *Then
	Tests     []*Test
}

// A Rule is a decoded rule. Parts with mistakes are nil.
type Rule struct {
	Name string
	At   *yamlfile.Node // position of the name
	Doc  string
	When *yamlfile.Node // condition
	Then *Then
}

// Otherwise is the name of the rule that decides if no condition holds.
const Otherwise = "otherwise"

func (f *File) readPolicy(e yamlfile.Entry) *Policy {
	p := &Policy{Name: e.Key, At: e.At}
	path := "policies." + e.Key
	keys := f.Fields(e.Value, path, "doc", "rules", "otherwise", "tests")
	keys.At = e.At
	p.Doc, _ = f.Text(keys.Get("doc"), "doc", maxDoc)
	lines := map[string]int{}
	for _, item := range f.Items(keys.Get("rules"), path+".rules", maxRules) {
		p.Rules = append(p.Rules, f.readRule(item, lines))
	}
	if n := keys.Require("otherwise", "it decides if no condition holds; write, for instance, otherwise: allow"); n != nil {
		p.Otherwise = f.readThen(n, Otherwise)
	}
	if f.untested {
		return p
	}
	for _, item := range f.Items(keys.Get("tests"), path+".tests", maxTests) {
		p.Tests = append(p.Tests, f.readTest(item))
	}
	return p
}

// readRule decodes a rule. lines has the lines of earlier names.
func (f *File) readRule(n *yamlfile.Node, lines map[string]int) *Rule {
	keys := f.Fields(n, "rule", "name", "doc", "when", "then")
	r := &Rule{At: n}
	f.ruleName(r, keys.Require("name", ""), lines)
	r.Doc, _ = f.Text(keys.Get("doc"), "doc", maxDoc)
	when := keys.Require("when", "")
	if _, ok := f.Text(when, "when", maxWhen); ok {
		r.When = when
	}
	if then := keys.Require("then", ""); then != nil {
		r.Then = f.readThen(then, "then")
	}
	return r
}

func (f *File) ruleName(r *Rule, at *yamlfile.Node, lines map[string]int) {
	name, ok := f.Text(at, "name", maxEntry)
	if !ok || !f.name(at, "name", name) {
		return
	}
	r.Name, r.At = name, at
	if line, twice := lines[name]; twice {
		f.Invalid(at, "name", "rule %s is a duplicate; the first is in line %d", name, line)
	}
	lines[name] = at.Line
	if name == Otherwise {
		f.Invalid(at, "name", "otherwise is reserved")
	}
}
