package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// journalFile returns the path of a closed journal with entries, and these.
func journalFile(t testing.TB, n int) (string, []revocation.Revocation) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := journal.Open(journal.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var entries []revocation.Revocation
	for i := range n {
		e := storetest.EntryOf(byte(i))
		e.Session[1], e.Cause = byte(i>>8), revocation.CauseLogout
		entries = append(entries, e)
	}
	for some := range slices.Chunk(entries, 50) {
		if err := j.Add(t.Context(), some...); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return path, entries
}

// TestJournalFlipped flips bits all over the file. The journal is read
// completely, or reports damage.
func TestJournalFlipped(t *testing.T) {
	t.Parallel()
	path, want := journalFile(t, 1000)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := bytes.TrimRight(whole, "\x00")
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	refused, damaged, complete := 0, 0, 0
	for round := range 400 {
		copied := bytes.Clone(whole)
		at := random.IntN(len(used))
		if round%4 == 0 { // where the file's structure is
			at = random.IntN(len(used)/os.Getpagesize())*os.Getpagesize() + random.IntN(100)
		}
		copied[at] ^= 1 << random.IntN(8)
		path := filepath.Join(t.TempDir(), "journal.db")
		if err := os.WriteFile(path, copied, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(journal.Config{Path: path})
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("seed %d, offset %d: the error does not name the file: %v", seed, at, err)
			}
			refused++
			continue
		}
		got, err := j.All()
		switch {
		case err != nil && j.Damage() == nil:
			t.Errorf("seed %d, offset %d: All gives %v, but Damage nothing", seed, at, err)
		case err != nil && !strings.Contains(err.Error(), path):
			t.Errorf("seed %d, offset %d: the error does not name the file: %v", seed, at, err)
		case err != nil:
			damaged++
		case !slices.Equal(got, want):
			t.Errorf("seed %d, offset %d: %d of %d entries, and no error", seed, at, len(got), len(want))
		default:
			complete++
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
	if damaged == 0 || complete == 0 {
		t.Errorf("%d refused, %d damaged, %d complete: this shows nothing", refused, damaged, complete)
	}
}

// TestJournalDamage reports the missing numbers, accepts no entry until it is
// renewed, and keeps the readable entries.
func TestJournalDamage(t *testing.T) {
	t.Parallel()
	flip := func(n byte) func(*bbolt.Bucket) error {
		return func(b *bbolt.Bucket) error {
			row := bytes.Clone(b.Get(storetest.Number(n)))
			row[len(row)/2]++
			return b.Put(storetest.Number(n), row)
		}
	}
	for _, c := range []struct {
		name   string
		edit   func(*bbolt.Bucket) error
		says   string
		remain int
	}{
		{"flipped", flip(5), "entries 5 cannot be read", 19},
		{"removed", func(b *bbolt.Bucket) error {
			return errors.Join(b.Delete(storetest.Number(7)), b.Delete(storetest.Number(8)))
		}, "entries 7 to 8 cannot be read", 18},
		{"first removed", func(b *bbolt.Bucket) error { return b.Delete(storetest.Number(1)) }, "entries 1 cannot be read", 19},
		{"last removed", func(b *bbolt.Bucket) error { return b.Delete(storetest.Number(20)) }, "entries 20 cannot be read", 19},
		{"exchanged", func(b *bbolt.Bucket) error {
			two, three := bytes.Clone(b.Get(storetest.Number(2))), bytes.Clone(b.Get(storetest.Number(3)))
			return errors.Join(b.Put(storetest.Number(2), three), b.Put(storetest.Number(3), two))
		}, "entries 2 to 3 cannot be read", 18},
		{"as an earlier version", func(b *bbolt.Bucket) error { return b.Put(storetest.Number(4), journal.OldRow(storetest.EntryOf(4))) }, "entries 4 cannot be read", 19},
		{"fewer numbers", func(b *bbolt.Bucket) error { return b.SetSequence(12) }, "any revocation in it may be missing", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path, want := journalFile(t, 20)
			storetest.EditJournal(t, path, c.edit)
			j := storetest.OpenJournal(t, journal.Config{Path: path})
			var damage *journal.DamageError
			if err := j.Damage(); !errors.As(err, &damage) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Fatalf("Damage gives %v, want %q", err, c.says)
			}
			if got, err := j.All(); !errors.As(err, &damage) {
				t.Errorf("All gives %d entries, %v", len(got), err)
			}
			if err := j.Add(t.Context(), storetest.EntryOf(99)); !errors.As(err, &damage) {
				t.Errorf("Add: %v", err)
			}
			aside, kept, err := j.Renew(t.Context())
			if err != nil || kept < c.remain {
				t.Fatalf("renewed, %d entries are kept, %v; want %d", kept, err, c.remain)
			}
			if _, err := os.Stat(aside); err != nil {
				t.Error(err)
			}
			for _, e := range storetest.All(t, j) {
				if !slices.Contains(want, e) {
					t.Errorf("renewed, the journal has %+v", e)
				}
			}
			if err := j.Add(t.Context(), storetest.EntryOf(99)); err != nil {
				t.Error(err)
			}
			if _, _, err := j.Renew(t.Context()); err == nil {
				t.Error("renewed without damage")
			}
		})
	}
}

// TestJournalRoots damages one of the two roots of the file: bbolt takes the
// other one, without a word.
func TestJournalRoots(t *testing.T) {
	t.Parallel()
	for _, page := range []int{0, 1} {
		t.Run(fmt.Sprint(page), func(t *testing.T) {
			t.Parallel()
			path, _ := journalFile(t, 20)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[page*os.Getpagesize()+40]++
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			j := storetest.OpenJournal(t, journal.Config{Path: path})
			if err := j.Damage(); err == nil || !strings.Contains(err.Error(), "the last commit may be missing") {
				t.Errorf("Damage gives %v", err)
			}
		})
	}
}

// TestJournalEarlier opens a file of a version whose entries had no checksums,
// and holes where a revocation had come to nothing.
func TestJournalEarlier(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []revocation.Revocation{
		storetest.EntryOf(1),
		{Kind: revocation.KindUser, Homeserver: "h", User: "u", Except: caveat.SessionID{9}, Generation: 7, At: 5, Keep: 1, ExceptKeep: 2},
		{Kind: revocation.KindHomeserver, Homeserver: "h", Generation: 3, At: 7},
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		entries, err := tx.CreateBucket([]byte("entries"))
		if err != nil {
			return err
		}
		for i, n := range []byte{4, 6, 9} {
			if err := entries.Put(storetest.Number(n), journal.OldRowAt(time.Now(), want[i])); err != nil {
				return err
			}
		}
		_, err = tx.CreateBucket([]byte("primaries"))
		return errors.Join(err, entries.SetSequence(11))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		j, err := journal.Open(journal.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if got := storetest.All(t, j); !slices.Equal(got, want) {
			t.Errorf("the journal has %+v", got)
		}
		next := storetest.EntryOf(byte(len(want)))
		next.Soft, next.Cause, next.Code = true, revocation.CausePolicy, "outdated"
		if err := j.Add(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		want = append(want, next)
		if got := storetest.All(t, j); !slices.Equal(got, want) {
			t.Errorf("with another entry, the journal has %+v", got)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	storetest.EditJournal(t, path, func(b *bbolt.Bucket) error { return b.Delete(storetest.Number(12)) })
	if err := storetest.OpenJournal(t, journal.Config{Path: path}).Damage(); err == nil || !strings.Contains(err.Error(), "entries 12 cannot be read") {
		t.Errorf("Damage gives %v", err)
	}
}
