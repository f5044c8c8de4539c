package storetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/journal"
)

// EditJournal changes a journal's file in other ways than a journal does.
func EditJournal(t testing.TB, path string, edit func(entries *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return edit(tx.Bucket([]byte("entries"))) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// Number returns the key of an entry.
func Number(n byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, n} }

// OpenJournal opens a journal, by default in a new directory, until the test ends.
func OpenJournal(t testing.TB, cfg journal.Config) *journal.Journal {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "journal.db")
	}
	if cfg.LockWait == 0 {
		cfg.LockWait = time.Minute
	}
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// EntryOf returns the entry of a session.
func EntryOf(id byte) revocation.Revocation {
	return revocation.Revocation{
		Kind: revocation.KindSession, Homeserver: "example.org", User: "@alice:example.org",
		Session: caveat.SessionID{id}, At: 1000 * int64(id), Keep: 5,
	}
}

// All returns the entries of a journal.
func All(t testing.TB, j *journal.Journal) []revocation.Revocation {
	t.Helper()
	got, err := j.All()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// BreakJournal makes every later write to a journal fail, as a full disk would.
func BreakJournal(t testing.TB, j *journal.Journal) {
	t.Helper()
	path, err := filepath.EvalSymlinks(j.Path())
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range open {
		var fd int
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || name != path {
			continue
		}
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%s is not open", path)
}
