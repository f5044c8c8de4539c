package bolt_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// journaled is a store in a file with a journal beside it and a marker, which is
// closed and opened again, on files that others put there.
type journaled struct {
	*storetest.Fixture
	t       testing.TB
	dir     string
	marker  *storetest.Memory
	journal *journal.Journal
	bolt    *bolt.Store
	window  time.Duration
	log     *storetest.LogBuffer
}

func newJournaled(t testing.TB) *journaled {
	s := &journaled{t: t, dir: t.TempDir(), marker: new(storetest.Memory), log: new(storetest.LogBuffer), Fixture: &storetest.Fixture{Clock: storetest.NewClock()}}
	s.open()
	t.Cleanup(func() {
		if s.bolt != nil {
			s.close()
		}
	})
	return s
}

func (s *journaled) path(name string) string { return filepath.Join(s.dir, name) }

func (s *journaled) open() {
	s.t.Helper()
	var err error
	s.journal, err = journal.Open(journal.Config{
		Path: s.path("journal.db"), LockWait: time.Minute, Window: s.window, Log: s.log.Logger(),
	}.WithClock(s.Clock.Now))
	if err != nil {
		s.t.Fatal(err)
	}
	s.bolt, err = bolt.Open(bolt.Config{
		Path: s.path("sessions.db"), LockTimeout: time.Minute, Marker: s.marker, Journal: s.journal, Log: s.log.Logger(),
		Replayer: failover.New(revocation.Lifetime{}, s.log.Logger()),
	}.WithClock(s.Clock.Now))
	if err != nil {
		s.t.Fatal(err)
	}
	s.Store = s.bolt
}

func (s *journaled) close() {
	s.t.Helper()
	if err := errors.Join(s.bolt.Close(), s.journal.Close()); err != nil {
		s.t.Fatal(err)
	}
	s.bolt = nil
}

// during closes the store, does something to its files and opens it again.
func (s *journaled) during(do func()) {
	s.t.Helper()
	s.close()
	do()
	s.open()
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *journaled) copy(from, to string) { copyFile(s.t, s.path(from), s.path(to)) }

func (s *journaled) remove(name string) {
	s.t.Helper()
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
}

// begin activates a session, as far as a store is concerned.
func (s *journaled) begin(u store.UserKey) caveat.SessionID {
	s.t.Helper()
	id := storetest.NewSession()
	s.MustSwap(s.t, true, u, store.Change{Session: id, New: storetest.Live(s.t, 0)})
	return id
}

// end ends one.
func (s *journaled) end(u store.UserKey, id caveat.SessionID) {
	s.t.Helper()
	dead := &session.Record{Device: "D", End: revocation.End{Cause: revocation.CauseLogout, At: 1_700_000_100_000}}
	e := revocation.Revocation{
		Kind: revocation.KindSession, Homeserver: u.Homeserver, User: u.User, Session: id, At: dead.End.At, Cause: revocation.CauseLogout,
		Notice: revocation.Notice{Until: s.Clock.In(time.Hour).UnixMilli()},
	}
	ok, err := s.Swap(s.t.Context(), store.Write{User: u, Revocations: []revocation.Revocation{e}, Changes: []store.Change{
		{Session: id, Old: storetest.Live(s.t, 0), New: storetest.Marshal(s.t, dead), Expires: s.Clock.In(90 * 24 * time.Hour)},
	}})
	if !ok || err != nil {
		s.t.Fatalf("revoke: %v, %v", ok, err)
	}
}

// expectEnd expects a session to have ended hard by a logout.
func (s *journaled) expectEnd(u store.UserKey, id caveat.SessionID) {
	s.t.Helper()
	var r session.Record
	if err := r.UnmarshalBinary(s.MustLoad(s.t, u, id).Session); err != nil {
		s.t.Fatal(err)
	}
	if !r.Over() || r.End.Soft || r.End.Cause != revocation.CauseLogout {
		s.t.Fatalf("the session's record is %+v", r)
	}
}

func (s *journaled) expectLost(says string) {
	s.t.Helper()
	err := s.Ready(s.t.Context())
	if !errors.Is(err, store.ErrLost) || !strings.Contains(err.Error(), says) {
		s.t.Fatalf("Ready gives %v, want %q", err, says)
	}
	if _, err := s.Load(s.t.Context(), storetest.NewUser(), storetest.NewSession(), revocation.DeviceTag{}); !errors.Is(err, store.ErrLost) {
		s.t.Fatalf("Load gives %v", err)
	}
}

func (s *journaled) accept() {
	s.t.Helper()
	if err := s.bolt.AcceptLoss(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Ready(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// TestBoltOlderCopy puts an older copy of the file back: sessions ended since
// have ended.
func TestBoltOlderCopy(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	alice, bob, carol := storetest.NewUser(), storetest.NewUser(), storetest.NewUser()
	carol.Homeserver = bob.Homeserver
	one, two, kept := s.begin(alice), s.begin(alice), s.begin(bob)
	born := s.bolt.Losses()
	s.during(func() { s.copy("sessions.db", "copy.db") })
	s.end(alice, one)
	all := session.GenerationRecord{Generation: 1, At: 1_700_000_200_000, Except: kept}
	device := session.DeviceRecord{Revoked: 1_700_000_300_000, End: revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: 1_700_000_300_000}}
	ok, err := s.Swap(t.Context(), store.Write{User: bob, Changes: []store.Change{
		{New: storetest.Marshal(t, all)}, {Device: revocation.TagOf("D"), New: storetest.Marshal(t, device)},
	}, Revocations: []revocation.Revocation{
		{Kind: revocation.KindUser, Homeserver: bob.Homeserver, User: bob.User, Except: kept, Generation: 1, At: all.At, Cause: revocation.CauseRevoked},
		{Kind: revocation.KindDevice, Homeserver: bob.Homeserver, User: bob.User, Tag: revocation.TagOf("D"), At: device.Revoked, Soft: true, Cause: revocation.CauseRevoked},
	}})
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	mark := session.GenerationRecord{Generation: 1, At: 1_700_000_400_000}
	home := storetest.Marshal(t, mark)
	if ok, err := s.SwapHomeserver(t.Context(), carol.Homeserver, nil, home, session.RevokedHomeserver(carol.Homeserver, &mark)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for range 3 {
		s.during(func() { s.copy("copy.db", "sessions.db") })
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.expectEnd(alice, one)
		s.Expect(t, alice, two, string(storetest.Live(t, 0)), "")
		v := s.MustLoad(t, bob, kept)
		var user session.GenerationRecord
		if err := user.UnmarshalBinary(v.User); err != nil || user.Generation != 1 || user.Except != kept {
			t.Errorf("the user's record is %+v, %v", user, err)
		}
		if got := s.Device(t, bob, revocation.TagOf("D")); got != string(storetest.Marshal(t, device)) {
			t.Errorf("the device's record is %x", got)
		}
		if !bytes.Equal(v.Homeserver, home) {
			t.Errorf("the homeserver's record is %x", v.Homeserver)
		}
		if v.Losses != born {
			t.Errorf("losses are %+v, were %+v", v.Losses, born)
		}
		page, err := s.Feed().ReadFeed(t.Context(), alice.Homeserver, "")
		if err != nil || len(page.Entries) != 1 || !bytes.Contains(page.Entries[0].Data, []byte(one.String())) {
			t.Errorf("the feed has %+v, %v", page, err)
		}
		if st := s.bolt.JournalStats(); st.Replayed != 5 {
			t.Errorf("statistics: %+v", st)
		}
	}
	if n := strings.Count(s.log.String(), "store is an older copy"); n != 3 {
		t.Errorf("logged %d times: %s", n, s.log.String())
	}
}

// TestBoltTwoHistories continues an older copy, and then puts back a copy of
// the other history: neither revives a session that ended in the other.
func TestBoltTwoHistories(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u := storetest.NewUser()
	ids := []caveat.SessionID{s.begin(u), s.begin(u), s.begin(u), s.begin(u)}
	s.during(func() { s.copy("sessions.db", "first.db") })
	s.end(u, ids[0])
	for range 20 {
		s.begin(storetest.NewUser())
	}
	s.during(func() {
		s.copy("sessions.db", "second.db")
		s.copy("first.db", "sessions.db")
	})
	s.end(u, ids[1])
	s.begin(storetest.NewUser())
	s.during(func() {
		s.copy("sessions.db", "third.db")
		s.copy("second.db", "sessions.db")
	})
	s.end(u, ids[2])
	for _, name := range []string{"first.db", "third.db", "second.db"} {
		s.during(func() { s.copy(name, "sessions.db") })
		for _, id := range ids[:3] {
			s.expectEnd(u, id)
		}
		s.Expect(t, u, ids[3], string(storetest.Live(t, 0)), "")
	}
}

// TestBoltFileLost removes the file. Ended sessions have ended in the new one,
// and the rest is lost.
func TestBoltFileLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*journaled){
		"file":   func(s *journaled) { s.remove("sessions.db") },
		"marker": func(s *journaled) { s.remove("sessions.db"); s.marker.Id = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newJournaled(t)
			u := storetest.NewUser()
			id := s.begin(u)
			s.begin(u)
			s.end(u, id)
			s.during(func() { lose(s) })
			s.expectLost("is not the store that")
			s.Clock.Advance(time.Hour)
			s.accept()
			s.expectEnd(u, id)
			if got, want := s.MustLoad(t, u, storetest.NewSession()).Losses, (store.Losses{Missing: s.Clock.Now().UnixMilli()}); got != want {
				t.Errorf("losses are %+v, want %+v", got, want)
			}
			if !strings.Contains(s.log.String(), "level=WARN msg=\"loss of the store's data was accepted") {
				t.Errorf("log is %q", s.log.String())
			}
			s.during(func() {})
			s.expectEnd(u, id)
		})
	}
}

