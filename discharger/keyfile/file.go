package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/discharger/discharger/discharger/atomicfile"
)

// maxSize bounds a key file, in bytes.
const maxSize = 1 << 20

// Access is the access to a key file that other users may have.
type Access bool

// The two kinds of access.
const (
	OwnerOnly Access = false
	GroupToo  Access = true // for secrets that are mounted for a group: it may read and, as with fsGroup, write them
)

// ErrExposed is returned for a key file that others can read or change.
var ErrExposed = errors.New("key file is not secret")

// Load reads a key file.
func Load(path string, a Access) (*Ring, error) {
	data, err := readSecret(path, a)
	if err != nil {
		return nil, err
	}
	r, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return r, nil
}

// pipeTimeout bounds the wait for the writer of a pipe.
const pipeTimeout = 10 * time.Second

// readSecret reads a file that other users can neither read nor change. The file may
// be a pipe, such as /dev/stdin, that has a writer.
func readSecret(path string, a Access) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a pipe waits for a writer
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(pipeTimeout)) // regular files have none
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	forbidden := fs.FileMode(0o077)
	if a == GroupToo {
		forbidden = 0o017
	}
	if info.Mode().Perm()&forbidden != 0 {
		return nil, fmt.Errorf("%w: mode of %s is %04o; chmod 600 it, and consider replacing the keys",
			ErrExposed, path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("key file %s is longer than %d bytes", path, maxSize)
	}
	if len(data) == 0 && info.Mode()&fs.ModeNamedPipe != 0 {
		return nil, fmt.Errorf("key file %s is not a regular file, but a pipe without a writer", path)
	}
	return data, nil
}

// Create writes a new key file with mode 0600. If the file exists, it is unchanged and
// the error matches [fs.ErrExist].
func Create(path string, r *Ring) error {
	data, err := checkedEncode(r)
	if err != nil {
		return err
	}
	if err := atomicfile.Create(path, data); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	return nil
}

// Update reads a key file, applies change to the ring, and replaces the file, whose
// mode and owner are kept. If change returns an error, the file is unchanged.
func Update(path string, a Access, change func(*Ring) error) error {
	return replace(path, func() ([]byte, error) {
		r, err := Load(path, a)
		if err != nil {
			return nil, err
		}
		if err := change(r); err != nil {
			return nil, err
		}
		return checkedEncode(r)
	})
}

// replace replaces a file, which is locked meanwhile, by the result of f.
func replace(path string, f func() ([]byte, error)) error {
	unlock, err := atomicfile.Lock(path)
	if err != nil {
		return fmt.Errorf("update key file: %w", err)
	}
	defer unlock()
	data, err := f()
	if err != nil {
		return err
	}
	if err := atomicfile.Replace(path, data); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	return nil
}

// checkedEncode returns the file of a valid ring.
func checkedEncode(r *Ring) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("write key file: %w", err)
	}
	return encode(r)
}
