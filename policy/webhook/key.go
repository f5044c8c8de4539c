package webhook

import (
	"fmt"
	"log/slog"
	"strings"
)

// A Key signs the questions to a webhook. It is redacted in every format.
type Key []byte

const redacted = "REDACTED"

func (Key) String() string               { return redacted }
func (Key) GoString() string             { return redacted }
func (Key) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Bounds of a key, in bytes.
const (
	minKey = 32
	MaxKey = 4096
)

// ParseKey reads a key from the contents of its file, less the white space
// around it.
func ParseKey(data []byte) (Key, error) {
	key := strings.TrimSpace(string(data))
	switch {
	case len(data) > MaxKey:
		return nil, fmt.Errorf("the key has more than %d bytes", MaxKey)
	case len(key) < minKey:
		return nil, fmt.Errorf("the key has %d bytes, and needs %d", len(key), minKey)
	}
	return Key(key), nil
}
