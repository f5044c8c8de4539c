package boulangerie

import (
	"errors"
	"math/big"
	"regexp"
	"strings"

	"github.com/discharger/discharger/policy/schema"
	"github.com/discharger/discharger/policy/schema/uri"
)

// types returns the eleven types of Boulangerie. The Go types of their values are string,
// bool, time.Time, *big.Int, and []any for lists.
func types() []schema.Definition {
	scalars := []schema.Definition{
		{Type: "Atom", Text: "letters, digits and `.` `/` `-` `_`", Example: "read/only", Parse: parseAtom},
		{Type: "Boolean", Text: "`true` or `false`", Example: "true", Parse: parseBoolean},
		{Type: "DateTime", Text: "an ISO 8601 time", Example: "2030-01-02T15:04:05Z", Parse: parseDateTime},
		{Type: "Decimal", Text: "a whole number of any size", Example: "42", Parse: parseDecimal},
		{Type: "URI", Text: "a URI or a relative reference", Example: "https://example.org/path", Parse: parseURI},
	}
	binary := schema.Definition{Type: "Binary", Text: "any bytes but a line feed", Example: "AAAA", Parse: parseBinary}
	all := append(scalars, binary)
	for _, t := range scalars {
		all = append(all, schema.Definition{
			Type: "List(" + t.Type + ")", Text: t.Text + "; any number, separated by white space",
			Example: t.Example + " " + t.Example, Parse: parseList(t.Parse),
		})
	}
	return all
}

func typeNames() []string {
	var names []string
	for _, t := range types() {
		names = append(names, t.Type)
	}
	return names
}

// oneLine returns a parser that refuses a line feed, which no value can have.
func oneLine(parse func(string) (any, error)) func(string) (any, error) {
	return func(s string) (any, error) {
		if strings.Contains(s, "\n") {
			return nil, errLine
		}
		return parse(s)
	}
}

// Why a value of a Boulangerie type does not parse.
var (
	errLine     = errors.New("has a line feed")
	errAtom     = errors.New("want letters, digits and . / - _ only")
	errBoolean  = errors.New("want true or false")
	errDecimal  = errors.New("want a whole number")
	errDateTime = errors.New("want an ISO 8601 time")
	errURI      = errors.New("want a URI")
)

func parseBinary(s string) (any, error) { return s, nil }

func parseAtom(s string) (any, error) {
	if !atom.MatchString(s) {
		return nil, errAtom
	}
	return s, nil
}

var atom = regexp.MustCompile(`^[A-Za-z0-9./_-]+$`)

func parseBoolean(s string) (any, error) {
	if s != "true" && s != "false" {
		return nil, errBoolean
	}
	return s == "true", nil
}

// parseList splits as Ruby's split(" ") does, at runs of white space and
// without the empty ends.
func parseList(parse func(string) (any, error)) func(string) (any, error) {
	return func(s string) (any, error) {
		list := []any{}
		for part := range strings.FieldsFuncSeq(s, isSpace) {
			v, err := parse(part)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
}

// isSpace reports whether Ruby's \s matches r, and split cuts at it.
func isSpace(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }

// parseDecimal accepts the texts of Ruby's Integer(s, 10): white space around, a
// sign, the prefix 0d, and single underscores between digits.
func parseDecimal(s string) (any, error) {
	digits := strings.TrimFunc(s, isSpace)
	negative := strings.HasPrefix(digits, "-")
	if negative || strings.HasPrefix(digits, "+") {
		digits = digits[1:]
	}
	if len(digits) > 2 && digits[0] == '0' && digits[1]|0x20 == 'd' {
		digits = digits[2:]
	}
	for part := range strings.SplitSeq(digits, "_") {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return nil, errDecimal
		}
	}
	n, ok := new(big.Int).SetString(strings.ReplaceAll(digits, "_", ""), 10)
	if !ok {
		return nil, errDecimal
	}
	if negative {
		n.Neg(n)
	}
	return n, nil
}

// parseURI accepts the texts of Ruby's URI(s): RFC 3986, and for four schemes the
// rules of their classes. The value is the text.
func parseURI(s string) (any, error) {
	r, ok := uri.Parse(s)
	if !ok {
		return nil, errURI
	}
	switch strings.ToLower(r.Scheme) {
	case "ftp":
		ok = !r.Rootless()
	case "ldap", "ldaps":
		ok = !r.Rootless() && !r.HasFragment
	case "mailto":
		ok = isMailto(r)
	}
	if !ok {
		return nil, errURI
	}
	return s, nil
}

// isMailto reports whether the addresses in a mailto URI are some number of a@b,
// each but the last followed by a comma or semicolon. Only an address right after
// the scheme counts, and without one there must be a query.
func isMailto(r uri.Reference) bool {
	if !r.Rootless() {
		return r.HasQuery
	}
	for to := r.Path; to != ""; {
		address, rest := to, ""
		if i := strings.IndexAny(to, ",;"); i >= 0 {
			address, rest = to[:i], to[i+1:]
		}
		user, host, found := strings.Cut(address, "@")
		if !found || user == "" || host == "" || strings.Contains(host, "@") {
			return false
		}
		to = rest
	}
	return true
}
