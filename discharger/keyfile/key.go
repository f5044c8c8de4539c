package keyfile

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/secret"
)

// Key is one secret key. It prints, logs and marshals as kind and id.
type Key struct {
	Kind    Kind
	ID      string           // 8 hexadecimal digits
	Created time.Time        // UTC, whole seconds
	Staged  bool             // recognized, but not used yet
	Since   time.Time        // when it last became the used key, UTC, whole seconds; zero: at Created, or Staged
	Public  caveat.PublicKey // of kinds discharger and seal

	secret secret.Key
}

// UsedSince returns when the key last became the used one; zero for a staged key.
func (k Key) UsedSince() time.Time {
	switch {
	case k.Staged:
		return time.Time{}
	case k.Since.IsZero():
		return k.Created
	}
	return k.Since
}

func newKey(kind Kind, now time.Time) (Key, error) {
	k := Key{Kind: kind, Created: now.UTC().Truncate(time.Second), secret: secret.NewKey()}
	return k, k.derive()
}

// derive sets ID and Public, which depend on kind and secret.
func (k *Key) derive() error {
	if k.secret == (secret.Key{}) {
		return errors.New("key is all zeros")
	}
	var id [4]byte
	switch k.Kind {
	case Discharger, Seal:
		pair, err := caveat.NewKeyPair(caveat.PrivateKey{Key: k.secret})
		if err != nil {
			return err
		}
		k.Public = pair.Public
		id = [4]byte(pair.Public[:4])
	case Refresh:
		id = RefreshID(k.secret)
	case Root:
		id = RootID(k.secret)
	case API:
		digest := k.APIDigest()
		id = [4]byte(digest[:4])
	case Store:
		id = labelled("discharger store key id\x00", k.secret)
	default:
		return fmt.Errorf("unknown kind of key %q", k.Kind)
	}
	k.ID = hex.EncodeToString(id[:])
	return nil
}

// RefreshID returns the id of a key of kind refresh, which refresh tokens carry.
func RefreshID(k secret.Key) [4]byte { return labelled("discharger refresh key id\x00", k) }

// RootID returns the id of a key of kind root, which access macaroons carry.
func RootID(k secret.Key) [4]byte {
	sum := rawmacaroon.Hash((*[rawmacaroon.Size]byte)(&k), []byte("discharger/homeserver master key id v1\x00"))
	return [4]byte(sum[:4])
}

// labelled returns the first bytes of the SHA-256 of label and key.
func labelled(label string, k secret.Key) [4]byte {
	sum := sha256.Sum256(append([]byte(label), k[:]...))
	return [4]byte(sum[:4])
}

// Pair returns the key pair, of kinds discharger and seal.
func (k Key) Pair() caveat.KeyPair {
	return caveat.KeyPair{Public: k.Public, Private: caveat.PrivateKey{Key: k.secret}}
}

// Secret returns the secret, of kinds refresh, store and root.
func (k Key) Secret() secret.Key { return k.secret }

// APIKey returns the text that a homeserver sends, of kind api.
func (k Key) APIKey() secret.Bytes {
	return base64.RawURLEncoding.AppendEncode(nil, k.secret[:])
}

// APIDigest returns the SHA-256 of APIKey, from the service's configuration.
func (k Key) APIDigest() [sha256.Size]byte { return sha256.Sum256(k.APIKey()) }

// Format writes kind and id and no secret, for every verb.
func (k Key) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%s key %s REDACTED", k.Kind, k.ID) }

// LogValue returns kind and id.
func (k Key) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// MarshalText returns kind and id. Only [Create] and [Update] write the secret.
func (k Key) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }
