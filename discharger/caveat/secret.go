package caveat

import (
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/nacl/box"
)

const redacted = "REDACTED"

// Secret is bytes that must not be seen: a root key. It can be used wherever a
// []byte is asked for; only printing, logging and marshalling it give
// REDACTED.
type Secret []byte

// String gives REDACTED.
func (Secret) String() string { return redacted }

// GoString gives REDACTED.
func (Secret) GoString() string { return redacted }

// Format writes REDACTED, whatever the verb.
func (Secret) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue gives REDACTED.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText gives REDACTED. It is what encoding/json uses too.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// String gives REDACTED.
func (PrivateKey) String() string { return redacted }

// GoString gives REDACTED.
func (PrivateKey) GoString() string { return redacted }

// Format writes REDACTED, whatever the verb.
func (PrivateKey) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue gives REDACTED.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText gives REDACTED. What goes into a key file comes from
// [PrivateKey.Encode].
func (PrivateKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON gives "REDACTED".
func (PrivateKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// sharedKey gives the key that a private key and the other side's public key
// agree on. It is a function because nothing that prints values looks into
// one, while a pointer in a field, which methods cannot guard when the field is
// not exported, is followed by some verbs of fmt.
type sharedKey func() *[keySize]byte

// agree does the X25519 multiplication.
func agree(private PrivateKey, peer PublicKey) sharedKey {
	shared := new([keySize]byte)
	box.Precompute(shared, (*[keySize]byte)(&peer), (*[keySize]byte)(&private))
	return func() *[keySize]byte { return shared }
}
