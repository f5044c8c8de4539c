package journal_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestJournal writes entries, and finds them again after the file was closed.
func TestJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := journal.Open(journal.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	want := []revocation.Revocation{
		storetest.EntryOf(1),
		{Kind: revocation.KindUser, Homeserver: "\x00\xff", User: strings.Repeat("x", 4096), Except: caveat.SessionID{9}, Generation: 1 << 60, At: -1, Keep: 1, ExceptKeep: 2},
		{Kind: revocation.KindHomeserver, Homeserver: "h", Generation: 3, At: 7},
	}
	for range 3 { // the same again is written once
		if err := j.Add(t.Context(), want...); err != nil {
			t.Fatal(err)
		}
	}
	if got := storetest.All(t, j); !slices.Equal(got, want) {
		t.Errorf("the journal has %+v", got)
	}
	if _, err := journal.Open(journal.Config{Path: path, LockWait: time.Millisecond}); !errors.Is(err, journal.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	j = storetest.OpenJournal(t, journal.Config{Path: path})
	if got := storetest.All(t, j); !slices.Equal(got, want) {
		t.Errorf("reopened, the journal has %+v", got)
	}
}

// TestJournalAdopt adopts the journal of a process that has ended.
func TestJournalAdopt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine, theirs := filepath.Join(dir, "1.db"), filepath.Join(dir, "2.db")
	j := storetest.OpenJournal(t, journal.Config{Path: mine})
	if err := j.Add(t.Context(), storetest.EntryOf(1)); err != nil {
		t.Fatal(err)
	}
	other, err := journal.Open(journal.Config{Path: theirs})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Add(t.Context(), storetest.EntryOf(2), storetest.EntryOf(3)); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 0} {
		if n, err := j.Adopt(t.Context(), theirs); n != want || err != nil {
			t.Errorf("adopted %d, %v, want %d", n, err, want)
		}
	}
	if got, want := storetest.All(t, j), []revocation.Revocation{storetest.EntryOf(1), storetest.EntryOf(2), storetest.EntryOf(3)}; !slices.Equal(got, want) {
		t.Errorf("the journal has %+v", got)
	}
}

// TestJournalTogether has many write at the same time.
func TestJournalTogether(t *testing.T) {
	t.Parallel()
	j := storetest.OpenJournal(t, journal.Config{})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if err := j.Add(t.Context(), storetest.EntryOf(byte(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(storetest.All(t, j)); n != 200 {
		t.Errorf("%d entries", n)
	}
}

// TestJournalBounds lets time pass and too many come.
func TestJournalBounds(t *testing.T) {
	t.Parallel()
	c := storetest.NewClock()
	var log storetest.LogBuffer
	path := filepath.Join(t.TempDir(), "journal.db")
	j := storetest.OpenJournal(t, journal.Config{Path: path, Window: time.Hour, MaxEntries: 10, Log: log.Logger()}.WithClock(c.Now))
	if err := j.Add(t.Context(), storetest.EntryOf(1), storetest.EntryOf(2)); err != nil {
		t.Fatal(err)
	}
	c.Advance(59 * time.Minute)
	if err := j.Add(t.Context(), storetest.EntryOf(3)); err != nil {
		t.Fatal(err)
	}
	c.Advance(2 * time.Minute)
	if got := storetest.All(t, j); !slices.Equal(got, []revocation.Revocation{storetest.EntryOf(3)}) {
		t.Errorf("after the window: %+v", got)
	}
	if err := j.Add(t.Context(), storetest.EntryOf(1)); err != nil { // its first writing is over
		t.Fatal(err)
	}
	if got := storetest.All(t, j); !slices.Equal(got, []revocation.Revocation{storetest.EntryOf(3), storetest.EntryOf(1)}) {
		t.Errorf("added again after the window: %+v", got)
	}
	for i := range 40 {
		if err := j.Add(t.Context(), storetest.EntryOf(byte(100+i))); err != nil {
			t.Fatal(err)
		}
	}
	got := storetest.All(t, j)
	if len(got) != 10 || got[0] != storetest.EntryOf(130) || got[9] != storetest.EntryOf(139) {
		t.Errorf("of 40, %d are left, from %+v on", len(got), got[0].Session)
	}
	if n := strings.Count(log.String(), "journal is full"); n != 1 {
		t.Errorf("warned %d times: %s", n, log.String())
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		if err := j.Add(t.Context(), storetest.EntryOf(byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := os.Stat(path); err != nil || after.Size() > 2*before.Size() {
		t.Errorf("the file grew from %d to %d bytes, %v", before.Size(), after.Size(), err)
	}
}

func TestJournalRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rubbish := filepath.Join(dir, "rubbish")
	if err := os.WriteFile(rubbish, bytes.Repeat([]byte("rubbish"), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, cfg := range map[string]journal.Config{
		"no path":      {},
		"no directory": {Path: filepath.Join(dir, "none", "journal.db")},
		"a directory":  {Path: dir},
		"rubbish":      {Path: rubbish},
		"window":       {Path: filepath.Join(dir, "j"), Window: -1},
		"entries":      {Path: filepath.Join(dir, "j"), MaxEntries: -1},
	} {
		t.Run(what, func(t *testing.T) {
			if j, err := journal.Open(cfg); err == nil {
				j.Close()
				t.Errorf("%s: opened", what)
			}
		})
	}
	j := storetest.OpenJournal(t, journal.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // some of them are being written when the caller is gone
		if err := j.Add(ctx, storetest.EntryOf(1)); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Add with an ended context: %v", err)
		}
	}
}
