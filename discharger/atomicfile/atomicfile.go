// Package atomicfile writes files in one step that a crash cannot interrupt. Files
// that hold secrets, which are all but those of [Write], are readable by the owner only.
//
// A file is written under another name in the same directory, synced, and then
// moved or linked to its place; then the directory is synced. A reader sees the
// old file or the new one. A crash can leave a file behind whose name begins with
// a dot and ends in a number; it can be removed.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// Create writes a new file with mode 0600. If the file exists, it stays as it is
// and the error matches [fs.ErrExist].
func Create(path string, data []byte) (err error) {
	defer wrap(&err, "create file")
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	defer tmp.Cleanup()
	if err := tmp.Sync(); err != nil {
		return err
	}
	// Unlike a rename, a link never replaces anything.
	if err := os.Link(tmp.Name(), path); err != nil {
		var link *os.LinkError
		if errors.As(err, &link) { // its text names the temporary file
			return &fs.PathError{Op: "link", Path: path, Err: link.Err}
		}
		return err
	}
	return SyncDir(path)
}

// Write writes a file without secrets, with mode 0644. An existing file or symbolic
// link of that name is replaced, and the target of the link stays as it is.
func Write(path string, data []byte) error {
	err := renameio.WriteFile(path, data, 0o644, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}

// Replace replaces an existing file and keeps its mode and owner. A symbolic link
// stays a link: its target is replaced.
func Replace(path string, data []byte) (err error) {
	defer wrap(&err, "replace file")
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	defer tmp.Cleanup()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		err = tmp.Chown(int(st.Uid), int(st.Gid))
	}
	// The mode last: chown can clear bits of it.
	if err := errors.Join(err, tmp.Chmod(info.Mode().Perm())); err != nil {
		return err
	}
	if err := tmp.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return SyncDir(path)
}

// wrap adds the operation to an error.
func wrap(err *error, op string) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", op, *err)
	}
}

// writeTemp writes a file with mode 0600 into the directory of path.
func writeTemp(path string, data []byte) (*renameio.PendingFile, error) {
	tmp, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return nil, err
	}
	if _, err := tmp.Write(data); err != nil {
		return nil, errors.Join(err, tmp.Cleanup())
	}
	return tmp, nil
}

// Lock blocks until it holds the lock of the file's directory. The lock excludes
// other programs and other goroutines until unlock is called or the program ends.
func Lock(path string) (unlock func(), err error) {
	defer wrap(&err, "lock file")
	dir := filepath.Dir(path)
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "flock", Path: dir, Err: err}, d.Close())
	}
	return func() { d.Close() }, nil
}

// SyncDir makes the entry of a file in its directory durable.
func SyncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
