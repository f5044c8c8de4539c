package wire

import (
	"encoding/base64"
	"errors"
	"strings"
)

// errBase64 does not repeat the text, which may be secret.
var errBase64 = errors.New("malformed base64")

// DecodeBase64 decodes base64 in the standard or the URL alphabet, padded or not,
// since clients of the protocol send all four. Otherwise it is strict: mixed
// alphabets, partial padding, line breaks and unused bits that are not zero are
// errors, so that a value has one text in each alphabet and padding.
func DecodeBase64(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errBase64 // encoding/base64 skips them
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

// EncodeBase64 encodes in the URL alphabet without padding.
func EncodeBase64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }
