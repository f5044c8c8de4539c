package store_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
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
			j, err := store.OpenJournal(store.JournalConfig{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			cfg := s.config()
			cfg.Journal = j
			r, err := store.OpenRedis(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			u, id := someone(), newSession()
			f := &fixture{Store: r, clock: newClock()}
			f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
			w := discharger.Write{User: u, Revocations: ending(t, u, id), Changes: []discharger.Change{{Session: id, Old: live(t, 0), New: tombstone(t)}}}
			if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
				t.Fatal(ok, err)
			}
			if err := errors.Join(r.Close(), j.Close()); err != nil {
				t.Fatal(err)
			}
			s.do(t, "save")
			if another {
				s.crash(t)
			}
			editJournal(t, path, func(e *bbolt.Bucket) error {
				row := bytes.Clone(e.Get(number(1)))
				row[len(row)/2]++
				return e.Put(number(1), row)
			})
			cfg.Journal = openJournal(t, store.JournalConfig{Path: path, LockWait: time.Minute})
			r = openRedis(t, cfg)
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
