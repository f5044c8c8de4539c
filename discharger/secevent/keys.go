package secevent

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
)

// Keys are what tokens are signed with, and what of it is published.
type Keys struct {
	signing *rsa.PrivateKey
	id      string // of it
	jwks    []byte
}

// minBits is how long a key has to be, as the CAEP interoperability profile
// demands.
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

// NewKeys takes at least one key. The first one signs, and all are published, so
// that receivers know the next one before it is used, and the last one after.
func NewKeys(keys []*rsa.PrivateKey) (*Keys, error) {
	if len(keys) == 0 {
		return nil, errors.New("there is no key to sign security events with")
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

// KeyID returns how a key is called in tokens and in what is published: its
// thumbprint (RFC 7638) in base64url.
func KeyID(key *rsa.PublicKey) string { return public(key).ID }

// public writes a public key.
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

// JWKS returns the public halves of all keys, as a JSON Web Key Set. It must not
// be changed.
func (k *Keys) JWKS() []byte { return k.jwks }

const redacted = "REDACTED"

// String gives REDACTED.
func (*Keys) String() string { return redacted }

// GoString gives REDACTED.
func (*Keys) GoString() string { return redacted }

// LogValue gives REDACTED.
func (*Keys) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText gives REDACTED.
func (*Keys) MarshalText() ([]byte, error) { return []byte(redacted), nil }
