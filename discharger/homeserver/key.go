package homeserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/secret"
)

// Key is a master key: 32 random bytes, from which the root keys of access
// macaroons are derived. Whoever has it can make access macaroons for anyone.
// It prints, logs and marshals as REDACTED; only Encode shows it. The zero
// value is not a usable key.
type Key struct{ secret.Key }

// Keys is a ring of master keys, newest first. The first mints, all of them
// verify.
type Keys []Key

// NewKey draws a key from random; nil is crypto/rand.
func NewKey(random io.Reader) (Key, error) {
	if random == nil {
		random = rand.Reader
	}
	var k Key
	if _, err := io.ReadFull(random, k.Key[:]); err != nil {
		return Key{}, fmt.Errorf("draw master key: %w", err)
	}
	return k, nil
}

// ParseKey decodes what Encode returns, in any of the four base64 alphabets. The
// error does not contain the text.
func ParseKey(s string) (Key, error) {
	k, err := secret.ParseKey(s)
	if err != nil {
		return Key{}, fmt.Errorf("parse master key: %w", err)
	}
	return Key{k}, nil
}

// keyID stands for a key in the identifiers of access macaroons.
type keyID = [4]byte

// labelRootKey separates this use of a master key from its id.
const labelRootKey = "discharger/homeserver access macaroon root key v1\x00"

// ID gives the four bytes that stand for the key in access macaroons. They tell
// nothing else about it.
func (k Key) ID() [4]byte {
	return keyfile.RootID(k.Key)
}

// rootKey derives the root key of the access macaroon with this identifier.
func (k *Key) rootKey(identifier []byte) [32]byte {
	return rawmacaroon.Hash((*[32]byte)(&k.Key), []byte(labelRootKey), identifier)
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

// LogValue returns REDACTED: a log handler would look into the slice.
func (Keys) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }
