// Package caveat seals and opens the third-party caveats that carry a session from a
// homeserver to the discharger, and encodes and parses the condition inside them.
//
// # Format
//
// A homeserver mints a macaroon and adds one caveat to it that only the discharger can
// discharge. The caveat's id is a NaCl box (X25519, XSalsa20, Poly1305) from the
// homeserver's key to the discharger's. The box contains the root key of the discharge
// and the condition that has to hold. Three encodings exist, all of the macaroon bakery;
// this package reads and writes all of them. The first byte distinguishes them.
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
// all of it is the caveat id, as with V2, so that the macaroon is self-contained.
//
// # Guarantees
//
// The homeserver is identified by its public key, which is compared byte for byte with
// the registered keys before anything is decrypted. That prevents two attacks. X25519
// ignores the top bit of a public key, so one key has two spellings; and with a point of
// low order, such as all zeros, the shared key is public, so that any forger can make a
// box that opens. An [Opener] refuses keys of both kinds, and also two keys that agree
// with its own on the same secret: one homeserver's caveats would pass for the other's.
//
// The box authenticates the root key, the condition, the nonce and both keys.
// It does so deniably: a caveat proves to the discharger that the homeserver
// made it, and proves nothing to third parties.
//
// Input is hostile. Its size is checked first, every byte is accounted for, and a caveat
// that was truncated, extended or changed in any bit returns an error with the zero
// value. A binary caveat of an unregistered key costs one comparison and one map look-up.
//
// A caveat id does not identify a session: the JSON of V1 has many spellings, and
// one session may have many caveats. [Condition.Session] does.
//
// # Cost
//
// The expensive part of a box is the X25519 scalar multiplication. An [Opener] does it
// once for every pair of own key and homeserver, when it is made; so does a [Sealer].
//
// # The condition
//
// The condition is the word "session", a space, and one JSON object, described at
// [Condition]. Other conditions are malformed, the bakery's "need-declared" and
// "local" included.
//
// # Limits
//
// The package keeps no state, reads no clock, does no I/O and logs nothing. No error
// contains a private key or a root key; those and the shared keys print as REDACTED
// or not at all.
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

// The greatest sizes of caveats, in bytes. Both exceed the size of a caveat with the
// longest condition.
const (
	MaxTextSize   = 32 << 10 // V1
	MaxBinarySize = 12 << 10 // V2 and V3
)

// Errors of [Opener.Open] and [ParseCondition], for errors.Is. The text of the error
// has details, none of them secret.
var (
	// ErrNotOurs: the caveat is addressed to a key that is not in the ring: that of
	// another discharger, or a key newer than the ring.
	ErrNotOurs = errors.New("caveat is addressed to an unknown key")
	// ErrRetired: the caveat is addressed to a retired key and cannot be opened any more.
	ErrRetired = errors.New("caveat is addressed to a retired key")
	// ErrUnknownHomeserver: the homeserver's key is not registered. It may be newer
	// than the registration.
	ErrUnknownHomeserver = errors.New("caveat comes from an unknown homeserver")
	// ErrMalformed: not a caveat, a damaged one, or one with malformed content.
	ErrMalformed = errors.New("caveat is malformed")
)

// ErrWeakKey is the error for a key that protects nothing: a public key of low order
// or in a spelling other than the canonical one, or a private key of zeros.
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
