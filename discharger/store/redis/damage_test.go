package redis_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestRedisJournalDamaged opens a store whose journal is damaged. It answers
// nothing until an operator accepts that, which records a loss only if the server
// is another one than had the journal's revocations.
func TestRedisJournalDamaged(t *testing.T) {
	t.Parallel()
	for name, another := range map[string]bool{"same server": false, "another server": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := forgetful(t)
			path := filepath.Join(t.TempDir(), "journal.db")
			j, err := journal.Open(journal.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			cfg := s.Config()
			cfg.Journal = j
			r, err := redis.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			u, id := storetest.NewUser(), storetest.NewSession()
			f := &storetest.Fixture{Store: r, Clock: storetest.NewClock()}
			f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
			w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: storetest.Live(t, 0), New: storetest.Tombstone(t)}}}
			if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
				t.Fatal(ok, err)
			}
			if err := errors.Join(r.Close(), j.Close()); err != nil {
				t.Fatal(err)
			}
			s.Do(t, "save")
			if another {
				s.crash(t)
			}
			storetest.EditJournal(t, path, func(e *bbolt.Bucket) error {
				row := bytes.Clone(e.Get(storetest.Number(1)))
				row[len(row)/2]++
				return e.Put(storetest.Number(1), row)
			})
			cfg.Journal = storetest.OpenJournal(t, journal.Config{Path: path, LockWait: time.Minute})
			r = OpenRedis(t, cfg)
			if err := r.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), path+" is damaged: entries 1 cannot be read") {
				t.Errorf("Ready gives %v", err)
			}
			if _, err := r.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
				t.Error("a session is loaded")
			}
			if err := r.AcceptLoss(t.Context()); err != nil && !strings.Contains(err.Error(), "replayed") {
				t.Fatal(err)
			}
			redistest.Eventually(t, "the store is ready", func() bool { return r.Ready(t.Context()) == nil })
			l, err := r.Losses(t.Context())
			if err != nil || l.All.IsZero() == another {
				t.Errorf("losses are %+v, %v", l, err)
			}
		})
	}
}
