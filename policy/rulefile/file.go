// Package rulefile reads rule files: YAML files in which an operator writes
// policies, with their rules, lists, webhooks and tests. It decodes the format,
// and leaves expressions as text.
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
//	    rules:                                 # the first whose condition holds decides
//	      - name: elsewhere
//	        when: user.id in lists.staff && !(request.ip in networks.office)
//	        then: {effect: deny, code: network}
//	    otherwise: allow                       # decides where no rule does
//	    tests:
//	      - name: staff elsewhere
//	        input: {request: {ip: 198.51.100.7}}
//	        expect: {effect: deny, rule: elsewhere}
//
// Every mistake is reported with its place: unknown, missing and duplicate
// keys, values of the wrong type or beyond their limits, and the features of
// YAML that make a file mean something else than it seems to (anchors, aliases,
// tags). A file with a mistake is never used in part. [JSONSchema] describes
// the format for editors.
package rulefile

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/cel"
)

// MaxBytes bounds a rule file. Its YAML nodes, of which a file of nothing but
// commas has the most, then fit in some fifty megabytes.
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

// A File is a rule file that was read and not compiled: every key is known,
// every value has the right type, and expressions are text.
type File struct {
	*yamlfile.Document
	Networks map[string][]netip.Prefix
	Lists    map[string][]string
	Webhooks map[string]*Webhook
	Policies []*Policy
	untested bool // tests are not read
}

// Read reads a rule file. Mistakes are among its problems; the rest is kept.
// The file's own tests are left out unless tests is true.
func Read(name string, data []byte, tests bool) *File {
	f := newFile(name, data)
	f.untested = !tests
	f.Networks, f.Lists, f.Webhooks = map[string][]netip.Prefix{}, map[string][]string{}, map[string]*Webhook{}
	if f.Root == nil {
		return f
	}
	keys := f.Fields(f.Root, "", "version", "networks", "lists", "webhooks", "policies")
	if n := keys.Require("version", "write version: 1"); n != nil {
		f.Int(n, "version", 1, 1)
	}
	if n := keys.Get("networks"); n != nil {
		f.readNetworks(n)
	}
	if n := keys.Get("lists"); n != nil {
		f.readLists(n)
	}
	if n := keys.Get("webhooks"); n != nil {
		f.readWebhooks(n)
	}
	if n := keys.Require("policies", ""); n != nil {
		f.readPolicies(n)
	}
	return f
}

func newFile(name string, data []byte) *File {
	return &File{Document: yamlfile.Read(name, data, yamlfile.Options{MaxBytes: MaxBytes, MaxProblems: maxProblems, SyntaxHint: quoteHint})}
}

// expressionLine is a line with an expression that YAML may take for
// something else: because of its first character, or of a colon or number sign
// inside.
var expressionLine = regexp.MustCompile("^\\s*(?:- )?(?:when|ttl):\\s+(?:[\"'!&*{\\[%@`].*|[^'\"|>].*(?:: | #).*)$")

// quoteHint returns a hint at such a line near the one where the YAML parser
// gave up, which may be the beginning of the surrounding block.
func quoteHint(lines []string, line int) string {
	for i := max(0, line-2); i < min(len(lines), line+6); i++ {
		if expressionLine.MatchString(lines[i]) {
			return fmt.Sprintf("; perhaps the expression in line %d, which belongs in single quotes, or on a line of its own after when: |", i+1)
		}
	}
	return ""
}

func (f *File) readNetworks(n *yamlfile.Node) {
	for _, e := range f.lists(n, "networks") {
		var prefixes []netip.Prefix
		for _, item := range f.texts(e.Value, "networks."+e.Key, maxList, maxEntry) {
			if p, ok := f.Prefix(item, "networks."+e.Key); ok {
				prefixes = append(prefixes, p)
			}
		}
		f.Networks[e.Key] = prefixes
	}
}

func (f *File) readLists(n *yamlfile.Node) {
	for _, e := range f.lists(n, "lists") {
		var values []string
		for _, item := range f.texts(e.Value, "lists."+e.Key, maxList, maxEntry) {
			if _, err := yamlfile.ParsePrefix(item.Value); err == nil {
				f.Invalid(item, "lists."+e.Key, "%s is an address; under lists it would be compared as text, so it belongs under networks", item.Value)
				continue
			}
			values = append(values, item.Value)
		}
		f.Lists[e.Key] = values
	}
}

// lists returns the lists under a key that have a name for expressions.
func (f *File) lists(n *yamlfile.Node, path string) []yamlfile.Entry {
	entries := f.Entries(n, path)
	if len(entries) > maxLists {
		f.Invalid(n, path, "want at most %d lists, got %d", maxLists, len(entries))
		return nil
	}
	var named []yamlfile.Entry
	for _, e := range entries {
		switch {
		case !f.name(e.At, path, e.Key):
		case strings.Contains(e.Key, "-") || e.Key[0] >= '0' && e.Key[0] <= '9':
			f.Invalid(e.At, path, "the name of a list begins with a letter and has no -, so that expressions can contain it; got %q", e.Key)
		default:
			named = append(named, e)
		}
	}
	return named
}

// texts returns the items of a list that are strings.
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

// name checks a name that appears in logs and metrics.
func (f *File) name(n *yamlfile.Node, path, name string) bool {
	if !nameForm.MatchString(name) {
		f.Invalid(n, path, "a name has at most 64 of a-z, 0-9, _ and -, and begins with a letter or digit; got %.60q", name)
		return false
	}
	return true
}
