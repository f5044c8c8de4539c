// Package testkit has the parts that tests of several packages share. No program
// imports it.
package testkit

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// NoError ends the test if err is not nil.
func NoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Folder is a directory with the files of one test.
type Folder struct {
	Dir string
	t   testing.TB
}

// NewFolder makes an empty directory, which is removed after the test.
func NewFolder(t testing.TB) Folder { return Folder{t.TempDir(), t} }

// Path returns the path of a file in the folder.
func (f Folder) Path(name string) string { return filepath.Join(f.Dir, name) }

// Write writes a file with mode 0600 and returns its path.
func (f Folder) Write(name, format string, args ...any) string {
	f.t.Helper()
	NoError(f.t, os.WriteFile(f.Path(name), fmt.Appendf(nil, format, args...), 0o600))
	return f.Path(name)
}

// Read returns the contents of a file.
func (f Folder) Read(name string) string {
	f.t.Helper()
	data, err := os.ReadFile(f.Path(name))
	NoError(f.t, err)
	return string(data)
}
