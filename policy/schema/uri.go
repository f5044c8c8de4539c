package schema

import (
	"net/netip"
	"strings"
)

// uriParts is a URI reference cut as RFC 3986 cuts it, nothing decoded.
type uriParts struct {
	scheme       string // "" in a relative reference
	hasAuthority bool
	path         string
	hasQuery     bool
	query        string // any ASCII but '#'
	hasFragment  bool
}

// rootless says whether the path stands right after the scheme, as in
// mailto:a@b.
func (u uriParts) rootless() bool {
	return u.scheme != "" && !u.hasAuthority && u.path != "" && u.path[0] != '/'
}

// splitURI cuts a URI or relative reference and says whether it follows
// RFC 3986, but for the query, which may be any ASCII, as Ruby reads it.
func splitURI(s string) (u uriParts, ok bool) {
	if !allBytes(s, func(c byte) bool { return c < 0x80 }) {
		return u, false
	}
	rest, fragment, hasFragment := strings.Cut(s, "#")
	if !allPathChars(fragment, "/?") {
		return u, false
	}
	u.hasFragment = hasFragment
	rest, u.query, u.hasQuery = strings.Cut(rest, "?")
	if scheme, after, found := strings.Cut(rest, ":"); found && isScheme(scheme) {
		u.scheme, rest = scheme, after
	}
	if after, found := strings.CutPrefix(rest, "//"); found {
		authority := after
		if i := strings.IndexByte(after, '/'); i >= 0 {
			authority = after[:i]
		}
		if !isAuthority(authority) {
			return u, false
		}
		u.hasAuthority = true
		rest = after[len(authority):]
	}
	u.path = rest
	if u.scheme == "" && !u.hasAuthority {
		if first, _, _ := strings.Cut(rest, "/"); strings.Contains(first, ":") {
			return u, false
		}
	}
	return u, allPathChars(rest, "/")
}

// isScheme says whether s is a letter and then letters, digits, + - or dots.
func isScheme(s string) bool {
	return s != "" && isLetter(s[0]) && allBytes(s, func(c byte) bool {
		return isLetter(c) || isDigit(c) || c == '+' || c == '-' || c == '.'
	})
}

// isAuthority says whether s is [userinfo@][host][:port].
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
	if !allBytes(port, isDigit) {
		return false
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && isIPLiteral(inner)
	}
	return allURIChars(host, "")
}

// isIPLiteral says whether s may stand in brackets in place of a host.
func isIPLiteral(s string) bool {
	if future, ok := strings.CutPrefix(s, "v"); ok {
		version, rest, found := strings.Cut(future, ".")
		return found && version != "" && allBytes(version, isHex) &&
			rest != "" && allURIChars(rest, ":") && !strings.Contains(rest, "%")
	}
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Is6() && addr.Zone() == ""
}

// allPathChars says whether s is made of what RFC 3986 calls pchar, and of
// the characters in also.
func allPathChars(s, also string) bool { return allURIChars(s, ":@"+also) }

// allURIChars says whether s is made of percent escapes, unreserved
// characters, sub-delims and the characters in also.
func allURIChars(s, also string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case isLetter(c), isDigit(c), strings.IndexByte("-._~!$&'()*+,;=", c) >= 0, strings.IndexByte(also, c) >= 0:
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			i += 2
		default:
			return false
		}
	}
	return true
}

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
