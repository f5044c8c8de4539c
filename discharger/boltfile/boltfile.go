package boltfile

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrInUse is returned for a file that another process has open.
var ErrInUse = errors.New("another process has the file open")

// Guard turns what bbolt does about a damaged file, and what the kernel does
// about a disk that cannot be read, into an error.
func Guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged file: %v", p)
		}
	}()
	return f()
}

// Explain says what bbolt's errors mean to someone who looks at the file.
func Explain(err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrInUse
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("not a file of this program, or damaged: %w", err)
	case errors.Is(err, bolterrors.ErrChecksum):
		return fmt.Errorf("damaged file: %w", err)
	}
	return err
}

// SyncDir makes the names in a directory as durable as the files.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
