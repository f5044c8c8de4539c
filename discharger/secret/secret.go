// Package secret provides the types of values that must never appear in logs,
// errors, dumps or encodings: [Key], of 32 bytes, and [Bytes], of any length.
//
// Both print as REDACTED for every verb of package fmt, and log and marshal as REDACTED:
// to text, JSON, XML, gob and YAML, and through log/slog. Conversions and [Key.Encode]
// are the only ways to the value. Equal compares in constant time.
//
// A type of its own, with methods of its own, embeds one of the two in a struct
// and inherits the redaction:
//
//	type MasterKey struct{ secret.Key }
//
// Package fmt calls no methods for %p and for %w outside [fmt.Errorf], which go vet
// rejects, and none on unexported fields. A struct that has a secret in one therefore
// redacts itself: it implements [fmt.Formatter] and [log/slog.LogValuer].
//
// The package does not erase memory: Go's garbage collector may have copied the value.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Redacted is the text that stands for a secret.
const Redacted = "REDACTED"

const keySize = 32

// Key is a secret of 32 bytes. The zero value is not a usable key.
type Key [keySize]byte

// NewKey returns a random key.
func NewKey() Key {
	var k Key
	rand.Read(k[:]) // never fails
	return k
}

// ParseKey decodes a key from base64: in the standard or the URL alphabet,
// padded or not, without line breaks. The error does not contain the text.
func ParseKey(s string) (Key, error) {
	encoding := base64.RawURLEncoding
	switch {
	case strings.HasSuffix(s, "=") && strings.ContainsAny(s, "+/"):
		encoding = base64.StdEncoding
	case strings.HasSuffix(s, "="):
		encoding = base64.URLEncoding
	case strings.ContainsAny(s, "+/"):
		encoding = base64.RawStdEncoding
	}
	// Strict decoding still skips line breaks. The length is checked first, so
	// that a text with line breaks decodes to too few bytes.
	if len(s) != encoding.EncodedLen(keySize) {
		return Key{}, fmt.Errorf("%d characters are not %d bytes of base64", len(s), keySize)
	}
	var buf [keySize + 2]byte
	n, err := encoding.Strict().Decode(buf[:], []byte(s))
	if err != nil {
		return Key{}, errors.New("not base64")
	}
	if n != keySize {
		return Key{}, fmt.Errorf("%d bytes, want %d", n, keySize)
	}
	return Key(buf[:keySize]), nil
}

// Encode returns the key in standard base64, padded, for a key file. It does not redact.
func (k Key) Encode() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Equal reports whether two keys are equal, in constant time.
func (k Key) Equal(other Key) bool { return subtle.ConstantTimeCompare(k[:], other[:]) == 1 }

// Bytes is a secret of any length, such as a password or a root key. It is
// assignable to []byte.
type Bytes []byte

// Equal reports whether two secrets are equal. The time depends on their lengths alone.
func (b Bytes) Equal(other Bytes) bool { return subtle.ConstantTimeCompare(b, other) == 1 }

// String returns REDACTED.
func (Key) String() string { return Redacted }

// GoString returns REDACTED.
func (Key) GoString() string { return Redacted }

// Format writes REDACTED for every verb.
func (Key) Format(s fmt.State, _ rune) { io.WriteString(s, Redacted) }

// LogValue returns REDACTED.
func (Key) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns REDACTED.
func (Key) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON returns "REDACTED".
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalBinary returns REDACTED.
func (Key) MarshalBinary() ([]byte, error) { return []byte(Redacted), nil }

// String returns REDACTED.
func (Bytes) String() string { return Redacted }

// GoString returns REDACTED.
func (Bytes) GoString() string { return Redacted }

// Format writes REDACTED for every verb.
func (Bytes) Format(s fmt.State, _ rune) { io.WriteString(s, Redacted) }

// LogValue returns REDACTED.
func (Bytes) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns REDACTED.
func (Bytes) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON returns "REDACTED".
func (Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalBinary returns REDACTED.
func (Bytes) MarshalBinary() ([]byte, error) { return []byte(Redacted), nil }
