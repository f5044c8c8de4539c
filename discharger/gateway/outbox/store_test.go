package outbox

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/caveat"
)

// A file that can only be read is not healthy.
func TestProbeReadOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gateway.db")
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Probe(time.Now()); err != nil {
		t.Errorf("writable: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.db, err = boltfile.Open(path, boltfile.Options{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Probe(time.Now()); err == nil {
		t.Error("a file that is read only passes")
	}
}

// A damaged file is an error, and no panic.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	for _, c := range []struct {
		name   string
		damage func(data []byte)
	}{
		{"all but the two roots", func(data []byte) {
			for i := 2 * page; i < len(data); i++ {
				data[i] = 0xff
			}
		}},
		{"pages that lead back to themselves", func(data []byte) {
			const flags, child, branch = 8, 16 + 8, 1
			found := false
			for p := data; len(p) >= page; p = p[page:] {
				if binary.NativeEndian.Uint16(p[flags:]) == branch {
					copy(p[child:child+8], p[:8])
					found = true
				}
			}
			if !found {
				t.Error("the file has one page per bucket")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "gateway.db")
			s, err := openStore(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				var id caveat.SessionID
				binary.BigEndian.PutUint64(id[:], uint64(i))
				if _, err := s.Begin(id, Session{User: "@u:hs", Device: id.String()}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c.damage(data)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err = openStore(path); err == nil {
				_, err = s.sessions("@u:hs")
			}
			if err == nil {
				t.Error("a damaged file is read")
			}
		})
	}
}
