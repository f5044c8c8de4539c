package caveat

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"

	"github.com/discharger/discharger/discharger/secret"
)

// PublicKey is an X25519 public key, in the 32 bytes of RFC 7748. Equal keys
// are equal arrays. The zero value is not a usable key.
type PublicKey [keySize]byte

// ParsePublicKey decodes a key from base64: in the standard or the URL alphabet,
// padded or not, as the bakery does. It does not check the strength of the key; see
// [CheckPublicKey]. The error does not contain the text, which may be a private key
// in the wrong place.
func ParsePublicKey(s string) (PublicKey, error) {
	key, err := secret.ParseKey(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	return PublicKey(key), nil
}

// String returns the key in standard base64, padded: 44 characters.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MarshalText is String.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is [ParsePublicKey]. On error the key is unchanged.
func (k *PublicKey) UnmarshalText(text []byte) error {
	key, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	*k = key
	return nil
}

// CheckPublicKey returns an error that matches [ErrWeakKey] for a key that must not be
// trusted: one that is not the canonical spelling of its point (2²⁵⁵-19 or above, or with
// the top bit set), and one of low order, with which all keys agree on the same secret.
func CheckPublicKey(key PublicKey) error {
	if !canonical(key) {
		return fmt.Errorf("%w: public key is not in canonical form", ErrWeakKey)
	}
	point, err := ecdh.X25519().NewPublicKey(key[:])
	if err != nil {
		return fmt.Errorf("check public key: %w", err)
	}
	scalar, err := probe()
	if err != nil {
		return fmt.Errorf("check public key: %w", err)
	}
	if _, err := scalar.ECDH(point); err != nil {
		return fmt.Errorf("%w: public key is of low order", ErrWeakKey)
	}
	return nil
}

// probe is the scalar that detects points of low order. Any scalar does: clamping
// makes all of them multiples of the cofactor, which take every point of low order to
// zero, and ECDH refuses zero. It is made once: services with thousands of homeservers
// check thousands of keys when they start.
var probe = sync.OnceValues(func() (*ecdh.PrivateKey, error) {
	return ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, keySize))
})

// canonical reports whether the little-endian number is below 2²⁵⁵-19, whose
// bytes are ed ff … ff 7f.
func canonical(key PublicKey) bool {
	if key[31] != 0x7f {
		return key[31] < 0x7f
	}
	for _, b := range key[1:31] {
		if b != 0xff {
			return true
		}
	}
	return key[0] < 0xed
}

// PrivateKey is an X25519 private key. It prints, logs and marshals as
// REDACTED; only Encode shows it.
type PrivateKey struct{ secret.Key }

// ParsePrivateKey decodes the text of Encode, in any of the four base64 alphabets. The error does not contain the text.
func ParsePrivateKey(s string) (PrivateKey, error) {
	key, err := secret.ParseKey(s)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("parse private key: %w", err)
	}
	return PrivateKey{key}, nil
}

// KeyPair is a private key and its public key. Make one with [GenerateKey] or
// [NewKeyPair]; check a pair from elsewhere with Validate.
type KeyPair struct {
	Public  PublicKey
	Private PrivateKey
}

// GenerateKey returns a new random key pair.
func GenerateKey() KeyPair {
	pair, err := NewKeyPair(PrivateKey{secret.NewKey()})
	if err != nil {
		panic("caveat: " + err.Error()) // only zeros are refused
	}
	return pair
}

// NewKeyPair returns the pair of a private key. A key of zeros is [ErrWeakKey].
func NewKeyPair(private PrivateKey) (KeyPair, error) {
	if private == (PrivateKey{}) {
		return KeyPair{}, fmt.Errorf("%w: private key is all zeros", ErrWeakKey)
	}
	scalar, err := ecdh.X25519().NewPrivateKey(private.Key[:])
	if err != nil {
		return KeyPair{}, errors.New("derive public key: private key is unusable")
	}
	return KeyPair{Public: PublicKey(scalar.PublicKey().Bytes()), Private: private}, nil
}

// Validate returns an error unless the public key is that of the private key.
func (k KeyPair) Validate() error {
	derived, err := NewKeyPair(k.Private)
	if err != nil {
		return err
	}
	if derived.Public != k.Public {
		return errors.New("public key does not belong to the private key")
	}
	return nil
}
