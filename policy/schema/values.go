package schema

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/discharger/discharger/policy/schema/uri"
)

// Errors of values, none of which contains the value.
var (
	errText     = errors.New("want text, without control characters")
	errAtom     = errors.New("want letters, digits and . / - _ only")
	errBool     = errors.New("want true or false")
	errInt      = errors.New("want a whole number of 64 bits")
	errTime     = errors.New("want an RFC 3339 time in the years 1 to 9999")
	errMillis   = errors.New("want milliseconds since 1970, up to the year 9999")
	errDuration = errors.New("want a duration such as 90s or 1h30m")
	errIP       = errors.New("want an IP address without a zone")
	errNetwork  = errors.New("want an IP address or a CIDR range")
	errURI      = errors.New("want an absolute URI")
	errUserID   = errors.New("want a Matrix user id")
	errList     = errors.New("want one space between elements")
)

func parseFlag(string) (any, error) { return true, nil }

func parseText(s string) (any, error) {
	if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return nil, errText
	}
	return s, nil
}

func parseAtom(s string) (any, error) {
	if s == "" || !allBytes(s, isNameByte) {
		return nil, errAtom
	}
	return s, nil
}

func parseBool(s string) (any, error) {
	if s != "true" && s != "false" {
		return nil, errBool
	}
	return s == "true", nil
}

func parseInt(s string) (any, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s {
		return nil, errInt
	}
	return n, nil
}

// parseTime rejects three texts beside RFC 3339 that Go's parser accepts: an hour of one
// digit, a comma before the fraction, and an offset of a day.
func parseTime(s string) (any, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || !inYears(t) || s[len("2006-01-02T15")] != ':' || strings.Contains(s, ",") {
		return nil, errTime
	}
	if offset := s[len(s)-len("07:00"):]; !strings.HasSuffix(s, "Z") && (offset[:2] >= "24" || offset[3:] >= "60") {
		return nil, errTime
	}
	return t.UTC(), nil
}

func parseMillis(s string) (any, error) {
	n, err := parseInt(s)
	if err != nil {
		return nil, errMillis
	}
	t := time.UnixMilli(n.(int64)).UTC()
	if n.(int64) < 0 || !inYears(t) {
		return nil, errMillis
	}
	return t, nil
}

// inYears reports whether t is in the range of CEL's times, that of RFC 3339.
func inYears(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1 && year <= 9999
}

func parseDuration(s string) (any, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || s[0] == '+' || s[0] == '-' {
		return nil, errDuration
	}
	return d, nil
}

func parseIP(s string) (any, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return nil, errIP
	}
	return addr.Unmap(), nil
}

func parseNetwork(s string) (any, error) {
	if !strings.Contains(s, "/") {
		addr, err := parseIP(s)
		if err != nil {
			return nil, errNetwork
		}
		return netip.PrefixFrom(addr.(netip.Addr), addr.(netip.Addr).BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, errNetwork
	}
	p, ok := plainPrefix(p)
	if !ok {
		return nil, errNetwork
	}
	return p, nil
}

// plainPrefix clears the host bits of p, and converts a range of IPv4 addresses in
// IPv6 form to IPv4. A range with other addresses beside them has no plain form.
func plainPrefix(p netip.Prefix) (netip.Prefix, bool) {
	if p.IsValid() && p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), p.IsValid()
}

func parseAbsoluteURI(s string) (any, error) {
	if u, ok := uri.Parse(s); !ok || u.Scheme == "" || !u.Strict() {
		return nil, errURI
	}
	return s, nil
}

// parseUserID accepts every user id that the Matrix specification allows, historical
// ones included: printable ASCII, a colon and a server name.
func parseUserID(s string) (any, error) {
	local, server, found := strings.Cut(s, ":")
	if !found || len(s) > 255 || len(local) < 2 || local[0] != '@' ||
		!allBytes(local, func(c byte) bool { return c > ' ' && c < 0x7f }) || !isServerName(server) {
		return nil, errUserID
	}
	return s, nil
}

// isServerName reports whether s is a host or an address, with or without a port.
func isServerName(s string) bool {
	host, port, hasPort := s, "", false
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port, hasPort = s[:i], s[i+1:], true
	}
	if hasPort && (port == "" || len(port) > 5 || !allBytes(port, isDigit)) {
		return false
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	return host != "" && allBytes(host, func(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' || c == '.' })
}

// parseList returns the parser of a list of values that parse accepts.
func parseList(parse func(string) (any, error)) func(string) (any, error) {
	return func(s string) (any, error) {
		var list []any
		for part := range strings.SplitSeq(s, " ") {
			if part == "" {
				return nil, errList
			}
			v, err := parse(part)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
}

func allBytes(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// isNameByte reports whether c can be in the name of a caveat, and in an atom.
func isNameByte(c byte) bool {
	return isLetter(c) || isDigit(c) || c == '.' || c == '/' || c == '-' || c == '_'
}
