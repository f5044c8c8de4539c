package caveat

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// stdNamespace is the URI of the bakery's own first-party conditions, to which
// time-before belongs.
const stdNamespace = "std"

// sealedNamespace is the namespace of sealed V3 caveats: conditions of stdNamespace
// have no prefix.
const sealedNamespace = stdNamespace + ":"

// stdPrefix returns the prefix of the std namespace in a list of "uri:prefix" separated
// by white space. The last colon separates, since a URI may have some. A list without std
// is an error: the homeserver would not understand the time limit of the discharge.
func stdPrefix(namespace []byte) (string, error) {
	if string(namespace) == sealedNamespace {
		return "", nil
	}
	if !utf8.Valid(namespace) {
		return "", errors.New("namespace is not UTF-8")
	}
	prefixes := make(map[string]string)
	for field := range bytes.FieldsSeq(namespace) {
		colon := bytes.LastIndexByte(field, ':')
		if colon <= 0 {
			return "", errors.New("namespace has a field that is not uri:prefix")
		}
		uri := string(field[:colon])
		if _, ok := prefixes[uri]; ok {
			return "", errors.New("namespace has a uri twice")
		}
		prefixes[uri] = string(field[colon+1:])
	}
	prefix, ok := prefixes[stdNamespace]
	if !ok {
		return "", errors.New("namespace lacks std")
	}
	return prefix, nil
}
