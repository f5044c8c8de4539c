// Package boltfile opens bbolt files, and turns the panics of bbolt into errors.
//
// bbolt maps its file into memory and trusts every pointer in it. On a damaged file it
// panics, and a disk that cannot be read kills the process with a fault. Every
// transaction of a [DB] returns an error instead, which begins with "damaged file".
//
// [Check] reads the pages of a file before bbolt does, and reports damage that
// bbolt would not: with one of its two roots damaged, bbolt shows the file as it
// was one commit ago.
//
// The package stores nothing of its own in a file and repairs none.
package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/discharger/discharger/discharger/atomicfile"
)

// ErrInUse is returned for a file that another process has open.
var ErrInUse = errors.New("another process has the file open")

// Options are the options of [Open].
type Options struct {
	LockTimeout time.Duration // how long to wait for another process to close the file; 0: for ever
	ReadOnly    bool          // the file must exist
}

// DB is an open file. Its transactions return errors where those of bbolt panic.
type DB struct{ *bbolt.DB }

// Open opens a file. One that does not exist is created with mode 0600, and its
// directory is synced.
func Open(path string, o Options) (*DB, error) {
	_, err := os.Lstat(path)
	created := errors.Is(err, fs.ErrNotExist)
	var db *bbolt.DB
	err = guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: o.LockTimeout, ReadOnly: o.ReadOnly, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
		})
		return explain(err)
	})
	if err != nil {
		return nil, err
	}
	if created {
		if err := atomicfile.SyncDir(path); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return &DB{db}, nil
}

// Inspect checks all pages of an existing file, as [Check] does, and calls f in a
// read-only transaction. Nothing is called for a file that does not exist or is
// empty. A file that is shorter than it must be is an error; a damaged root is not,
// since a crash can damage it.
func Inspect(path string, lockTimeout time.Duration, f func(*bbolt.Tx) error) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case info.Size() == 0: // created, but never written
		return nil
	}
	db, err := Open(path, Options{LockTimeout: lockTimeout, ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := Check(path); err != nil && !errors.Is(err, ErrRoot) {
		return fmt.Errorf("damaged file: %w", err)
	}
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("damaged file: it has %d bytes, at least %d are expected", info.Size(), tx.Size())
		}
		return f(tx)
	})
}

// View runs f in a read-only transaction.
func (db *DB) View(f func(*bbolt.Tx) error) error {
	return guard(func() error { return db.DB.View(f) })
}

// Update runs f in a transaction of its own.
func (db *DB) Update(f func(*bbolt.Tx) error) error {
	return guard(func() error { return db.DB.Update(f) })
}

// Batch runs f in a transaction that it shares with concurrent callers. f may be
// called more than once.
func (db *DB) Batch(f func(*bbolt.Tx) error) error {
	return guard(func() error { return db.DB.Batch(f) })
}

// Close closes the file and releases its lock.
func (db *DB) Close() error { return guard(db.DB.Close) }

// guard calls f. It returns a panic of bbolt on a damaged file, and a fault on a
// disk that cannot be read, as an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged file: %v", p)
		}
	}()
	return f()
}

// explain adds the meaning for the file to an error of bbolt.
func explain(err error) error {
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
