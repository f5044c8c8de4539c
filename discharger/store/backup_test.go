package store_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// backUp writes a backup of a running store into its directory.
func (s *journaled) backUp(name string) {
	s.t.Helper()
	var b bytes.Buffer
	if err := s.bolt.Backup(s.t.Context(), &b); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), b.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func openBackup(t testing.TB, path string) *store.Backup {
	t.Helper()
	b, err := store.OpenBackup(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// restore puts a backup in the place of the store.
func (s *journaled) restore(name string) *store.Restored {
	s.t.Helper()
	s.close()
	s.remove("sessions.db")
	j, err := store.OpenJournal(store.JournalConfig{Path: s.path("journal.db"), LockWait: time.Minute, Window: s.window, Now: s.clock.now})
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := store.RestoreBolt(s.t.Context(), store.BoltConfig{
		Path: s.path("sessions.db"), Marker: s.marker, Journal: j, Now: s.clock.now,
	}, openBackup(s.t, s.path(name)))
	if err := errors.Join(err, j.Close()); err != nil {
		s.t.Fatal(err)
	}
	s.open()
	if err := s.Ready(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// TestBackup restores a backup of a store that went on: what it had is there,
// what ended since has ended, and the rest is recorded as lost.
func TestBackup(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u, v := someone(), someone()
	ended, since, kept := s.begin(u), s.begin(u), s.begin(v)
	s.end(u, ended)
	s.swap(t, true, v,
		discharger.Change{New: []byte("user"), Expires: s.clock.in(time.Hour)},
		discharger.Change{Device: revocation.TagOf("D"), New: []byte("device"), Expires: s.clock.in(time.Hour)},
		discharger.Change{Session: caveat.SessionID{7}, New: []byte("short"), Expires: s.clock.in(time.Minute)})
	home := marshal(t, session.GenerationRecord{Generation: 1, At: 1_700_000_400_000})
	if ok, err := s.SwapHomeserver(t.Context(), v.Homeserver, nil, home); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.backUp("backup")
	b := openBackup(t, s.path("backup"))
	if b.Users != 1 || b.Sessions != 4 || b.Devices != 1 || b.Homeservers != 1 || b.Events != 1 || b.At != s.clock.now().UnixMilli() {
		t.Errorf("the backup is %+v", b)
	}
	s.end(u, since)
	later := s.begin(u)
	s.clock.advance(2 * time.Minute)
	for range 2 { // the second time, the journal has seen two histories
		r := s.restore("backup")
		want := session.Losses{Missing: s.clock.now().UnixMilli()}
		if !r.Vouched || len(r.Again) != 1 || r.Again[0].Session != since || r.Losses != want {
			t.Errorf("restored: %+v", r)
		}
		s.expectEnd(u, ended)
		s.expectEnd(u, since)
		s.expect(t, u, later, "", "")
		s.expect(t, v, kept, string(live(t, 0)), "user")
		s.expect(t, v, caveat.SessionID{7}, "", "user")
		view := s.load(t, v, kept)
		if !bytes.Equal(view.Homeserver, home) || view.Losses != want {
			t.Errorf("homeserver is %x, losses %+v", view.Homeserver, view.Losses)
		}
		if got := s.device(t, v, revocation.TagOf("D")); got != "device" {
			t.Errorf("device is %q", got)
		}
		page, err := s.feed().ReadFeed(t.Context(), u.Homeserver, "")
		if err != nil || len(page.Entries) != 2 {
			t.Errorf("the feed has %d events, %v", len(page.Entries), err)
		}
	}
	// The file is an ordinary one again.
	s.end(v, kept)
	s.during(func() {})
	s.expectEnd(v, kept)
}

// TestBackupUnknown restores a backup for which no journal vouches.
func TestBackupUnknown(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*journaled){
		"no journal": func(s *journaled) { s.remove("journal.db") },
		"another journal": func(s *journaled) {
			other := newJournaled(s.t)
			other.during(func() { copyFile(s.t, other.path("journal.db"), s.path("journal.db")) })
		},
		"too old": func(*journaled) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newJournaled(t)
			s.window = time.Hour
			u := someone()
			a := s.begin(u)
			s.backUp("backup")
			at := s.clock.now()
			s.during(func() {})
			s.end(u, s.begin(u))
			s.clock.advance(2 * time.Hour)
			s.end(u, s.begin(u))
			s.clock.advance(2 * time.Minute)
			s.end(u, s.begin(u))
			s.during(func() { lose(s) })
			r := s.restore("backup")
			want := session.Losses{Missing: s.clock.now().UnixMilli(), All: at.UnixMilli() + 1}
			if r.Vouched || r.Losses != want || s.load(t, u, a).Losses != want {
				t.Errorf("restored: %+v, want losses %+v", r, want)
			}
		})
	}
}

// TestBackupRefused changes and cuts a backup everywhere. Nothing is restored of
// it, and nothing over a store that is there.
func TestBackupRefused(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	for range 5 {
		s.begin(someone())
	}
	s.backUp("backup")
	whole, err := os.ReadFile(s.path("backup"))
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad")
	refuse := func(what string, at int, content []byte) {
		t.Helper()
		if err := os.WriteFile(bad, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := store.OpenBackup(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s at %d: %+v, %v", what, at, b, err)
		}
	}
	for n := range whole {
		refuse("cut", n, whole[:n])
		flipped := bytes.Clone(whole)
		flipped[n] ^= 1 << rand.IntN(8)
		refuse("flipped", n, flipped)
	}
	refuse("more", len(whole), append(bytes.Clone(whole), 0))
	b := openBackup(t, s.path("backup"))
	if _, err := store.RestoreBolt(t.Context(), store.BoltConfig{Path: s.path("sessions.db")}, b); !errors.Is(err, store.ErrStoreExists) {
		t.Errorf("over a store: %v", err)
	}
	if err := os.WriteFile(s.path("backup"), whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.RestoreBolt(t.Context(), store.BoltConfig{Path: s.path("new.db")}, b); err == nil {
		t.Error("a file that was changed meanwhile was restored")
	}
	if left, err := filepath.Glob(s.path("new.db*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestBackupFile makes a backup of a file that nothing has open, and none of one
// that is in use or no store.
func TestBackupFile(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	s.begin(someone())
	var b bytes.Buffer
	cfg := store.BoltConfig{Path: s.path("sessions.db"), LockTimeout: time.Millisecond}
	if err := store.BackupFile(t.Context(), cfg, &b); !errors.Is(err, store.ErrStoreInUse) {
		t.Errorf("of a file in use: %v", err)
	}
	s.during(func() {
		if err := store.BackupFile(t.Context(), store.BoltConfig{Path: s.path("sessions.db")}, &b); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(s.path("backup"), b.Bytes(), 0o600); err != nil {
			t.Error(err)
		}
	})
	if got := openBackup(t, s.path("backup")); got.Sessions != 1 {
		t.Errorf("the backup is %+v", got)
	}
	cfg.Path = s.path("none.db")
	if err := store.BackupFile(t.Context(), cfg, &b); err == nil {
		t.Error("a backup of no file was made")
	}
}

// TestBackupIntoRedis restores the backup of a file into Redis, which is given
// again what the journal has.
func TestBackupIntoRedis(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u, v := someone(), someone()
	since, kept := s.begin(u), s.begin(v)
	s.swap(t, true, v,
		discharger.Change{New: marshal(t, session.GenerationRecord{Generation: 1, At: 1}), Expires: s.clock.in(time.Hour)},
		discharger.Change{Device: revocation.TagOf("D"), New: marshal(t, session.DeviceRecord{Current: kept, Since: 1000})},
		discharger.Change{Session: caveat.SessionID{7}, New: bytes.Repeat([]byte("l"), 150), Expires: s.clock.in(time.Hour)})
	home := marshal(t, session.GenerationRecord{Generation: 1, At: 1_700_000_400_000})
	if ok, err := s.SwapHomeserver(t.Context(), v.Homeserver, nil, home); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.backUp("backup")
	s.end(u, since)
	b := openBackup(t, s.path("backup"))
	server := startRedis(t)
	cfg := server.config()
	marker := new(memory)
	s.during(func() {
		j, err := store.OpenJournal(store.JournalConfig{Path: s.path("journal.db"), LockWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		cfg.Marker, cfg.Journal = marker, j
		r, err := store.RestoreRedis(t.Context(), cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Vouched || r.Again[len(r.Again)-1].Session != since || r.Losses.All != 0 || r.Losses.Missing == 0 {
			t.Errorf("restored: %+v", r)
		}
		if _, err := store.RestoreRedis(t.Context(), cfg, b); !errors.Is(err, store.ErrStoreExists) {
			t.Errorf("restored twice: %v", err)
		}
		redis := openRedis(t, cfg)
		f := &journaled{t: t, fixture: &fixture{Store: redis, clock: newClock()}}
		if err := f.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.expectEnd(u, since)
		f.expect(t, v, kept, string(live(t, 0)), string(marshal(t, session.GenerationRecord{Generation: 1, At: 1})))
		f.expect(t, v, caveat.SessionID{7}, strings.Repeat("l", 150), string(marshal(t, session.GenerationRecord{Generation: 1, At: 1})))
		if got := f.device(t, v, revocation.TagOf("D")); got != string(marshal(t, session.DeviceRecord{Current: kept, Since: 1000})) {
			t.Errorf("device is %x", got)
		}
		view := f.load(t, v, newSession())
		if !bytes.Equal(view.Homeserver, home) || view.Losses.Missing < r.Losses.Missing || view.Losses.All != 0 {
			t.Errorf("homeserver is %x, losses %+v", view.Homeserver, view.Losses)
		}
		if err := redis.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestBackupHalfIntoRedis ends a restore before the record of the homeserver is
// there, by which the session was revoked.
func TestBackupHalfIntoRedis(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u := someone()
	s.begin(u)
	home := marshal(t, session.GenerationRecord{Generation: 1, At: 1_700_000_400_000})
	if ok, err := s.SwapHomeserver(t.Context(), u.Homeserver, nil, home); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.backUp("backup")
	b := openBackup(t, s.path("backup"))
	server := startRedis(t)
	server.do(t, "acl", "setuser", "half", "on", ">secret", "allcommands", "allchannels",
		"~ds{*}store:*", "~ds{*}since:*", "~ds{*}new:*", "~ds{*}"+strings.Repeat("?", 22))
	s.during(func() {
		j, err := store.OpenJournal(store.JournalConfig{Path: s.path("journal.db"), LockWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		cfg := server.config()
		cfg.Username, cfg.Password, cfg.Journal = "half", caveat.Secret("secret"), j
		if _, err := store.RestoreRedis(t.Context(), cfg, b); err == nil {
			t.Fatal("the record of the homeserver was written")
		}
	})
	f := &fixture{Store: openRedis(t, server.config()), clock: newClock()}
	if l := f.load(t, u, newSession()).Losses; l.All <= b.At {
		t.Errorf("losses are %+v: sessions activated before %d may have been revoked", l, b.At)
	}
}
