package homeserver

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/chain"
)

const keySize = 32

// Key is a master key: 32 random bytes, from which the root keys of access
// macaroons are derived. Whoever has it can make access macaroons for anyone.
// It prints, logs and marshals as REDACTED; only [Key.Encode] shows it. The zero
// value is not a usable key.
type Key [keySize]byte

// Keys is a ring of master keys, newest first. The first mints, all of them
// verify.
type Keys []Key

// NewKey draws a key from random; nil is crypto/rand.
func NewKey(random io.Reader) (Key, error) {
	if random == nil {
		random = rand.Reader
	}
	var k Key
	if _, err := io.ReadFull(random, k[:]); err != nil {
		return Key{}, fmt.Errorf("draw master key: %w", err)
	}
	return k, nil
}

// ParseKey reads what [Key.Encode] gives, in any of the four base64 alphabets.
// The error does not repeat the text.
func ParseKey(s string) (Key, error) {
	data, err := api.DecodeBase64(s)
	if err != nil {
		return Key{}, fmt.Errorf("parse master key: %w", err)
	}
	if len(data) != keySize {
		return Key{}, fmt.Errorf("parse master key: %d bytes, want %d", len(data), keySize)
	}
	return Key(data), nil
}

// Encode gives the key in standard base64, padded, for a key file. This is the
// one way to see it.
func (k Key) Encode() string { return base64.StdEncoding.EncodeToString(k[:]) }

// keyID stands for a key in the identifiers of access macaroons.
type keyID = [4]byte

// Labels keep apart what a master key is used for.
const (
	labelKeyID   = "discharger/homeserver master key id v1\x00"
	labelRootKey = "discharger/homeserver access macaroon root key v1\x00"
)

// ID gives the four bytes that stand for the key in access macaroons. They tell
// nothing else about it.
func (k Key) ID() [4]byte {
	sum := chain.Hash((*[32]byte)(&k), []byte(labelKeyID))
	return [4]byte(sum[:4])
}

// rootKey derives the root key of the access macaroon with this identifier.
func (k *Key) rootKey(identifier []byte) [32]byte {
	return chain.Hash((*[32]byte)(k), []byte(labelRootKey), identifier)
}

// byID makes the ring searchable.
func (ks Keys) byID() (map[keyID]Key, error) {
	if len(ks) == 0 {
		return nil, errors.New("no master key")
	}
	ring := make(map[keyID]Key, len(ks))
	for i, k := range ks {
		if k == (Key{}) {
			return nil, fmt.Errorf("master key %d is all zeros", i)
		}
		id := keyID(k.ID())
		if _, taken := ring[id]; taken {
			return nil, fmt.Errorf("master key %d is in the ring twice, or shares its id %x with another", i, id)
		}
		ring[id] = k
	}
	return ring, nil
}

const redacted = "REDACTED"

// String gives REDACTED.
func (Key) String() string { return redacted }

// GoString gives REDACTED.
func (Key) GoString() string { return redacted }

// Format writes REDACTED, whatever the verb.
func (Key) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue gives REDACTED.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText gives REDACTED, to encoding/json too.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue gives REDACTED: a log handler would look into the slice.
func (Keys) LogValue() slog.Value { return slog.StringValue(redacted) }
