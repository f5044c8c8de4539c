// Package chain is what macaroons are made of: the chain of keyed hashes that
// is a macaroon's signature, and binary format 2, in which they travel.
//
// The macaroon library has both. Who checks or mints one for every request
// does without its allocations here: hashes are computed on the stack, and a
// [Macaroon] is slices of what was read. Tests compare the two.
//
// It never decides anything. Reading is strict, so that a macaroon has one
// encoding; it never panics, and allocates nothing that the input asks for.
package rawmacaroon

import (
	"crypto/sha256"
	"crypto/subtle"
)

// Size is the size of keys and signatures, in bytes.
const Size = sha256.Size

// Hash is the HMAC-SHA256 of the parts, put together. A key is never longer
// than a block here, so it is padded and not hashed.
func Hash(key *[Size]byte, parts ...[]byte) [Size]byte {
	// One block of padded key, and room for what is usually hashed.
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

// Hash2 hashes two things that must not be confused with one.
func Hash2(key *[Size]byte, a, b []byte) [Size]byte {
	first, second := Hash(key, a), Hash(key, b)
	return Hash(key, first[:], second[:])
}

// Key makes the first key of a macaroon's chain from its root key, which may
// have any length.
func Key(rootKey []byte) [Size]byte {
	generator := [Size]byte([]byte("macaroons-key-generator\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	return Hash(&generator, rootKey)
}

// Bind is the signature of a discharge that is bound to an access macaroon,
// given the signatures of both.
func Bind(access, discharge *[Size]byte) [Size]byte {
	if *access == *discharge {
		return *discharge
	}
	return Hash2(new([Size]byte), access[:], discharge[:])
}

// Equal compares two signatures in constant time.
func Equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
