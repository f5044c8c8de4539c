// Package wire has the wire contract of the discharger as constants and types:
// paths, parameters, headers, bodies, codes and reasons. PROTOCOL.md beside it is the
// contract in prose, for any language.
//
// It encodes and decodes, and never sends: it imports no HTTP client and no macaroon
// library. Package client sends, package server answers, and package bundle has the
// text that a client presents to its homeserver.
//
// Writers use one spelling of everything and readers accept what the contract allows:
// base64 in four alphabets ([DecodeBase64]), unknown members of answers and events.
// Requests are read strictly: an unknown member of a [RevokeEntry] is an error, since
// it could narrow a revocation.
package wire
