// Package rulefile decodes rule files: YAML files with the policies of an operator, their
// rules, lists, webhooks and tests. Expressions stay text.
//
// # Format
//
//	version: 1
//	networks:                                  # lists of addresses and networks
//	  office: [203.0.113.0/24, "2001:db8:7::/48"]
//	lists:                                     # lists of strings
//	  staff: ["@alice:example.org"]
//	webhooks:                                  # see [Webhook]
//	  risk: {url: https://risk.example.org/decide, secret_file: risk.key}
//	policies:
//	  default:
//	    doc: Text.
//	    rules:                                 # the first rule whose condition holds decides
//	      - name: elsewhere
//	        when: user.id in lists.staff && !(request.ip in networks.office)
//	        then: {effect: deny, code: network}
//	    otherwise: allow                       # decides if no condition holds
//	    tests:
//	      - name: staff elsewhere
//	        input: {request: {ip: 198.51.100.7}}
//	        expect: {effect: deny, rule: elsewhere}
//
// [Read] reports every mistake with its position: unknown, missing and duplicate keys,
// values of the wrong type or out of range, and anchors, aliases and tags of YAML. A file
// with a mistake must not be used in part. [JSONSchema] describes the format for editors.
package rulefile

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/cel"
)

// MaxBytes bounds a rule file, so that the nodes of its YAML, at most one per byte, take less
// than fifty megabytes.
const MaxBytes = 256 << 10

// Limits of a rule file.
const (
	maxProblems = 50
	maxPolicies = 64
	maxRules    = 200   // of a policy
	maxTests    = 1000  // of a policy
	maxLists    = 256   // of each kind
	maxList     = 10000 // entries
	maxEntry    = 255   // bytes of an entry
	maxDoc      = 4096  // bytes
	maxWhen     = 4 * cel.MaxExpression
)

// A File is a decoded rule file. Its Document has the mistakes and the positions.
type File struct {
	*yamlfile.Document
	Networks map[string][]netip.Prefix // by name
	Lists    map[string][]string       // by name
	Webhooks map[string]*Webhook       // by name
	Policies []*Policy                 // in the order of the file
	untested bool                      // skip tests
}

// Read decodes a rule file and reports mistakes in the document of the result; it keeps the
// valid parts. It skips the tests unless tests is true.
func Read(name string, data []byte, tests bool) *File {
	f := newFile(name, data)
	f.untested = !tests
	f.Networks, f.Lists, f.Webhooks = map[string][]netip.Prefix{}, map[string][]string{}, map[string]*Webhook{}
	if f.Root == nil {
		return f
	}
	keys := f.Fields(f.Root, "", "version", "networks", "lists", "webhooks", "policies")
	f.Int(keys.Require("version", "write version: 1"), "version", 1, 1)
	for _, e := range f.lists(keys.Get("networks"), "networks") {
		f.Networks[e.Key] = f.prefixes(e.Value, "networks."+e.Key)
	}
	for _, e := range f.lists(keys.Get("lists"), "lists") {
		f.Lists[e.Key] = f.readList(e.Value, "lists."+e.Key)
	}
	for _, e := range f.entries(keys.Get("webhooks"), "webhooks", "webhooks", maxWebhooks) {
		f.Webhooks[e.Key] = f.readWebhook(e)
	}
	policies := keys.Require("policies", "")
	for _, e := range f.entries(policies, "policies", "policies", maxPolicies) {
		f.Policies = append(f.Policies, f.readPolicy(e))
	}
	if len(f.Policies) == 0 && !f.Failed() {
		f.Invalid(policies, "policies", "want at least one policy")
	}
	return f
}

func newFile(name string, data []byte) *File {
	return &File{Document: yamlfile.Read(name, data, yamlfile.Options{MaxBytes: MaxBytes, MaxProblems: maxProblems, SyntaxHint: quoteHint})}
}

// expressionLine matches a line with an expression that has another meaning in YAML
// because of its first character, or of a colon or number sign inside.
var expressionLine = regexp.MustCompile("^\\s*(?:- )?(?:when|ttl):\\s+(?:[\"'!&*{\\[%@`].*|[^'\"|>].*(?:: | #).*)$")

// quoteHint returns a hint at such a line near the line of a YAML syntax error,
// which may be the beginning of the block.
func quoteHint(lines []string, line int) string {
	for i := max(0, line-2); i < min(len(lines), line+6); i++ {
		if expressionLine.MatchString(lines[i]) {
			return fmt.Sprintf("; perhaps the expression in line %d, which belongs in single quotes, or on a line of its own after when: |", i+1)
		}
	}
	return ""
}

// prefixes decodes a list of addresses and networks.
func (f *File) prefixes(n *yamlfile.Node, path string) (all []netip.Prefix) {
	for _, item := range f.Items(n, path, maxList) {
		if p, ok := f.Prefix(item, path); ok {
			all = append(all, p)
		}
	}
	return all
}

// readList decodes a list of strings other than addresses.
func (f *File) readList(n *yamlfile.Node, path string) (values []string) {
	for _, item := range f.texts(n, path, maxList, maxEntry) {
		if _, err := yamlfile.ParsePrefix(item.Value); err == nil {
			f.Invalid(item, path, "want a string, got the address %s, which belongs under networks", item.Value)
		}
		values = append(values, item.Value)
	}
	return values
}

// lists decodes a mapping of lists whose names are valid in expressions.
func (f *File) lists(n *yamlfile.Node, path string) (named []yamlfile.Entry) {
	for _, e := range f.entries(n, path, "lists", maxLists) {
		if strings.Contains(e.Key, "-") || e.Key[0] >= '0' && e.Key[0] <= '9' {
			f.Invalid(e.At, path, "want a letter first and no - in the name of a list, got %q", e.Key)
			continue
		}
		named = append(named, e)
	}
	return named
}

// entries decodes a mapping of at most most entries of a kind, whose names are valid in logs
// and metrics.
func (f *File) entries(n *yamlfile.Node, path, kind string, most int) []yamlfile.Entry {
	all := f.Entries(n, path)
	if len(all) > most {
		f.Invalid(n, path, "want at most %d %s, got %d", most, kind, len(all))
		return nil
	}
	return slices.DeleteFunc(all, func(e yamlfile.Entry) bool { return !f.name(e.At, path, e.Key) })
}

// texts returns the items of a list of strings.
func (f *File) texts(n *yamlfile.Node, path string, most, longest int) []*yamlfile.Node {
	var out []*yamlfile.Node
	for _, item := range f.Items(n, path, most) {
		if _, ok := f.Text(item, path, longest); ok {
			out = append(out, item)
		}
	}
	return out
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// name reports a name that is invalid in logs and metrics.
func (f *File) name(n *yamlfile.Node, path, name string) bool {
	if !nameForm.MatchString(name) {
		f.Invalid(n, path, "want a name of at most 64 of a-z, 0-9, _ and - with a letter or digit first, got %.60q", name)
		return false
	}
	return true
}
