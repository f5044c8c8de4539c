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

// Key is one secret. It prints and logs without it.
type Key struct {
	Kind    Kind
	ID      string           // 8 hexadecimal digits
	Created time.Time        // UTC, whole seconds
	Staged  bool             // recognized, but not used to make anything yet
	Since   time.Time        // when it became the used one last, UTC, whole seconds; zero: at Created, or Staged
	Public  caveat.PublicKey // of kinds discharger and seal

	secret secret.Key
}

// UsedSince returns when the key became the used one, the last time if it did
// more than once; zero for a staged key.
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

// derive fills in what follows from kind and secret.
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

// Pair is the key pair, of kinds discharger and seal.
func (k Key) Pair() caveat.KeyPair {
	return caveat.KeyPair{Public: k.Public, Private: caveat.PrivateKey{Key: k.secret}}
}

// Secret is the key itself, of kinds refresh, store and root.
func (k Key) Secret() secret.Key { return k.secret }

// APIKey is the text that a homeserver sends, of kind api.
func (k Key) APIKey() secret.Bytes {
	return base64.RawURLEncoding.AppendEncode(nil, k.secret[:])
}

// APIDigest is the SHA-256 of APIKey, which is all the service has to know.
func (k Key) APIDigest() [sha256.Size]byte { return sha256.Sum256(k.APIKey()) }

// Format writes kind and id and no secret, whatever the verb.
func (k Key) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%s key %s REDACTED", k.Kind, k.ID) }

// LogValue gives kind and id.
func (k Key) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// MarshalText gives kind and id. What goes into a file is written by [Create]
// and [Update] alone.
func (k Key) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }
