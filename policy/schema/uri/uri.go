// Package uri parses URI references as RFC 3986 defines them, for caveats whose
// value is one. Unlike net/url it accepts no other spelling, decodes no escapes and
// has no rules for schemes.
package uri

import (
	"net/netip"
	"strings"
	"unicode"
)

// A Reference is a URI or a relative reference in parts, with escapes as they are.
type Reference struct {
	Scheme       string // "" in a relative reference
	HasAuthority bool
	Path         string
	HasQuery     bool
	Query        string // any ASCII but '#'; see [Reference.Strict]
	HasFragment  bool
}

// Rootless reports whether the path follows the scheme without a slash, as in mailto:a@b.
func (r Reference) Rootless() bool {
	return r.Scheme != "" && !r.HasAuthority && r.Path != "" && r.Path[0] != '/'
}

// Strict reports whether the query follows RFC 3986 too.
func (r Reference) Strict() bool { return allPathChars(r.Query, "/?") }

// Parse parses a URI or a relative reference, and reports whether it follows RFC
// 3986. In the query it accepts all of ASCII, as Ruby does.
func Parse(s string) (r Reference, ok bool) {
	if strings.ContainsFunc(s, func(c rune) bool { return c > unicode.MaxASCII }) {
		return r, false
	}
	rest, fragment, hasFragment := strings.Cut(s, "#")
	if !allPathChars(fragment, "/?") {
		return r, false
	}
	r.HasFragment = hasFragment
	rest, r.Query, r.HasQuery = strings.Cut(rest, "?")
	if scheme, after, found := strings.Cut(rest, ":"); found && isScheme(scheme) {
		r.Scheme, rest = scheme, after
	}
	if after, found := strings.CutPrefix(rest, "//"); found {
		authority, _, _ := strings.Cut(after, "/")
		if !isAuthority(authority) {
			return r, false
		}
		r.HasAuthority = true
		rest = after[len(authority):]
	}
	r.Path = rest
	if first, _, _ := strings.Cut(rest, "/"); r.Scheme == "" && !r.HasAuthority && strings.Contains(first, ":") {
		return r, false
	}
	return r, allPathChars(rest, "/")
}

// isScheme reports whether s is a letter and then letters, digits, + - or dots.
func isScheme(s string) bool {
	return s != "" && only(s[:1], letters) && only(s, letters+digits+"+-.")
}

// isAuthority reports whether s is [userinfo@][host][:port].
func isAuthority(s string) bool {
	if user, host, found := strings.Cut(s, "@"); found {
		if !allURIChars(user, ":") {
			return false
		}
		s = host
	}
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
	}
	if !only(port, digits) {
		return false
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && isIPLiteral(inner)
	}
	return allURIChars(host, "")
}

// isIPLiteral reports whether s may stand in brackets in place of a host.
func isIPLiteral(s string) bool {
	if future, ok := strings.CutPrefix(s, "v"); ok {
		version, rest, found := strings.Cut(future, ".")
		return found && version != "" && only(version, hexDigits) &&
			rest != "" && allURIChars(rest, ":") && !strings.Contains(rest, "%")
	}
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Is6() && addr.Zone() == ""
}

// allPathChars reports whether s consists of pchar of RFC 3986 and the characters
// in also.
func allPathChars(s, also string) bool { return allURIChars(s, ":@"+also) }

// allURIChars reports whether s consists of percent escapes, unreserved
// characters, sub-delims and the characters in also.
func allURIChars(s, also string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case strings.IndexByte(letters+digits+"-._~!$&'()*+,;=", c) >= 0, strings.IndexByte(also, c) >= 0:
		case c == '%' && i+2 < len(s) && only(s[i+1:i+3], hexDigits):
			i += 2
		default:
			return false
		}
	}
	return true
}

// only reports whether s consists of the ASCII characters in chars.
func only(s, chars string) bool { return strings.Trim(s, chars) == "" }

const (
	letters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits    = "0123456789"
	hexDigits = digits + "abcdefABCDEF"
)
