package webhook

import (
	"bytes"
	"fmt"

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
