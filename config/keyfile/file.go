package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxSize bounds a key file, in bytes.
const maxSize = 1 << 20

// Access says who else may be able to read a key file.
type Access bool

// The two kinds of access.
const (
	OwnerOnly Access = false
	GroupToo  Access = true // for secrets that are mounted for a group
)

// ErrExposed is returned for a key file that others can read or change.
var ErrExposed = errors.New("key file is not secret")

// Load reads a key file.
func Load(path string, a Access) (*Ring, error) {
	r, _, err := load(path, a)
	return r, err
}

func load(path string, a Access) (*Ring, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read key file: %w", err)
	}
	forbidden := fs.FileMode(0o077)
	if a == GroupToo {
		forbidden = 0o037
	}
	if exposed := info.Mode().Perm() & forbidden; exposed != 0 {
		return nil, nil, fmt.Errorf("%w: mode of %s is %04o; chmod 600 it, and think about who may have read it",
			ErrExposed, path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read key file: %w", err)
	}
	if len(data) > maxSize {
		return nil, nil, fmt.Errorf("key file %s is longer than %d bytes", path, maxSize)
	}
	r, err := decode(data)
	if err != nil {
		return nil, nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return r, info, nil
}

// Create writes a new key file with mode 0600. If there is a file already, it
// stays as it is and the error matches [fs.ErrExist].
func Create(path string, r *Ring) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	tmp, err := writeBeside(path, r)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	defer os.Remove(tmp)
	// Unlike a rename, a link never replaces anything.
	if err := os.Link(tmp, path); err != nil {
		var link *os.LinkError
		if errors.As(err, &link) {
			err = &fs.PathError{Op: "create", Path: path, Err: link.Err}
		}
		return fmt.Errorf("write key file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Update reads a key file, lets change work on the ring, and replaces the file.
// If change returns an error, the file stays as it is. Mode and owner stay in
// any case.
func Update(path string, a Access, change func(*Ring) error) error {
	unlock, err := lock(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("lock key file: %w", err)
	}
	defer unlock()
	r, info, err := load(path, a)
	if err != nil {
		return err
	}
	if err := change(r); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	if err := replace(path, r, info); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func replace(path string, r *Ring, info fs.FileInfo) error {
	// A link to a file elsewhere stays a link.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	tmp, err := writeBeside(path, r)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // of no effect once it has been renamed
	if err := os.Chmod(tmp, info.Mode().Perm()); err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(tmp, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return os.Rename(tmp, path)
}

// writeBeside writes a synced file into the directory of path.
func writeBeside(path string, r *Ring) (name string, err error) {
	data, err := encode(r)
	if err != nil {
		return "", err
	}
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

// lock keeps other programs from updating a file in a directory.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		d.Close()
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	return func() { d.Close() }, nil
}

// syncDir makes the names in a directory as durable as the files.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
