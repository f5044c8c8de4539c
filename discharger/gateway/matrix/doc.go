// Package matrix reads the targets of requests to a Matrix homeserver, and holds
// the table of its routes.
//
// # Targets
//
// A gateway decides by the target of a request whether its answer carries a
// token, and whether a narrowed token may be used for it. Behind the gateway the
// same target is read again, by proxies that resolve dot segments or decode
// percent-encoding, and by homeservers that cut at a number sign or fold case. A
// target that could be read there as another route than here is refused.
//
// [ParseTarget] accepts the origin form of RFC 9112, section 3.2.1, with the
// characters of RFC 3986 in the path, and no dot segment in any decoding.
// [Target.Match] compares the fixed segments of a route byte for byte. An encoded
// slash is part of an identifier, and nowhere else.
//
// Every other target passes as it is, byte for byte: signatures between servers
// cover it, and homeservers differ in how they read it.
//
// # Routes
//
// A [Route] has a method and a pattern, and states what its answer does to tokens
// ([Effect]), which narrowed tokens may be used for it ([Narrowing]), whether it
// needs a token at all, and the body that it takes ([Body]). The table is the union
// of the routes of Synapse 1.163, as it registers them, of Dendrite 0.15, and of
// version 1.18 of the client-server API.
//
// A target that is not in the table belongs to an extension. It is passed on for
// full tokens only, and is refused if its last segment, decoded and in lower case,
// is login, register, refresh or logout.
package matrix
