package schema

import (
	"errors"
	"math/big"
	"strings"
)

// boulangerieTypes returns the eleven types of Boulangerie. Their Go types
// are string, bool, time.Time, *big.Int, and []any for lists.
func boulangerieTypes() []valueType {
	scalars := []valueType{
		{name: "Atom", text: "letters, digits and `.` `/` `-` `_`", example: "read/only", parse: parseAtom, inList: true},
		{name: "Binary", text: "any bytes but a line feed", example: "AAAA", parse: rubyBinary},
		{name: "Boolean", text: "`true` or `false`", example: "true", parse: parseBool, inList: true},
		{name: "DateTime", text: "an ISO 8601 time", example: "2030-01-02T15:04:05Z", parse: rubyTime, inList: true},
		{name: "Decimal", text: "a whole number of any size", example: "42", parse: rubyInteger, inList: true},
		{name: "URI", text: "a URI or a relative reference", example: "https://example.org/path", parse: rubyURI, inList: true},
	}
	all := scalars
	for _, t := range scalars {
		if t.inList {
			all = append(all, valueType{
				name:    "List(" + t.name + ")",
				text:    t.text + "; any number, separated by white space",
				example: t.example + " " + t.example,
				parse:   rubyList(t.parse),
			})
		}
	}
	return all
}

// Why a value of a Boulangerie type does not parse.
var (
	errDecimal  = errors.New("want a whole number")
	errDateTime = errors.New("want an ISO 8601 time")
	errRubyURI  = errors.New("want a URI")
)

func rubyBinary(s string) (any, error) { return s, nil }

// rubyList splits as Ruby's split(" ") does, at runs of white space and
// without the empty ends.
func rubyList(parse func(string) (any, error)) func(string) (any, error) {
	return func(s string) (any, error) {
		list := []any{}
		for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r < 0x80 && isRubySpace(byte(r)) }) {
			v, err := parse(part)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
}

// isRubySpace says whether c is what \s matches and what split cuts at.
func isRubySpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// trimRubySpace removes white space at both ends.
func trimRubySpace(s string) string {
	return strings.Trim(s, " \t\n\v\f\r")
}

// rubyInteger reads what Ruby's Integer(s, 10) does: white space around, a
// sign, the prefix 0d, and single underscores between digits.
func rubyInteger(s string) (any, error) {
	digits := trimRubySpace(s)
	negative := strings.HasPrefix(digits, "-")
	if negative || strings.HasPrefix(digits, "+") {
		digits = digits[1:]
	}
	if len(digits) > 2 && digits[0] == '0' && digits[1]|0x20 == 'd' {
		digits = digits[2:]
	}
	for part := range strings.SplitSeq(digits, "_") {
		if part == "" || !allBytes(part, isDigit) {
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

// rubyURI accepts what Ruby's URI(s) does: RFC 3986, and for four schemes
// what their classes ask for beyond it. The value is the text.
func rubyURI(s string) (any, error) {
	u, ok := splitURI(s)
	if !ok {
		return nil, errRubyURI
	}
	switch strings.ToLower(u.scheme) {
	case "ftp":
		ok = !u.rootless()
	case "ldap", "ldaps":
		ok = !u.rootless() && !u.hasFragment
	case "mailto":
		ok = isMailto(u)
	}
	if !ok {
		return nil, errRubyURI
	}
	return s, nil
}

// isMailto says whether the addresses in a mailto URI are some number of a@b,
// each but the last followed by a comma or semicolon. Only an address right
// after the scheme is looked at, and without one there must be a query.
func isMailto(u uriParts) bool {
	if !u.rootless() {
		return u.hasQuery
	}
	to := u.path
	for to != "" {
		address := to
		if i := strings.IndexAny(to, ",;"); i >= 0 {
			address, to = to[:i], to[i+1:]
		} else {
			to = ""
		}
		user, host, found := strings.Cut(address, "@")
		if !found || user == "" || host == "" || strings.Contains(host, "@") {
			return false
		}
	}
	return true
}
