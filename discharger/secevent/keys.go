package secevent

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"

	"github.com/discharger/discharger/discharger/secret"
)

// Keys are the keys that sign tokens, and their public halves as a JSON Web Key Set.
type Keys struct {
	signing *rsa.PrivateKey
	id      string // of the signing key
	jwks    []byte
}

// minBits is the least length of a key, by the CAEP interoperability profile.
const minBits = 2048

// jwk is the public half of a key (RFC 7517).
type jwk struct {
	Type      string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	ID        string `json:"kid"`
	N         string `json:"n"`
	E         string `json:"e"`
}

// NewKeys requires at least one key. The first signs, and all are published, so that
// receivers have the next key before it is used, and the last one after.
func NewKeys(keys []*rsa.PrivateKey) (*Keys, error) {
	if len(keys) == 0 {
		return nil, errors.New("signing key is missing")
	}
	set := struct {
		Keys []jwk `json:"keys"`
	}{}
	for i, key := range keys {
		if n := key.N.BitLen(); n < minBits {
			return nil, fmt.Errorf("key %d has %d bits, want %d or more", i+1, n, minBits)
		}
		set.Keys = append(set.Keys, public(&key.PublicKey))
	}
	jwks, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("write keys: %w", err)
	}
	return &Keys{signing: keys[0], id: set.Keys[0].ID, jwks: jwks}, nil
}

// KeyID returns the kid of a key in tokens and in the key set: its thumbprint (RFC
// 7638) in base64url.
func KeyID(key *rsa.PublicKey) string { return public(key).ID }

// public returns a public key in the form of the key set.
func public(key *rsa.PublicKey) jwk {
	k := jwk{
		Type: "RSA", Use: "sig", Algorithm: "RS256",
		N: base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		E: base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}
	sum := sha256.Sum256([]byte(`{"e":"` + k.E + `","kty":"RSA","n":"` + k.N + `"}`))
	k.ID = base64.RawURLEncoding.EncodeToString(sum[:])
	return k
}

// JWKS returns the public halves of all keys as a JSON Web Key Set (RFC 7517). The
// caller must not modify it.
func (k *Keys) JWKS() []byte { return k.jwks }

// Format writes REDACTED for every verb.
func (*Keys) Format(s fmt.State, _ rune) { io.WriteString(s, secret.Redacted) }

// LogValue returns REDACTED.
func (*Keys) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }

// MarshalText returns REDACTED.
func (*Keys) MarshalText() ([]byte, error) { return []byte(secret.Redacted), nil }
