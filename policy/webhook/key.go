package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/secret"
)

// Bounds of a key in bytes; [ParseKey] refuses other files.
const (
	minKey = 32
	MaxKey = 4096
)

// ParseKey returns the key in the contents of a key file, without the white space
// around it.
func ParseKey(data []byte) (secret.Bytes, error) {
	key := bytes.TrimSpace(data)
	switch {
	case len(data) > MaxKey:
		return nil, fmt.Errorf("key has more than %d bytes", MaxKey)
	case len(key) < minKey:
		return nil, fmt.Errorf("key has %d bytes, want at least %d", len(key), minKey)
	}
	return secret.Bytes(key), nil
}

// sign returns the value of the signature header.
func sign(key secret.Bytes, now time.Time, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%d.%s", now.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%x", now.Unix(), mac.Sum(nil))
}
