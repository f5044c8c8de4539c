package schema

import (
	"net/netip"
	"time"
	"unicode/utf8"
)

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
