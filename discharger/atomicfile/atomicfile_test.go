package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// check compares a file, and that nothing else was left beside it.
func check(t *testing.T, path, want string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != want {
		t.Errorf("%s holds %q, %v; want %q", path, data, err, want)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != mode {
		t.Errorf("%s has mode %v, %v; want %v", path, info.Mode(), err, mode)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := Create(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	err := Create(path, []byte("two"))
	if !errors.Is(err, fs.ErrExist) || !strings.HasSuffix(err.Error(), path+": file exists") {
		t.Errorf("created twice: %v", err)
	}
	check(t, path, "one", 0o600)
	if err := Create(filepath.Join(path, "f"), nil); err == nil {
		t.Error("created a file in a file")
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	if err := Replace(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("replaced nothing: %v", err)
	}
	if err := errors.Join(Create(path, []byte("one")), os.Chmod(path, 0o640), os.Symlink("f", link)); err != nil {
		t.Fatal(err)
	}
	if err := Replace(link, []byte("two")); err != nil {
		t.Fatal(err)
	}
	check(t, path, "two", 0o640)
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
}

// TestWrite checks that a link is replaced, and not its target.
func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	if err := errors.Join(Create(path, []byte("one")), os.Symlink("f", link), Write(link, []byte("two"))); err != nil {
		t.Fatal(err)
	}
	check(t, path, "one", 0o600)
	check(t, link, "two", 0o644)
	if info, err := os.Lstat(link); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the link is %v, %v", info, err)
	}
	if err := Write(filepath.Join(path, "f"), nil); err == nil {
		t.Error("wrote a file in a file")
	}
}

// Of many who create, one does; of many who add a letter under the lock, all do.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	const n = 16
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = Create(path, nil) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d created the file", won)
	}
	for i := range n {
		wg.Go(func() {
			unlock, err := Lock(path)
			if err != nil {
				errs[i] = err
				return
			}
			defer unlock()
			data, err := os.ReadFile(path)
			errs[i] = errors.Join(err, Replace(path, append(data, 'x')))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	check(t, path, strings.Repeat("x", n), 0o600)
	if _, err := Lock(filepath.Join(path, "nowhere", "f")); err == nil {
		t.Error("locked a missing directory")
	}
}
