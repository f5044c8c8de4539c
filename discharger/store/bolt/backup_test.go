package bolt_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/backup"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/record"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
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

func openBackup(t testing.TB, path string) *backup.Backup {
	t.Helper()
	b, err := backup.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// restore puts a backup in the place of the store.
func (s *journaled) restore(name string) *backup.Restored {
	s.t.Helper()
	s.close()
	s.remove("sessions.db")
	j, err := journal.Open(journal.Config{Path: s.path("journal.db"), LockWait: time.Minute, Window: s.window}.WithClock(s.Clock.Now))
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := bolt.Restore(s.t.Context(), bolt.Config{
		Path: s.path("sessions.db"), Marker: s.marker, Journal: j, Replayer: failover.New(revocation.Lifetime{}, nil),
	}.WithClock(s.Clock.Now), openBackup(s.t, s.path(name)))
	if err := errors.Join(err, j.Close()); err != nil {
		s.t.Fatal(err)
	}
	s.open()
	if err := s.Ready(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// TestBackup restores a backup of a store that continued: its records are
// there, sessions ended since have ended, and the rest is recorded as lost.
func TestBackup(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u, v := storetest.NewUser(), storetest.NewUser()
	ended, since, kept := s.begin(u), s.begin(u), s.begin(v)
	s.end(u, ended)
	s.MustSwap(t, true, v,
		store.Change{New: []byte("user"), Expires: s.Clock.In(time.Hour)},
		store.Change{Device: revocation.TagOf("D"), New: []byte("device"), Expires: s.Clock.In(time.Hour)},
		store.Change{Session: caveat.SessionID{7}, New: []byte("short"), Expires: s.Clock.In(time.Minute)})
	mark := session.GenerationRecord{Generation: 1, At: 1_700_000_400_000}
	home := storetest.Marshal(t, mark)
	if ok, err := s.SwapHomeserver(t.Context(), v.Homeserver, nil, home, session.RevokedHomeserver(v.Homeserver, &mark)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.backUp("backup")
	b := openBackup(t, s.path("backup"))
	if b.Users != 1 || b.Sessions != 4 || b.Devices != 1 || b.Homeservers != 1 || b.Events != 1 || b.At != s.Clock.Now().UnixMilli() {
		t.Errorf("the backup is %+v", b)
	}
	s.end(u, since)
	later := s.begin(u)
	s.Clock.Advance(2 * time.Minute)
	for range 2 { // the second time, the journal has seen two histories
		r := s.restore("backup")
		want := store.Losses{Missing: s.Clock.Now().UnixMilli()}
		if !r.Vouched || len(r.Again) != 1 || r.Again[0].Session != since || r.Losses != want {
			t.Errorf("restored: %+v", r)
		}
		s.expectEnd(u, ended)
		s.expectEnd(u, since)
		s.Expect(t, u, later, "", "")
		s.Expect(t, v, kept, string(storetest.Live(t, 0)), "user")
		s.Expect(t, v, caveat.SessionID{7}, "", "user")
		view := s.MustLoad(t, v, kept)
		if !bytes.Equal(view.Homeserver, home) || view.Losses != want {
			t.Errorf("homeserver is %x, losses %+v", view.Homeserver, view.Losses)
		}
		if got := s.Device(t, v, revocation.TagOf("D")); got != "device" {
			t.Errorf("device is %q", got)
		}
		page, err := s.Feed().ReadFeed(t.Context(), u.Homeserver, "")
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
			u := storetest.NewUser()
			a := s.begin(u)
			s.backUp("backup")
			at := s.Clock.Now()
			s.during(func() {})
			s.end(u, s.begin(u))
			s.Clock.Advance(2 * time.Hour)
			s.end(u, s.begin(u))
			s.Clock.Advance(2 * time.Minute)
			s.end(u, s.begin(u))
			s.during(func() { lose(s) })
			r := s.restore("backup")
			want := store.Losses{Missing: s.Clock.Now().UnixMilli(), All: at.UnixMilli() + 1}
			if r.Vouched || r.Losses != want || s.MustLoad(t, u, a).Losses != want {
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
		s.begin(storetest.NewUser())
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
		if b, err := backup.Open(bad); err == nil || !strings.Contains(err.Error(), bad) {
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
	if _, err := bolt.Restore(t.Context(), bolt.Config{Path: s.path("sessions.db")}, b); !errors.Is(err, backup.ErrExists) {
		t.Errorf("over a store: %v", err)
	}
	if err := os.WriteFile(s.path("backup"), whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Restore(t.Context(), bolt.Config{Path: s.path("new.db")}, b); err == nil {
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
	s.begin(storetest.NewUser())
	var b bytes.Buffer
	cfg := bolt.Config{Path: s.path("sessions.db"), LockTimeout: time.Millisecond}
	if err := bolt.BackupFile(t.Context(), cfg, &b); !errors.Is(err, boltfile.ErrInUse) {
		t.Errorf("of a file in use: %v", err)
	}
	s.during(func() {
		if err := bolt.BackupFile(t.Context(), bolt.Config{Path: s.path("sessions.db")}, &b); err != nil {
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
	if err := bolt.BackupFile(t.Context(), cfg, &b); err == nil {
		t.Error("a backup of no file was made")
	}
}

// TestBackupDamaged makes no backup of a file in which the length of a name in a key
// differs.
func TestBackupDamaged(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	s.begin(storetest.NewUser())
	s.during(func() {
		copyFile(t, s.path("sessions.db"), s.path("damaged.db"))
		db, err := bbolt.Open(s.path("damaged.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			records := tx.Bucket([]byte("records"))
			k, v := records.Cursor().First()
			key := bytes.Clone(k)
			key[2+int(key[1])+1] += 8 // of the user: the rest of the key is as long as that of a device
			return errors.Join(records.Put(key, bytes.Clone(v)), records.Delete(k))
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if err := bolt.BackupFile(t.Context(), bolt.Config{Path: s.path("damaged.db")}, io.Discard); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("the error is %v", err)
		}
	})
}

// redisConfig returns the configuration of a store on a server.
func redisConfig(s *redistest.Server) redis.Config {
	return redis.Config{Addrs: []string{s.Socket}, TagKey: secret.Bytes("0123456789abcdef0123456789abcdef"), ReadTimeout: time.Minute, WriteTimeout: time.Minute, DialTimeout: time.Minute}
}

func openRedis(t testing.TB, cfg redis.Config) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// mustDo runs one command behind the store's back.
func mustDo(t testing.TB, s *redistest.Server, args ...any) {
	t.Helper()
	if err := s.Connect(t).Do(t.Context(), args...).Err(); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
}

// TestBackupIntoRedis restores the backup of a file into Redis, with the
// revocations of the journal.
func TestBackupIntoRedis(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u, v := storetest.NewUser(), storetest.NewUser()
	since, kept := s.begin(u), s.begin(v)
	s.MustSwap(t, true, v,
		store.Change{New: storetest.Marshal(t, session.GenerationRecord{Generation: 1, At: 1}), Expires: s.Clock.In(time.Hour)},
		store.Change{Device: revocation.TagOf("D"), New: storetest.Marshal(t, session.DeviceRecord{Current: kept, Since: 1000})},
		store.Change{Session: caveat.SessionID{7}, New: bytes.Repeat([]byte("l"), 150), Expires: s.Clock.In(time.Hour)})
	mark := session.GenerationRecord{Generation: 1, At: 1_700_000_400_000}
	home := storetest.Marshal(t, mark)
	if ok, err := s.SwapHomeserver(t.Context(), v.Homeserver, nil, home, session.RevokedHomeserver(v.Homeserver, &mark)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.backUp("backup")
	s.end(u, since)
	b := openBackup(t, s.path("backup"))
	server := redistest.Start(t)
	cfg := redisConfig(server)
	marker := new(storetest.Memory)
	s.during(func() {
		j, err := journal.Open(journal.Config{Path: s.path("journal.db"), LockWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		cfg.Marker, cfg.Journal, cfg.Replayer = marker, j, failover.New(revocation.Lifetime{}, nil)
		r, err := redis.Restore(t.Context(), cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Vouched || r.Again[len(r.Again)-1].Session != since || r.Losses.All != 0 || r.Losses.Missing == 0 {
			t.Errorf("restored: %+v", r)
		}
		if _, err := redis.Restore(t.Context(), cfg, b); !errors.Is(err, backup.ErrExists) {
			t.Errorf("restored twice: %v", err)
		}
		st := openRedis(t, cfg)
		f := &journaled{t: t, Fixture: &storetest.Fixture{Store: st, Clock: storetest.NewClock()}}
		if err := f.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.expectEnd(u, since)
		f.Expect(t, v, kept, string(storetest.Live(t, 0)), string(storetest.Marshal(t, session.GenerationRecord{Generation: 1, At: 1})))
		f.Expect(t, v, caveat.SessionID{7}, strings.Repeat("l", 150), string(storetest.Marshal(t, session.GenerationRecord{Generation: 1, At: 1})))
		if got := f.Device(t, v, revocation.TagOf("D")); got != string(storetest.Marshal(t, session.DeviceRecord{Current: kept, Since: 1000})) {
			t.Errorf("device is %x", got)
		}
		view := f.MustLoad(t, v, storetest.NewSession())
		if !bytes.Equal(view.Homeserver, home) || view.Losses.Missing < r.Losses.Missing || view.Losses.All != 0 {
			t.Errorf("homeserver is %x, losses %+v", view.Homeserver, view.Losses)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestBackupHalfIntoRedis ends a restore before the record of the homeserver is
// there, by which the session was revoked.
func TestBackupHalfIntoRedis(t *testing.T) {
	t.Parallel()
	s := newJournaled(t)
	u := storetest.NewUser()
	s.begin(u)
	mark := session.GenerationRecord{Generation: 1, At: 1_700_000_400_000}
	home := storetest.Marshal(t, mark)
	if ok, err := s.SwapHomeserver(t.Context(), u.Homeserver, nil, home, session.RevokedHomeserver(u.Homeserver, &mark)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.backUp("backup")
	b := openBackup(t, s.path("backup"))
	server := redistest.Start(t)
	mustDo(t, server, "acl", "setuser", "half", "on", ">secret", "allcommands", "allchannels",
		"~ds{*}store:*", "~ds{*}since:*", "~ds{*}new:*", "~ds{*}"+strings.Repeat("?", 22))
	s.during(func() {
		j, err := journal.Open(journal.Config{Path: s.path("journal.db"), LockWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		cfg := redisConfig(server)
		cfg.Username, cfg.Password, cfg.Journal = "half", secret.Bytes("secret"), j
		cfg.Replayer = failover.New(revocation.Lifetime{}, nil)
		if _, err := redis.Restore(t.Context(), cfg, b); err == nil {
			t.Fatal("the record of the homeserver was written")
		}
	})
	f := &storetest.Fixture{Store: openRedis(t, redisConfig(server)), Clock: storetest.NewClock()}
	if l := f.MustLoad(t, u, storetest.NewSession()).Losses; l.All <= b.At {
		t.Errorf("losses are %+v: sessions activated before %d may have been revoked", l, b.At)
	}
}
