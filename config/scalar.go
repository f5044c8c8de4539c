package config

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// isScalar reports whether a type is written as one value.
func isScalar(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case *time.Duration, *netip.Prefix, *bool, *int, *string, encoding.TextUnmarshaler, interface{ names() []string }:
		return true
	}
	return false
}

// scalar decodes one value.
func (d *decoder) scalar(at place, v reflect.Value, key string) {
	doc, n, before := at.doc, at.node, at.doc.Len()
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		if x, ok := doc.Duration(n, key, math.MinInt64, math.MaxInt64); ok {
			*p = x
		}
	case *netip.Prefix:
		if x, ok := doc.Prefix(n, key); ok {
			*p = x
		}
	case *slog.Level:
		lower := *n
		lower.Value = strings.ToLower(n.Value)
		if x, ok := doc.OneOf(&lower, key, "debug", "info", "warn", "error"); ok {
			d.text(at, p, x, key)
		}
	case encoding.TextUnmarshaler:
		if x, ok := doc.Raw(n, key, "a string"); ok {
			d.text(at, p, x, key)
		}
	case interface{ names() []string }:
		if x, ok := doc.OneOf(n, key, p.names()...); ok {
			v.SetString(x)
		}
	case *bool:
		*p = doc.Bool(n, key)
	case *int:
		if x, ok := doc.Int(n, key, math.MinInt, math.MaxInt); ok {
			*p = x
		}
	case *string:
		if x, ok := doc.Text(n, key, math.MaxInt); ok {
			*p = x
		}
	}
	if doc.Len() > before {
		d.failed[key] = true
	}
}

// text decodes a value of a type with a form of its own. A malformed key or digest
// is hidden in excerpts: it may be a secret.
func (d *decoder) text(at place, v encoding.TextUnmarshaler, text, key string) {
	if err := v.UnmarshalText([]byte(text)); err != nil {
		if reflect.TypeOf(v).Elem().Kind() == reflect.Array {
			at.doc.Hide(at.node)
		}
		at.doc.Invalid(at.node, key, "%v", err)
	}
}

// Digest is a SHA-256 sum, written in hexadecimal.
type Digest [sha256.Size]byte

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the digits of String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses 64 hexadecimal digits. The error does not repeat the text, which
// may be the key itself.
func (d *Digest) UnmarshalText(text []byte) error {
	var sum Digest
	if len(text) != hex.EncodedLen(len(d)) {
		return errors.New("want 64 hexadecimal digits: the SHA-256 of the API key, not the key itself")
	}
	if _, err := hex.Decode(sum[:], text); err != nil {
		return errors.New("want 64 hexadecimal digits")
	}
	*d = sum
	return nil
}
