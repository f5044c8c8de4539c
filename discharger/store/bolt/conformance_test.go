package bolt_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func boltFixture(t testing.TB) *storetest.Fixture {
	c := storetest.NewClock()
	cfg := bolt.Config{Path: filepath.Join(t.TempDir(), "store.db"), LockTimeout: time.Minute}.WithClock(c.Now)
	f := &storetest.Fixture{Clock: c}
	open := func(t testing.TB) *bolt.Store {
		t.Helper()
		b, err := bolt.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open(t)
	f.Store = b
	t.Cleanup(func() { f.Close() })
	f.Other = func(testing.TB) store.Store { return f.Store } // one process has the file
	f.Reopen = func(t testing.TB, f *storetest.Fixture) {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f.Store = open(t)
	}
	f.Forget = func(t testing.TB, u store.UserKey) int {
		if _, err := b.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return b.Rows(t, u)
	}
	return f
}

func TestBoltConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, boltFixture)
}
