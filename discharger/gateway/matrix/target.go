package matrix

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrTarget is returned for a request target that is malformed or ambiguous.
var ErrTarget = errors.New("request target is malformed")

// Target is the target of a request in origin form.
type Target struct {
	Path string // as sent, percent-encoded; it begins with a slash

	// structured reports whether decoding can change the segments of the path, or the
	// path has parameters or empty segments.
	structured bool
}

// maxDecodings bounds the rounds of decoding a path.
const maxDecodings = 8

// ParseTarget parses a request target as it was sent. The error is [ErrTarget].
//
// Browsers leave characters in a query that RFC 3986 does not allow there, such as
// braces. In a query every visible character of ASCII is accepted, but for the number
// sign, which begins a fragment.
func ParseTarget(text string) (Target, error) {
	path, query, _ := strings.Cut(text, "?")
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		return Target{}, ErrTarget
	}
	t := Target{Path: path}
	dots := false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '%':
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return Target{}, ErrTarget
			}
			if structural[unhex(path[i+1])<<4|unhex(path[i+2])] {
				t.structured = true
			}
		case c == '/':
			if i > 0 && path[i-1] == '/' {
				t.structured = true
			}
		case c == '.':
			dots = dots || path[i-1] == '/'
		case c == ';':
			t.structured = true
		case !pathChars[c]:
			return Target{}, ErrTarget
		}
	}
	for i := 0; i < len(query); i++ {
		if c := query[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return Target{}, ErrTarget
		}
	}
	if !dots && !t.structured {
		return t, nil
	}
	if all, ok := decodings(path); !ok || slices.ContainsFunc(all, hasDotSegment) {
		return Target{}, ErrTarget
	}
	return t, nil
}

// pathChars holds the characters of pchar in RFC 3986 without the percent sign, and the
// slash.
var pathChars = func() (set [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/") {
		set[c] = true
	}
	return set
}()

// structural holds the characters that separate or end segments when they are decoded,
// and the percent sign.
var structural = func() (set [256]bool) {
	for c := range 0x21 {
		set[c] = true
	}
	for _, c := range []byte("%/\\.;?#\x7f\xa0") {
		set[c] = true
	}
	return set
}()

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// decodings returns a path and its repeated decodings. It reports false if there are
// more than maxDecodings.
func decodings(path string) ([]string, bool) {
	all := []string{path}
	for range maxDecodings {
		next := decode(path)
		if next == path {
			return all, true
		}
		all = append(all, next)
		path = next
	}
	return nil, false
}

// decode decodes percent-encoding once. Other percent signs stay.
func decode(s string) string {
	at := strings.IndexByte(s, '%')
	if at < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

// hasDotSegment reports whether a segment is one or two dots, apart from parameters,
// spaces and control characters.
func hasDotSegment(path string) bool {
	for segment := range strings.FieldsFuncSeq(path, isSlash) {
		if s := bare(segment); s == "." || s == ".." {
			return true
		}
	}
	return false
}

// bare returns a segment without parameters, and without blanks at its ends.
func bare(segment string) string {
	segment, _, _ = strings.Cut(segment, ";")
	return strings.TrimFunc(segment, isBlank)
}

// isBlank reports whether a server may strip a character from the ends of a segment: a
// space, a control character, or a byte that is not UTF-8, which can be a space in
// another encoding.
func isBlank(r rune) bool {
	return r <= ' ' || r == 0x7f || r == utf8.RuneError || unicode.IsSpace(r)
}
