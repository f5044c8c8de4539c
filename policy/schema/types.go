package schema

import (
	"net/netip"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// A valueType is the type of a value, in a caveat and in a check.
type valueType struct {
	name    string                    // in a schema
	text    string                    // form of a value, for the reference
	example string                    // a value that parses
	parse   func(string) (any, error) // in a caveat; nil: no caveat can have the type; errors do not contain the value
	cel     *cel.Type                 // in a check; nil in other formats than 1
	native  func(any) (any, bool)     // in a Request; nil: no context value can have the type
	inList  bool                      // list(T) exists
	spaces  bool                      // a value may have spaces, so that no caveat can be a list of it
}

// Go types of values: string, bool, int64, time.Time, time.Duration, netip.Addr,
// netip.Prefix, and []any for lists.

// flagType is the type without a written value.
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
			parse: parseTime, cel: cel.TimestampType, native: nativeTime, inList: true},
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

// withLists appends list(T) for each T with inList.
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

// toCEL returns the CEL value of v, which has one of the Go types above.
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

// maxContextText and maxContextItems bound a context value, as max_len bounds the
// value of a caveat.
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

// nativeTime rejects the zero time, which a caller forgot to set.
func nativeTime(v any) (any, bool) {
	t, ok := v.(time.Time)
	return t, ok && !t.IsZero() && inYears(t)
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

// plainAddr returns addr without a zone, and as IPv4 if it is that in IPv6 form.
func plainAddr(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

func nativeNetwork(v any) (any, bool) {
	p, ok := v.(netip.Prefix)
	if !ok {
		return nil, false
	}
	return plainPrefix(p)
}

// nativeList accepts a []any, or a []string if elem accepts strings.
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
