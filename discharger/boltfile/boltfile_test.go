package boltfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
)

// newFile returns the path of a file with one bucket of some rows.
func newFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.db")
	db, err := boltfile.Open(path, boltfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("rows"))
		for i := range 1000 {
			err = errors.Join(err, b.Put([]byte{byte(i >> 8), byte(i)}, make([]byte, 100)))
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func readRows(path string) error {
	db, err := boltfile.Open(path, boltfile.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("rows")).ForEach(func(k, v []byte) error { return nil })
	})
}

func TestOpenFileInUse(t *testing.T) {
	path := newFile(t)
	db, err := boltfile.Open(path, boltfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := boltfile.Open(path, boltfile.Options{LockTimeout: time.Millisecond}); !errors.Is(err, boltfile.ErrInUse) {
		t.Errorf("second Open: %v, want ErrInUse", err)
	}
}

// TestDamagedPages overwrites each page in turn. Nothing may panic, and Check
// reports every damage that readers would meet.
func TestDamagedPages(t *testing.T) {
	path := newFile(t)
	if err := boltfile.Check(path); err != nil {
		t.Fatalf("intact file: %v", err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := os.Getpagesize()
	for at := 0; at < len(whole); at += size {
		damaged := append([]byte(nil), whole...)
		copy(damaged[at:at+64], strings.Repeat("\xff", 64))
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		readErr := readRows(path)
		checkErr := boltfile.Check(path)
		if readErr != nil && checkErr == nil {
			t.Errorf("page %d: reading fails with %v, Check with nothing", at/size, readErr)
		}
	}
}

func TestInspectNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.db")
	called := func(*bbolt.Tx) error { return errors.New("called") }
	if err := boltfile.Inspect(path, time.Second, called); err != nil {
		t.Errorf("file that does not exist: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := boltfile.Inspect(path, time.Second, called); err != nil {
		t.Errorf("empty file: %v", err)
	}
	if err := boltfile.Inspect(filepath.Dir(path), time.Second, called); err == nil {
		t.Error("a directory was inspected")
	}
}
