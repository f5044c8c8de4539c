// Package caveat seals and opens the third-party caveats that carry a session
// from a homeserver to the discharger, and reads and writes the condition
// inside them.
//
// # What a caveat is
//
// A homeserver mints a macaroon and adds one caveat to it that only the
// discharger can discharge. The caveat's id is a NaCl box (X25519, XSalsa20,
// Poly1305) from the homeserver's key to the discharger's. Inside are the root
// key with which the discharge has to be made and the condition that has to
// hold. Three encodings exist in the field, all of the macaroon bakery; this
// package reads and writes all of them. The first byte tells which one it is.
//
//	V1, text: standard base64 of a JSON object, so that the first byte is 'e'
//
//	    {"ThirdPartyPublicKey": base64, 32 bytes: the discharger
//	     "FirstPartyPublicKey": base64, 32 bytes: the homeserver
//	     "Nonce":               base64, 24 bytes
//	     "Id":                  base64 of the box over
//	                            {"RootKey": base64, "Condition": string}}
//
//	V2 and V3, binary
//
//	    0    version, 2 or 3          1 byte
//	    1    discharger's public key  its first 4 bytes
//	    5    homeserver's public key  32 bytes
//	    37   nonce                    24 bytes
//	    61   box over
//	             version, once more   1 byte
//	             root key             uvarint length, then the bytes
//	             namespace, V3 only   uvarint length, then "uri:prefix uri:prefix …"
//	             condition            the rest
//
// A bakery client usually sends the V3 form beside a short id of its own. Here
// the whole of it is the caveat id, as with V2, so that the macaroon needs
// nothing beside itself.
//
// # What opening promises
//
// Who minted a caveat is known from the homeserver's public key, and that is
// looked up, byte for byte, among the registered keys before anything is
// decrypted. Two attacks end there. X25519 ignores the top bit of a public
// key, so one key has two spellings; and with a point of low order, such as
// all zeros, anyone at all can compute the shared key and so make a box that
// opens. Keys of both kinds are refused when an [Opener] is made, and so are
// two keys that agree with ours on the same secret, for then one homeserver's
// caveats could be passed off as the other's.
//
// The box authenticates the root key, the condition, the nonce and both keys.
// It does so deniably: a caveat proves to the discharger that the homeserver
// made it, and proves nothing to anyone else.
//
// Input is hostile. Its size is bounded before anything looks at it; every
// byte is accounted for; a caveat that was cut short, lengthened or changed in
// any bit gives an error, and with an error comes the zero value. A binary
// caveat from someone unknown costs one comparison and one map lookup.
//
// An id names nothing: the JSON of V1 can be written in more than one way, and
// one session may have many caveats. What names the session is in the condition.
//
// # What it costs
//
// The expensive part of a box is the X25519 scalar multiplication. An
// [Opener] does it once for every pair of own key and homeserver, when it is
// made, and never again; a [Sealer] likewise.
//
// # The condition
//
// The condition is the word "session", a space, and one JSON object, described
// at [Condition]. No other condition is known here: "need-declared" and
// "local", which the bakery gives a meaning, are refused like any other word.
//
// # What it never does
//
// It keeps no state, reads no clock, does no I/O and logs nothing. No error
// contains a private key or a root key; those and the shared keys print as
// REDACTED or not at all.
package caveat

import "errors"

// Version is the encoding of a caveat. The zero value is none.
type Version uint8

// The three encodings, as the bakery numbers them.
const (
	V1 Version = 1 // base64 of JSON, from the bakery's first days
	V2 Version = 2 // binary
	V3 Version = 3 // binary, with the namespace of first-party conditions
)

// The sizes of the largest caveats that are looked at, in bytes. Both leave
// ample room for a condition of the largest size.
const (
	MaxTextSize   = 32 << 10 // V1
	MaxBinarySize = 12 << 10 // V2 and V3
)

// What [Opener.Open] and [ParseCondition] fail with, for errors.Is. The text
// of the error says more, and never anything secret.
var (
	// ErrNotOurs: the caveat is addressed to a key that is not in the ring. It
	// may be of another service, or newer than the ring.
	ErrNotOurs = errors.New("caveat is addressed to an unknown key")
	// ErrRetired: it is addressed to a key that was in the ring and was taken
	// out, so it cannot be opened any more.
	ErrRetired = errors.New("caveat is addressed to a retired key")
	// ErrUnknownHomeserver: the key it comes from is not registered. It may be
	// newer than the registration.
	ErrUnknownHomeserver = errors.New("caveat comes from an unknown homeserver")
	// ErrMalformed: it is not a caveat, or it was changed on the way, or what
	// is in it is not as it has to be.
	ErrMalformed = errors.New("caveat is malformed")
)

// ErrWeakKey is what a key fails with that offers no protection: a public key
// of low order or in a spelling other than the canonical one, or a private key
// of zeros.
var ErrWeakKey = errors.New("key is weak")

const (
	keySize    = 32
	nonceSize  = 24
	prefixSize = 4 // of the discharger's key in V2 and V3

	prefixAt = 1
	keyAt    = prefixAt + prefixSize
	nonceAt  = keyAt + keySize
	boxAt    = nonceAt + nonceSize
)
