// Package matrix parses the targets of requests to a Matrix homeserver, and holds the
// table of its routes.
//
// # Targets
//
// A gateway decides by the target of a request whether its answer carries a token, and
// whether a narrowed token may be used for it. Behind the gateway, proxies may resolve
// dot segments or decode percent-encoding, and homeservers may cut the target at a
// number sign or fold case. A target that could become another route there is refused.
//
// [ParseTarget] accepts the origin form of RFC 9112, section 3.2.1, with the
// characters of RFC 3986 in the path, and no dot segment in any decoding.
// [Target.Match] compares the fixed segments of a route byte for byte. An encoded
// slash is part of an identifier, and nowhere else.
//
// Every other target is passed on unchanged: signatures between servers cover it, and
// homeservers differ in their parsers.
//
// # Routes
//
// A [Route] has a method and a pattern. It states the effect of the request on tokens
// and sessions ([Effect]), the narrowed tokens that it accepts ([Narrowing]), whether it
// needs a token, and the kind of its body ([Body]). The table is the union of the routes
// that Synapse 1.163 and Dendrite 0.15 register, and of version 1.18 of the
// client-server API.
//
// A target that is not in the table belongs to an extension. It is passed on for
// full tokens only, and is refused if its last segment, decoded and in lower case,
// is login, register, refresh or logout.
package matrix

import (
	"mime"
	"strings"
)

// Route is one method of one pattern of paths. A route is immutable.
type Route struct {
	Method  string // GET stands for HEAD too
	Pattern string // {name} stands for one segment that is an identifier
	Effect  Effect
	Narrow  Narrowing // the narrowed tokens that may be used
	// Public reports whether the homeserver answers without a token, and does not
	// look at one that is sent.
	Public bool
	Body   Body
	// Poll reports whether the request is a long poll.
	Poll bool
	// Events reports whether the answer holds events, which must be of the room in the
	// path for a token narrowed to it.
	Events bool

	names []string // of the identifiers, in order
}

// Effect is the effect of a request on tokens and sessions.
type Effect uint8

// The effects. The answers of Login to AdminLogin carry tokens, and the requests
// from Logout to DeleteDevices end sessions.
const (
	Forward Effect = iota // none
	Opaque                // tokens in the request are not users' of this homeserver

	Login
	Register
	Refresh
	AdminRegister
	AdminLogin

	Logout
	LogoutAll
	Password
	Deactivate
	DeleteDevice
	DeleteDevices

	Versions  // lists the versions of the API
	WellKnown // names the address of the homeserver
)

// HandsOut reports whether the answers carry tokens.
func (e Effect) HandsOut() bool { return e >= Login && e <= AdminLogin }

// Ends reports whether the request ends sessions.
func (e Effect) Ends() bool { return e >= Logout && e <= DeleteDevices }

// guarded reports whether another reading of the target must not have this effect.
func (e Effect) guarded() bool { return e.HandsOut() || e.Ends() }

// Narrowing is a set of conditions of a token.
type Narrowing uint8

// The conditions.
const (
	Limited  Narrowing = 1 << iota // in time, or to addresses
	ReadOnly                       // to reading
	InRoom                         // to one room
)

// Has reports whether every condition of o is in the set.
func (n Narrowing) Has(o Narrowing) bool { return n&o == o }

// Body is the kind of body that a route takes.
type Body uint8

// The kinds of bodies.
const (
	BodyJSON Body = iota // JSON, under any of the content types that clients send it with
	BodyForm             // a form of a page that the homeserver shows
	BodyAny              // bytes, under any content type
)

// TakesType reports whether a route takes bodies of a media type, which is in lower case
// and without parameters; "": the request has none.
func (b Body) TakesType(mediaType string) bool {
	switch mediaType {
	case "", "application/json", "text/plain", "application/octet-stream", TypeForm:
		return true
	case TypeMultipart:
		return b == BodyAny
	}
	return b == BodyAny || strings.HasSuffix(mediaType, "+json")
}

// Media types of bodies in which homeservers look for parameters.
const (
	TypeForm      = "application/x-www-form-urlencoded" // curl sends it with every body
	TypeMultipart = "multipart/form-data"
)

// Error codes of Matrix that the gateway sends or distinguishes.
const (
	CodeMissingToken  = "M_MISSING_TOKEN"
	CodeUnknownToken  = "M_UNKNOWN_TOKEN"
	CodeForbidden     = "M_FORBIDDEN"
	CodeGuest         = "M_GUEST_ACCESS_FORBIDDEN"
	CodeUnrecognized  = "M_UNRECOGNIZED"
	CodeNotJSON       = "M_NOT_JSON"
	CodeBadJSON       = "M_BAD_JSON"
	CodeInvalidParam  = "M_INVALID_PARAM"
	CodeMissingParam  = "M_MISSING_PARAM"
	CodeLimitExceeded = "M_LIMIT_EXCEEDED"
	CodeTooLarge      = "M_TOO_LARGE"
	CodeUnknown       = "M_UNKNOWN"
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
