package bolt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func TestBoltLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	b := openBolt(t, bolt.Config{Path: path})
	var err error
	took := storetest.Awake(func() { _, err = bolt.Open(bolt.Config{Path: path, LockTimeout: 100 * time.Millisecond}) })
	if err == nil || !strings.Contains(err.Error(), "another process has the file open") || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v", err)
	}
	if took > 5*time.Second {
		t.Errorf("took %v to find out", took)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	openBolt(t, bolt.Config{Path: path})
}

// TestBoltFiles opens files that are no store, and leaves them unchanged.
func TestBoltFiles(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), "good.db")
	b := openBolt(t, bolt.Config{Path: good})
	for range 500 {
		if ok, err := b.Swap(t.Context(), storetest.One(storetest.NewUser(), store.Change{Session: storetest.NewSession(), New: make([]byte, 100)})); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	change := func(f func([]byte)) []byte {
		b := bytes.Clone(whole)
		f(b)
		return b
	}
	for what, content := range map[string][]byte{
		"text":          []byte("homeservers:\n  - name: example.org\n"),
		"one byte":      {0},
		"zeros":         make([]byte, 4*page),
		"long text":     bytes.Repeat([]byte("no store at all\n"), page),
		"SQLite":        append([]byte("SQLite format 3\x00"), make([]byte, 4*page)...),
		"both metas":    change(func(b []byte) { b[30]++; b[page+30]++ }),
		"two pages":     whole[:2*page],
		"three pages":   whole[:3*page],
		"half":          whole[:len(whole)/2/page*page],
		"not a page":    whole[:len(whole)/3+7],
		"no freelist":   change(func(b []byte) { copy(b[2*page:], make([]byte, len(b)-2*page)) }),
		"other buckets": foreignBolt(t, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("users")); return err }),
		"later version": foreignBolt(t, func(tx *bbolt.Tx) error {
			for _, name := range []string{"discharger", "records", "homeservers"} {
				if _, err := tx.CreateBucket([]byte(name)); err != nil {
					return err
				}
			}
			return tx.Bucket([]byte("discharger")).Put([]byte("id"), []byte("discharger-2:0123456789012345678901"))
		}),
		"no records": foreignBolt(t, func(tx *bbolt.Tx) error {
			m, err := tx.CreateBucket([]byte("discharger"))
			if err != nil {
				return err
			}
			return m.Put([]byte("id"), []byte("discharger-1:0123456789012345678901"))
		}),
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := bolt.Open(bolt.Config{Path: path})
			if err == nil {
				b.Close()
				t.Errorf("%s: opened", what)
			} else if !strings.Contains(err.Error(), path) {
				t.Errorf("%s: error does not name the file: %v", what, err)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(after, content) {
				t.Errorf("%s: the file was changed", what)
			}
		})
	}
	for what, path := range map[string]string{
		"a directory":  t.TempDir(),
		"no directory": filepath.Join(t.TempDir(), "no", "store.db"),
		"no path":      "",
	} {
		t.Run(what, func(t *testing.T) {
			if b, err := bolt.Open(bolt.Config{Path: path}); err == nil {
				b.Close()
				t.Errorf("%s: opened", what)
			}
		})
	}
	for _, cfg := range []bolt.Config{{Path: good, SweepEvery: -1}, {Path: good, LockTimeout: -1}} {
		if b, err := bolt.Open(cfg); err == nil {
			b.Close()
			t.Errorf("opened with %+v", cfg)
		}
	}
	openBolt(t, bolt.Config{Path: good})
	info, err := os.Stat(good)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
}

// foreignBolt makes a bbolt file of another kind.
func foreignBolt(t testing.TB, fill func(*bbolt.Tx) error) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "foreign.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fill), db.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBoltCutShort finds a file that another process created and did not get
// to fill.
func TestBoltCutShort(t *testing.T) {
	t.Parallel()
	for what, content := range map[string][]byte{
		"empty":      {},
		"no buckets": foreignBolt(t, func(*bbolt.Tx) error { return nil }),
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := bolt.Open(bolt.Config{Path: path})
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			if err := errors.Join(b.Ready(t.Context()), b.Close()); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
}

// TestBoltTaken notices that the file is no longer the one on the disk.
func TestBoltTaken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	b := openBolt(t, bolt.Config{Path: path})
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := b.Ready(t.Context()); !errors.Is(err, store.ErrLost) {
		t.Errorf("Ready without a file: %v", err)
	}
	openBolt(t, bolt.Config{Path: path})
	if err := b.Ready(t.Context()); !errors.Is(err, store.ErrLost) {
		t.Errorf("Ready with another file: %v", err)
	}
	if err := os.Rename(path+".old", path); err != nil {
		t.Fatal(err)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestBoltDamagedRow damages rows of a good file. Their readers get an error,
// and the other rows stay readable.
func TestBoltDamagedRow(t *testing.T) {
	t.Parallel()
	c := storetest.NewClock()
	b := openBolt(t, bolt.Config{Path: filepath.Join(t.TempDir(), "store.db")}.WithClock(c.Now))
	f := &storetest.Fixture{Store: b, Clock: c}
	u, v, id := storetest.NewUser(), storetest.NewUser(), storetest.NewSession()
	for _, w := range []store.UserKey{u, v} {
		f.MustSwap(t, true, w, store.Change{Session: id, New: []byte("a"), Expires: c.In(time.Hour)})
	}
	b.PutRow(t, u, id, []byte("\x00\x00\x00\x01")) // an expiry and nothing else
	if got, err := b.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
		t.Errorf("Load gives %v", got)
	}
	if got, err := b.List(t.Context(), u); err == nil {
		t.Errorf("List gives %v", got)
	}
	for _, c := range []store.Change{{Session: id, New: []byte("b")}, {Session: id, Old: []byte("a"), New: []byte("b")}, {Session: id}} {
		if ok, err := b.Swap(t.Context(), storetest.One(u, c)); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("Swap gives %v, %v", ok, err)
		}
	}
	f.Expect(t, v, id, "a", "")
	c.Advance(2 * time.Hour)
	if n, err := b.Sweep(t.Context()); n != 1 || err == nil {
		t.Errorf("Sweep removed %d, %v; want 1 and an error", n, err)
	}
	if b.Rows(t, u) != 1 || b.Rows(t, v) != 0 {
		t.Errorf("%d and %d rows are left, want 1 and 0", b.Rows(t, u), b.Rows(t, v))
	}
}

// TestBoltPageLoop opens a file with a page that is below itself.
func TestBoltPageLoop(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	bolt.Fill(t, path, 10_000)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A page begins with its number, and 1 for one that has pages below. The number
	// of the first of these follows the size and the length of its key.
	size, looped := os.Getpagesize(), false
	for at := 2 * size; at < len(file); at += size {
		if page := file[at : at+size]; binary.NativeEndian.Uint16(page[8:]) == 1 {
			copy(page[16+8:], page[:8])
			looped = true
		}
	}
	if !looped {
		t.Fatal("no page has pages below")
	}
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := bolt.Open(bolt.Config{Path: path}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("Open: %v, %v, want an error for the damage", b, err)
	}
}