// TestBoltTooOld puts a copy back that the journal cannot complete any more:
// sessions with a record may have been revoked too.
func TestBoltTooOld(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	s.window = time.Hour
	u := storetest.NewUser()
	first, second := s.begin(u), s.begin(u)
	s.during(func() { s.copy("sessions.db", "copy.db") })
	s.end(u, first)
	s.Clock.Advance(2 * time.Hour)
	s.end(u, second) // and the first entry is removed
	s.Clock.Advance(2 * time.Minute)
	s.end(u, s.begin(u))
	s.during(func() { s.copy("sessions.db", "late.db") })
	s.during(func() { s.copy("copy.db", "sessions.db") })
	s.expectLost("is an older copy, from before the entries of journal")
	s.during(func() { s.copy("late.db", "sessions.db") }) // a better one is found
	s.expectEnd(u, first)
	s.during(func() { s.copy("copy.db", "sessions.db") })
	s.accept()
	s.expectEnd(u, second)
	now := s.Clock.Now()
	if got, want := s.MustLoad(t, u, first).Losses, (store.Losses{Missing: now.UnixMilli(), All: now.Truncate(time.Second).UnixMilli()}); got != want {
		t.Errorf("losses are %+v, want %+v", got, want)
	}
	s.during(func() { s.copy("copy.db", "sessions.db") })
	s.expectLost("is an older copy")
}

// TestBoltForeign finds the file of another store.
func TestBoltForeign(t *testing.T) {
	t.Parallel()
	s, other := newJournaled(t), newJournaled(t)
	s.during(func() {
		other.during(func() { copyFile(t, other.path("sessions.db"), s.path("sessions.db")) })
	})
	s.expectLost("is not the store that the marker names")
	s.accept()
	if l := s.bolt.Losses(); l.All == 0 || l.Missing < l.All {
		t.Errorf("losses are %+v", l)
	}
}

// TestBoltCrash dies between the journal and the file, and before a lost race is
// made void.
func TestBoltCrash(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u := storetest.NewUser()
	a, b := s.begin(u), s.begin(u)
	if err := s.journal.Add(t.Context(), revocation.Revocation{
		Kind: revocation.KindSession, Homeserver: u.Homeserver, User: u.User, Session: a, At: 1_700_000_100_000, Cause: revocation.CauseLogout,
	}); err != nil {
		t.Fatal(err)
	}
	s.crash()
	s.expectEnd(u, a)
	s.Expect(t, u, b, string(storetest.Live(t, 0)), "")

	// A race that was lost leaves nothing to replay.
	w := store.Write{User: u, Revocations: storetest.Ending(t, u, b), Changes: []store.Change{{Session: b, Old: storetest.Live(t, 7), New: storetest.Tombstone(t)}}}
	if ok, err := s.Swap(t.Context(), w); ok || err != nil {
		t.Fatal(ok, err)
	}
	s.crash()
	s.Expect(t, u, b, string(storetest.Live(t, 0)), "")
}

// crash goes on with the files as they are on the disk, without closing them.
func (s *journaled) crash() {
	s.t.Helper()
	s.copy("sessions.db", "sessions.crash")
	s.copy("journal.db", "journal.crash")
	s.during(func() {
		s.copy("sessions.crash", "sessions.db")
		s.copy("journal.crash", "journal.db")
	})
}

