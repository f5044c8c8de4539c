package marker_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/discharger/discharger/discharger/store/marker"
)

func TestFileMarker(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "marker")
	m := marker.FileMarker(path)
	if b, err := m.Load(); b != nil || err != nil {
		t.Errorf("before anything was saved: %q, %v", b, err)
	}
	for _, id := range []string{"one", "another, longer", "x"} {
		if err := m.Save([]byte(id)); err != nil {
			t.Fatal(err)
		}
		if b, err := m.Load(); string(b) != id || err != nil {
			t.Errorf("saved %q, loaded %q, %v", id, b, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); len(entries) != 1 || err != nil {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for what, path := range map[string]string{"no directory": filepath.Join(path, "x"), "a directory": t.TempDir()} {
		t.Run(what, func(t *testing.T) {
			m := marker.FileMarker(path)
			if b, err := m.Load(); err == nil {
				t.Errorf("%s: loaded %q", what, b)
			}
			if err := m.Save([]byte("x")); err == nil {
				t.Errorf("%s: saved", what)
			}
		})
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := m.Load(); err == nil {
		t.Errorf("an empty file gives %q", b)
	}
}
