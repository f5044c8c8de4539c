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
