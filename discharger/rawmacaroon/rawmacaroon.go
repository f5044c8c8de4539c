// Package rawmacaroon implements the parts that macaroons consist of: the chain of
// HMACs that is a macaroon's signature, binary format 2, and the first-party
// conditions that this project defines.
//
// The library gopkg.in/macaroon.v2 implements the first two as well. This package
// is for code that verifies or mints a macaroon in every request: hashes are
// computed on the stack, and a [Macaroon] consists of slices of the parsed bytes.
// Tests compare both implementations.
//
// A signature is computed like this, where H is HMAC-SHA256:
//
//	key       = H("macaroons-key-generator", root key)            Key
//	signature = H(key, identifier)                                Hash
//	          = H(signature, condition)                           Hash, first-party caveat
//	          = H(signature, H(signature, vid) ‖ H(signature, id))  Hash2, third-party caveat
//	bound     = H(0, H(0, access) ‖ H(0, discharge))              Bind
//
// The package decides nothing: it checks neither signatures nor conditions.
// Parsing is strict, so that a macaroon has one encoding. It never panics, and
// the input cannot make it allocate.
package rawmacaroon

import (
	"crypto/sha256"
	"crypto/subtle"
)

// Size is the size of keys and signatures, in bytes.
const Size = sha256.Size

// Hash returns the HMAC-SHA256 of the concatenated parts.
func Hash(key *[Size]byte, parts ...[]byte) [Size]byte {
	// One block of padded key, and room for a usual message. The key is shorter
	// than a block, so it is padded and not hashed.
	var buf [sha256.BlockSize + 448]byte
	inner := buf[:sha256.BlockSize]
	for i := range inner {
		inner[i] = 0x36
	}
	for i, b := range key {
		inner[i] ^= b
	}
	for _, p := range parts {
		inner = append(inner, p...)
	}
	sum := sha256.Sum256(inner)
	var outer [sha256.BlockSize + Size]byte
	for i := range outer[:sha256.BlockSize] {
		outer[i] = 0x5c
	}
	for i, b := range key {
		outer[i] ^= b
	}
	copy(outer[sha256.BlockSize:], sum[:])
	return sha256.Sum256(outer[:])
}

// Hash2 returns the hash of two messages, distinct from the hash of any one.
func Hash2(key *[Size]byte, a, b []byte) [Size]byte {
	first, second := Hash(key, a), Hash(key, b)
	return Hash(key, first[:], second[:])
}

// Key returns the first key of a macaroon's chain for a root key of any length.
func Key(rootKey []byte) [Size]byte {
	generator := [Size]byte([]byte("macaroons-key-generator\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	return Hash(&generator, rootKey)
}

// Bind returns the signature of a discharge bound to an access macaroon, from the
// signatures of both.
func Bind(access, discharge *[Size]byte) [Size]byte {
	if *access == *discharge {
		return *discharge
	}
	return Hash2(new([Size]byte), access[:], discharge[:])
}

// Equal reports whether two signatures are equal, in constant time.
func Equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
