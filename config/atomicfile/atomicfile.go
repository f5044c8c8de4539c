// Package atomicfile writes files that hold secrets: each in one step that a
// crash cannot cut in two, readable for nobody but the owner.
//
// A file is written beside its place under another name, synced, and then moved
// or linked there; then the directory is synced. Whoever reads sees the old file
// or the new one. After a crash there may be a file whose name begins with a dot
// and ends in a number; it can be removed.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Create writes a new file with mode 0600. If there is a file already, it stays
// as it is and the error matches [fs.ErrExist].
func Create(path string, data []byte) error {
	tmp, err := writeBeside(path, data)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	defer os.Remove(tmp)
	// Unlike a rename, a link never replaces anything.
	if err := os.Link(tmp, path); err != nil {
		var link *os.LinkError
		if errors.As(err, &link) { // whose text is about the other name
			err = &fs.PathError{Op: "link", Path: path, Err: link.Err}
		}
		return fmt.Errorf("create file: %w", err)
	}
	return syncDir(path)
}

// Replace writes a file in the place of one that is there, whose mode and owner
// it takes over. A symbolic link stays one: what it points to is replaced.
func Replace(path string, data []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	tmp, err := writeBeside(path, data)
	if err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	defer os.Remove(tmp) // of no effect once it has been renamed
	if err := takeOver(tmp, info); err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	return syncDir(path)
}

// takeOver gives a file the owner and the mode of another.
func takeOver(path string, from fs.FileInfo) error {
	if st, ok := from.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(path, from.Mode().Perm())
}

// Lock waits until nobody else who locks files has locked one in the same
// directory. It keeps out other programs and other parts of this one, until
// unlock is called or the program ends.
func Lock(path string) (unlock func(), err error) {
	dir := filepath.Dir(path)
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock file: %w", &fs.PathError{Op: "flock", Path: dir, Err: err}), d.Close())
	}
	return func() { d.Close() }, nil
}

// writeBeside writes a synced file into the directory of path.
func writeBeside(path string, data []byte) (name string, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return "", errors.Join(err, os.Remove(tmp.Name()))
	}
	return tmp.Name(), nil
}

// syncDir makes the name of a file as durable as the file.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
