package schema

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// A valueType is a type that a value can have: how it is written in a caveat,
// and what it is in a check.
type valueType struct {
	name    string                    // as a schema writes it
	text    string                    // what a value looks like, for the reference
	example string                    // a value that parses
	parse   func(string) (any, error) // from a caveat, nil when none can have the type; errors hold nothing of the value
	cel     *cel.Type                 // in a check; nil in Boulangerie schemas
	native  func(any) (any, bool)     // from a Request; nil when no context value can have the type
	inList  bool                      // list(T) exists
	spaces  bool                      // may have spaces, so a caveat cannot hold a list of it
}

// The Go types behind the values: string, bool, int64, time.Time,
// time.Duration, netip.Addr, netip.Prefix, and for lists []any.

// flagType is the type whose values are not written.
const flagType = "flag"

// version1Types returns the types of format 1.
func version1Types() []valueType {
	return withLists([]valueType{
		{name: flagType, text: "no value: the name alone", parse: parseFlag, cel: cel.BoolType},
		{name: "string", text: "text without control characters", example: "some text",
			parse: parseText, cel: cel.StringType, native: nativeText, inList: true, spaces: true},
		{name: "atom", text: "letters, digits and `.` `/` `-` `_`", example: "read/only",
			parse: parseAtom, cel: cel.StringType, inList: true},
		{name: "bool", text: "`true` or `false`", example: "true",
			parse: parseBool, cel: cel.BoolType, native: nativeOf[bool], inList: true},
		{name: "int", text: "a whole number of 64 bits, without `+` or leading zeros", example: "42",
			parse: parseInt, cel: cel.IntType, native: nativeInt, inList: true},
		{name: "time", text: "an RFC 3339 time", example: "2030-01-02T15:04:05Z",
			parse: parseTime, cel: cel.TimestampType, native: nativeOf[time.Time], inList: true},
		{name: "time_ms", text: "a time in milliseconds since 1970", example: "1893596645000",
			parse: parseMillis, cel: cel.TimestampType, inList: true},
		{name: "duration", text: "a duration such as `90s` or `1h30m`", example: "1h30m",
			parse: parseDuration, cel: cel.DurationType, native: nativeOf[time.Duration], inList: true},
		{name: "ip", text: "an IP address", example: "203.0.113.7",
			parse: parseIP, cel: ext.IPType, native: nativeIP, inList: true},
		{name: "network", text: "an IP address or a CIDR range", example: "203.0.113.0/24",
			parse: parseNetwork, cel: ext.CIDRType, native: nativeNetwork, inList: true},
		{name: "uri", text: "an absolute URI (RFC 3986)", example: "https://example.org/path",
			parse: parseAbsoluteURI, cel: cel.StringType, inList: true},
		{name: "user_id", text: "a Matrix user id", example: "@alice:example.org",
			parse: parseUserID, cel: cel.StringType, inList: true},
	})
}

// withLists appends list(T) for each T that may be in one.
func withLists(scalars []valueType) []valueType {
	all := scalars
	for _, t := range scalars {
		if !t.inList {
			continue
		}
		list := valueType{
			name:    "list(" + t.name + ")",
			text:    t.text + "; one or more, with one space between",
			example: t.example + " " + t.example,
			cel:     cel.ListType(t.cel),
		}
		if !t.spaces {
			list.parse = parseList(t.parse)
		}
		if t.native != nil {
			list.native = nativeList(t.native)
		}
		all = append(all, list)
	}
	return all
}

// toCEL returns a value as checks see it. v has one of the Go types above.
func toCEL(v any) ref.Val {
	switch v := v.(type) {
	case string:
		return types.String(v)
	case bool:
		return types.Bool(v)
	case int64:
		return types.Int(v)
	case time.Time:
		return types.Timestamp{Time: v}
	case time.Duration:
		return types.Duration{Duration: v}
	case netip.Addr:
		return ext.IP{Addr: v}
	case netip.Prefix:
		return ext.CIDR{Prefix: v}
	case []any:
		elems := make([]ref.Val, len(v))
		for i, e := range v {
			elems[i] = toCEL(e)
		}
		return types.NewRefValList(types.DefaultTypeAdapter, elems)
	}
	return types.NewErr("value of an unknown type")
}

// Why a value does not parse. None of these quotes the value.
var (
	errFlag     = errors.New("takes no value")
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

func parseFlag(s string) (any, error) {
	if s != "" {
		return nil, errFlag
	}
	return true, nil
}

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
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return nil, errBool
}

func parseInt(s string) (any, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s {
		return nil, errInt
	}
	return n, nil
}

func parseTime(s string) (any, error) {
	var t time.Time
	if err := t.UnmarshalText([]byte(s)); err != nil || !inYears(t) {
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

// inYears says whether checks can hold t: CEL's times are RFC 3339's.
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

// plainPrefix clears the host bits of p and turns a range of IPv4 addresses
// written as IPv6 into what it is. A range that holds those and others beside
// them has no plain form.
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
	if u, ok := splitURI(s); !ok || u.scheme == "" || !allPathChars(u.query, "/?") {
		return nil, errURI
	}
	return s, nil
}

// parseUserID accepts what the Matrix specification lets servers meet: any
// printable ASCII before the colon, and a server name after it.
func parseUserID(s string) (any, error) {
	local, server, found := strings.Cut(s, ":")
	if !found || len(s) > 255 || len(local) < 2 || local[0] != '@' ||
		!allBytes(local, func(c byte) bool { return c > ' ' && c < 0x7f }) || !isServerName(server) {
		return nil, errUserID
	}
	return s, nil
}

// isServerName says whether s is a host, a dotted or bracketed address, with
// or without a port.
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

// parseList returns the parser of a list of what parse reads.
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

// maxContextText and maxContextItems bound what a context value brings into a
// check, as max_len bounds the value of a caveat.
const (
	maxContextText  = 1024
	maxContextItems = 64
)

func nativeOf[T any](v any) (any, bool) {
	t, ok := v.(T)
	return t, ok
}

func nativeText(v any) (any, bool) {
	s, ok := v.(string)
	return s, ok && len(s) <= maxContextText && utf8.ValidString(s)
}

func nativeInt(v any) (any, bool) {
	if n, ok := v.(int); ok {
		return int64(n), true
	}
	return nativeOf[int64](v)
}

func nativeIP(v any) (any, bool) {
	addr, ok := v.(netip.Addr)
	return plainAddr(addr), ok && addr.IsValid()
}

// plainAddr is addr as checks see it: IPv4 as IPv4, and without a zone.
func plainAddr(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

func nativeNetwork(v any) (any, bool) {
	p, ok := v.(netip.Prefix)
	if !ok {
		return nil, false
	}
	return plainPrefix(p)
}

// nativeList takes a []any, or a []string when that is what elem takes.
func nativeList(elem func(any) (any, bool)) func(any) (any, bool) {
	return func(v any) (any, bool) {
		items, ok := v.([]any)
		if texts, isText := v.([]string); isText {
			items, ok = make([]any, 0, len(texts)), true
			for _, t := range texts {
				items = append(items, t)
			}
		}
		if !ok || len(items) > maxContextItems {
			return nil, false
		}
		list := make([]any, len(items))
		for i, item := range items {
			if list[i], ok = elem(item); !ok {
				return nil, false
			}
		}
		return list, true
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

// isNameByte says whether c can be in the name of a caveat, and in an atom.
func isNameByte(c byte) bool {
	return isLetter(c) || isDigit(c) || c == '.' || c == '/' || c == '-' || c == '_'
}
