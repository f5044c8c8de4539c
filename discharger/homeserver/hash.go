package homeserver

import (
	"crypto/sha256"

	"golang.org/x/crypto/nacl/secretbox"
)

// This file is the cryptography of macaroons as the library has it, without
// its allocations: HMAC-SHA256 on the stack. Tests compare both.

const hashSize = sha256.Size

// keyedHash is the HMAC-SHA256 of the parts, put together. Keys are never
// longer than a block here, so the key is padded, not hashed.
func keyedHash(key *[32]byte, parts ...[]byte) [hashSize]byte {
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
	var outer [sha256.BlockSize + hashSize]byte
	for i := range outer[:sha256.BlockSize] {
		outer[i] = 0x5c
	}
	for i, b := range key {
		outer[i] ^= b
	}
	copy(outer[sha256.BlockSize:], sum[:])
	return sha256.Sum256(outer[:])
}

// keyedHash2 hashes two things that must not be confused with one.
func keyedHash2(key *[32]byte, a, b []byte) [hashSize]byte {
	first, second := keyedHash(key, a), keyedHash(key, b)
	return keyedHash(key, first[:], second[:])
}

// macaroonKey makes the first key of a macaroon's chain from its root key.
func macaroonKey(rootKey []byte) [hashSize]byte {
	generator := [32]byte([]byte("macaroons-key-generator\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	return keyedHash(&generator, rootKey)
}

// boundTo is the signature of a discharge that is bound to an access macaroon.
func boundTo(access, discharge *[hashSize]byte) [hashSize]byte {
	if *access == *discharge {
		return *discharge
	}
	return keyedHash2(new([32]byte), access[:], discharge[:])
}

const (
	nonceSize = 24
	vidSize   = nonceSize + secretbox.Overhead + hashSize
)

// openVerificationID finds the first key of a discharge's chain again. It was
// encrypted under the signature before the caveat.
func openVerificationID(sig *[hashSize]byte, vid []byte) (key [hashSize]byte, ok bool) {
	if len(vid) != vidSize {
		return key, false
	}
	nonce := [nonceSize]byte(vid)
	_, ok = secretbox.Open(key[:0], vid[nonceSize:], &nonce, sig)
	return key, ok
}