// TestBoltJournalExchanged goes on with an older journal, or without one: older
// copies of the file cannot be completed then.
func TestBoltJournalExchanged(t *testing.T) {
	t.Parallel()
	for name, exchange := range map[string]func(*journaled){
		"older":   func(s *journaled) { s.copy("journal.copy", "journal.db") },
		"removed": func(s *journaled) { s.remove("journal.db") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newJournaled(t)
			u := storetest.NewUser()
			id := s.begin(u)
			s.end(u, s.begin(u))
			s.during(func() {
				s.copy("sessions.db", "sessions.copy")
				s.copy("journal.db", "journal.copy")
			})
			s.end(u, id)
			s.during(func() { exchange(s) })
			if err := s.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(s.log.String(), "journal is not the one that the store has used") {
				t.Errorf("log is %q", s.log.String())
			}
			s.expectEnd(u, id)
			s.during(func() { s.copy("sessions.copy", "sessions.db") })
			s.expectLost("is an older copy")
		})
	}
}

// TestBoltJournalDamaged serves nothing with a damaged journal. If the file is
// shown to be current, accepting that ends no session.
func TestBoltJournalDamaged(t *testing.T) {
	t.Parallel()
	for name, older := range map[string]bool{"current": false, "older": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newJournaled(t)
			u := storetest.NewUser()
			a, b := s.begin(u), s.begin(u)
			s.during(func() { s.copy("sessions.db", "copy.db") })
			s.end(u, a)
			s.end(u, b)
			s.during(func() {
				storetest.EditJournal(t, s.path("journal.db"), func(e *bbolt.Bucket) error {
					row := bytes.Clone(e.Get(storetest.Number(1)))
					row[len(row)/2]++
					return e.Put(storetest.Number(1), row)
				})
				if older {
					s.copy("copy.db", "sessions.db")
				}
			})
			s.expectLost(s.path("journal.db") + " is damaged: entries 1 cannot be read")
			s.accept()
			s.expectEnd(u, b)
			if l := s.bolt.Losses(); (l.All != 0) != older {
				t.Errorf("losses are %+v", l)
			}
			aside, err := filepath.Glob(s.path("journal.db.damaged-*"))
			if len(aside) != 1 || err != nil {
				t.Errorf("put aside: %v, %v", aside, err)
			}
			s.during(func() {})
			s.expectEnd(u, b)
		})
	}
}

// TestBoltEarlier opens a file of a version that recorded nothing.
func TestBoltEarlier(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u := storetest.NewUser()
	id := s.begin(u)
	s.during(func() {
		s.remove("journal.db")
		db, err := bbolt.Open(s.path("sessions.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			meta := tx.Bucket([]byte("discharger"))
			for _, key := range []string{"commit", "missing", "all", "journal", "probe"} {
				if err := meta.Delete([]byte(key)); err != nil {
					return err
				}
			}
			return tx.DeleteBucket([]byte("devices"))
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	})
	if l := s.MustLoad(t, u, storetest.NewSession()).Losses; l != (store.Losses{}) {
		t.Errorf("losses are %+v", l)
	}
	s.end(u, id)
	s.expectEnd(u, id)
}

// TestBoltCopies ends sessions and puts copies back, at random. An ended
// session never lives again.
func TestBoltCopies(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	type login struct {
		user  store.UserKey
		id    caveat.SessionID
		ended bool
	}
	var all []*login
	users := []store.UserKey{storetest.NewUser(), storetest.NewUser(), storetest.NewUser()}
	copies := 0
	for range 150 {
		switch n := random.IntN(10); {
		case n < 3:
			u := users[random.IntN(len(users))]
			all = append(all, &login{user: u, id: s.begin(u)})
		case n < 6 && len(all) > 0:
			x := all[random.IntN(len(all))]
			var r session.Record
			if raw := s.MustLoad(t, x.user, x.id).Session; raw == nil {
				continue // it began after the copy
			} else if err := r.UnmarshalBinary(raw); err != nil {
				t.Fatal(err)
			}
			if !r.Over() {
				s.end(x.user, x.id)
				x.ended = true
			}
		case n < 7:
			s.Clock.Advance(time.Duration(random.IntN(90)) * time.Second)
		case n < 8:
			s.during(func() { s.copy("sessions.db", string(rune('a'+copies%8))) })
			copies++
		case n < 9:
			s.crash()
		case copies > 0:
			s.during(func() { s.copy(string(rune('a'+random.IntN(min(copies, 8)))), "sessions.db") })
		}
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, x := range all {
			if x.ended {
				s.expectEnd(x.user, x.id)
			}
		}
	}
}
