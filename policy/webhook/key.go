package webhook

import (
	"bytes"
	"fmt"

	"github.com/discharger/discharger/discharger/secret"
)

// Bounds of a key, in bytes.
const (
	minKey = 32
	MaxKey = 4096
)

// ParseKey reads the key that signs questions from the contents of its file,
// less the white space around it.
func ParseKey(data []byte) (secret.Bytes, error) {
	key := bytes.TrimSpace(data)
	switch {
	case len(data) > MaxKey:
		return nil, fmt.Errorf("the key has more than %d bytes", MaxKey)
	case len(key) < minKey:
		return nil, fmt.Errorf("the key has %d bytes, and needs %d", len(key), minKey)
	}
	return secret.Bytes(key), nil
}
