package matrix

import (
	"mime"
	"strings"
)

// ContentType parses the values of the Content-Type header strictly, and returns the
// media type in lower case, without parameters; "": there is no value. It reports false
// for several values, and for a value outside the grammar of RFC 9110, section 8.3.1,
// since lenient parsers may read another type.
func ContentType(values []string) (mediaType string, ok bool) {
	switch len(values) {
	case 0:
		return "", true
	case 1:
	default:
		return "", false
	}
	if strings.ContainsFunc(values[0], func(r rune) bool { return r >= 0x7f || r < ' ' && r != '\t' }) {
		return "", false
	}
	bare, _, _ := strings.Cut(values[0], ";")
	mediaType, params, err := mime.ParseMediaType(values[0])
	if err != nil || !strings.EqualFold(strings.TrimSpace(bare), mediaType) || strings.Count(mediaType, "/") != 1 ||
		strings.HasPrefix(bare, " ") || strings.HasPrefix(bare, "\t") {
		return "", false
	}
	if strings.Contains(values[0], "*") && mediaType != "*/*" {
		return "", false // parameter continuations, RFC 2231
	}
	if strings.Count(unquoted(values[0]), "=") != len(params) {
		return "", false // a parameter occurs twice
	}
	return mediaType, true
}

// unquoted returns a header value without its quoted strings.
func unquoted(s string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
