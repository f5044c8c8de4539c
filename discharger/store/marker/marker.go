// Package marker keeps the identity of a store outside the store. A store that was
// emptied or exchanged has another identity, or none, and is lost: see package store.
package marker

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"

	"github.com/discharger/discharger/discharger/atomicfile"
)

// Marker keeps the identity of a store outside the store. Its bytes are opaque and
// not secret. [FileMarker] returns one.
type Marker interface {
	// Load returns the bytes saved last, nil for none.
	Load() ([]byte, error)

	// Save replaces the bytes, atomically and durably.
	Save([]byte) error
}

// FileMarker returns a marker in a file of mode 0600. Its directory must exist and
// should be on another disk than the store.
func FileMarker(path string) Marker { return fileMarker(path) }

type fileMarker string

func (f fileMarker) Load() ([]byte, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read marker: %w", err)
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	if len(b) == 0 {
		return nil, fmt.Errorf("read marker: %s is empty; remove it to accept any store", string(f))
	}
	return b, nil
}

func (f fileMarker) Save(id []byte) error {
	err := renameio.WriteFile(string(f), append(bytes.Clone(id), '\n'), 0o600)
	if err == nil {
		err = atomicfile.SyncDir(string(f))
	}
	if err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	return nil
}

// An identity is the version of the layout, which bbolt and Redis share, and 128
// random bits.
const (
	idPrefix = "discharger-1:"
	idLen    = len(idPrefix) + 22
)

// NewID returns a new identity.
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	return idPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// CheckID returns an error for an identity of another version, whose layout can differ.
func CheckID(id string) error {
	if len(id) != idLen || id[:len(idPrefix)] != idPrefix {
		return fmt.Errorf("store id %.60q is not of this version", id)
	}
	return nil
}

// PositionPrefix returns the start of every feed position of a store.
func PositionPrefix(id string) string { return id[len(idPrefix):len(idPrefix)+8] + "." }

// Remembered returns the identity in a marker, "" for none. The marker can be nil.
func Remembered(m Marker) (string, error) {
	if m == nil {
		return "", nil
	}
	b, err := m.Load()
	if err != nil || b == nil {
		return "", err
	}
	if err := CheckID(string(b)); err != nil {
		return "", fmt.Errorf("read marker: %w", err)
	}
	return string(b), nil
}

// Remember saves an identity in a marker, which can be nil.
func Remember(m Marker, id string) error {
	if m == nil {
		return nil
	}
	return m.Save([]byte(id))
}
