package marker

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/discharger/discharger/discharger/boltfile"
)

// PositionPrefix is what all positions of a store begin with: enough of its
// identity to tell it from others.
func PositionPrefix(id string) string { return id[len(idPrefix):len(idPrefix)+8] + "." }

// A Marker keeps a store's identity outside the store, so that a store that
// was emptied or exchanged can be told from a new one. The bytes are for the
// store to interpret; they are no secret. [FileMarker] is one.
type Marker interface {
	// Load returns what was saved last, nil if nothing ever was.
	Load() ([]byte, error)

	// Save replaces it, atomically and durably.
	Save([]byte) error
}

// FileMarker keeps a marker in a file, mode 0600, in a directory that exists.
// It belongs on a disk that does not vanish together with the store's data.
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
		return nil, fmt.Errorf("read marker: %s is empty; remove it if the store may be any", string(f))
	}
	return b, nil
}

func (f fileMarker) Save(id []byte) error {
	if err := f.save(id); err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	return nil
}

func (f fileMarker) save(id []byte) error {
	dir := filepath.Dir(string(f))
	tmp, err := os.CreateTemp(dir, filepath.Base(string(f))+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // of no effect once it has been renamed
	_, err = tmp.Write(append(bytes.Clone(id), '\n'))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), string(f)); err != nil {
		return err
	}
	return boltfile.SyncDir(dir)
}

// A store's identity: the version of its layout and 128 random bits. The
// layouts of bbolt and Redis have the same version.
const (
	idPrefix = "discharger-1:"
	idLen    = len(idPrefix) + 22
)

func NewID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("draw store id: %w", err)
	}
	return idPrefix + base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// CheckID refuses an identity that this version did not make: the store's
// layout may be another one.
func CheckID(id string) error {
	if len(id) != idLen || id[:len(idPrefix)] != idPrefix {
		return fmt.Errorf("store id %.60q is not of this version", id)
	}
	return nil
}

// Remembered returns the identity that the marker holds, "" for none.
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

// Remember saves an identity; without a marker there is nothing to do.
func Remember(m Marker, id string) error {
	if m == nil {
		return nil
	}
	return m.Save([]byte(id))
}
