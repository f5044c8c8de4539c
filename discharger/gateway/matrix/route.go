package matrix

import "strings"

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
