package wire

import (
	"encoding/base64"
	"errors"
	"strings"
)

// errBase64 is all that is said about a text that is not base64: it may be
// secret.
var errBase64 = errors.New("not base64")

// DecodeBase64 reads base64 in the standard or the URL alphabet, padded or not:
// clients of this protocol send all four. It is strict otherwise. Alphabets are
// not mixed, padding is complete or absent, the unused bits of the last
// character are zero and nothing is skipped, not even line breaks; so every
// value has exactly one text in each alphabet and padding.
func DecodeBase64(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errBase64 // the decoder would skip them
	}
	encoding := base64.RawURLEncoding
	padded, standard := strings.HasSuffix(text, "="), strings.ContainsAny(text, "+/")
	switch {
	case padded && standard:
		encoding = base64.StdEncoding
	case padded:
		encoding = base64.URLEncoding
	case standard:
		encoding = base64.RawStdEncoding
	}
	data, err := encoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errBase64
	}
	return data, nil
}

// EncodeBase64 writes base64 in the URL alphabet without padding, as all texts
// of this package are written.
func EncodeBase64(data []byte) string {
	return base64.RawURLEncoding.EncodeToString(data)
}
