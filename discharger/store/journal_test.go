package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

func openJournal(t testing.TB, cfg store.JournalConfig) *store.Journal {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "journal.db")
	}
	if cfg.LockWait == 0 {
		cfg.LockWait = time.Minute
	}
	j, err := store.OpenJournal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func entryOf(id byte) revocation.Revocation {
	return revocation.Revocation{
		Kind: revocation.KindSession, Homeserver: "example.org", User: "@alice:example.org",
		Session: caveat.SessionID{id}, At: 1000 * int64(id), Keep: 5,
	}
}

func all(t testing.TB, j *store.Journal) []revocation.Revocation {
	t.Helper()
	got, err := j.All()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestJournal writes entries, and finds them again after the file was closed.
func TestJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := store.OpenJournal(store.JournalConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	want := []revocation.Revocation{
		entryOf(1),
		{Kind: revocation.KindUser, Homeserver: "\x00\xff", User: strings.Repeat("x", 4096), Except: caveat.SessionID{9}, Generation: 1 << 60, At: -1, Keep: 1, ExceptKeep: 2},
		{Kind: revocation.KindHomeserver, Homeserver: "h", Generation: 3, At: 7},
	}
	for range 3 { // the same again is written once
		if err := j.Add(t.Context(), want...); err != nil {
			t.Fatal(err)
		}
	}
	if got := all(t, j); !slices.Equal(got, want) {
		t.Errorf("the journal has %+v", got)
	}
	if _, err := store.OpenJournal(store.JournalConfig{Path: path, LockWait: time.Millisecond}); !errors.Is(err, store.ErrJournalInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	j = openJournal(t, store.JournalConfig{Path: path})
	if got := all(t, j); !slices.Equal(got, want) {
		t.Errorf("reopened, the journal has %+v", got)
	}
}

// TestJournalAdopt takes over what another process left behind.
func TestJournalAdopt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine, theirs := filepath.Join(dir, "1.db"), filepath.Join(dir, "2.db")
	j := openJournal(t, store.JournalConfig{Path: mine})
	if err := j.Add(t.Context(), entryOf(1)); err != nil {
		t.Fatal(err)
	}
	other, err := store.OpenJournal(store.JournalConfig{Path: theirs})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Add(t.Context(), entryOf(2), entryOf(3)); err != nil {
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
	if got, want := all(t, j), []revocation.Revocation{entryOf(1), entryOf(2), entryOf(3)}; !slices.Equal(got, want) {
		t.Errorf("the journal has %+v", got)
	}
}

// TestJournalTogether has many write at the same time.
func TestJournalTogether(t *testing.T) {
	t.Parallel()
	j := openJournal(t, store.JournalConfig{})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if err := j.Add(t.Context(), entryOf(byte(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(all(t, j)); n != 200 {
		t.Errorf("%d entries", n)
	}
}

// TestJournalBounds lets time pass and too many come.
func TestJournalBounds(t *testing.T) {
	t.Parallel()
	c := newClock()
	var log logBuffer
	path := filepath.Join(t.TempDir(), "journal.db")
	j := openJournal(t, store.JournalConfig{Path: path, Window: time.Hour, MaxEntries: 10, Now: c.now, Log: log.logger()})
	if err := j.Add(t.Context(), entryOf(1), entryOf(2)); err != nil {
		t.Fatal(err)
	}
	c.advance(59 * time.Minute)
	if err := j.Add(t.Context(), entryOf(3)); err != nil {
		t.Fatal(err)
	}
	c.advance(2 * time.Minute)
	if got := all(t, j); !slices.Equal(got, []revocation.Revocation{entryOf(3)}) {
		t.Errorf("after the window: %+v", got)
	}
	if err := j.Add(t.Context(), entryOf(1)); err != nil { // its first writing is over
		t.Fatal(err)
	}
	if got := all(t, j); !slices.Equal(got, []revocation.Revocation{entryOf(3), entryOf(1)}) {
		t.Errorf("added again after the window: %+v", got)
	}
	for i := range 40 {
		if err := j.Add(t.Context(), entryOf(byte(100+i))); err != nil {
			t.Fatal(err)
		}
	}
	got := all(t, j)
	if len(got) != 10 || got[0] != entryOf(130) || got[9] != entryOf(139) {
		t.Errorf("of 40, %d are left, from %+v on", len(got), got[0].Session)
	}
	if n := strings.Count(log.String(), "the journal of revocations is full"); n != 1 {
		t.Errorf("warned %d times: %s", n, log.String())
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		if err := j.Add(t.Context(), entryOf(byte(i))); err != nil {
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
	for what, cfg := range map[string]store.JournalConfig{
		"no path":      {},
		"no directory": {Path: filepath.Join(dir, "none", "journal.db")},
		"a directory":  {Path: dir},
		"rubbish":      {Path: rubbish},
		"window":       {Path: filepath.Join(dir, "j"), Window: -1},
		"entries":      {Path: filepath.Join(dir, "j"), MaxEntries: -1},
	} {
		if j, err := store.OpenJournal(cfg); err == nil {
			j.Close()
			t.Errorf("%s: opened", what)
		}
	}
	j := openJournal(t, store.JournalConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // some of them are being written when the caller is gone
		if err := j.Add(ctx, entryOf(1)); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Add with an ended context: %v", err)
		}
	}
}

// A life is a session's record, as the service writes it.
func live(t testing.TB, generation uint64) []byte {
	t.Helper()
	r := session.Record{Mode: caveat.ModeOpen, Created: 1_700_000_000_000, LastUsed: 1_700_000_000_000, UserGeneration: generation, Device: "D"}
	return marshal(t, &r)
}

// tombstone is what a live record becomes.
func tombstone(t testing.TB) []byte {
	t.Helper()
	return marshal(t, &session.Record{Device: "D", End: revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: 1_700_000_100_000}})
}

// bare is what is restored of a tombstone when the session has no record.
func bare(t testing.TB) []byte {
	t.Helper()
	var r session.Record
	if err := r.UnmarshalBinary(tombstone(t)); err != nil {
		t.Fatal(err)
	}
	r.Device = ""
	return marshal(t, &r)
}

func marshal(t testing.TB, v interface{ MarshalBinary() ([]byte, error) }) []byte {
	t.Helper()
	b, err := v.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// forgetful starts a server that loses what was written since the last SAVE
// when it is killed.
func forgetful(t testing.TB) *redisServer { return startRedis(t, "--dbfilename", "dump.rdb") }

// crash kills the server and starts it with what it saved last.
func (s *redisServer) crash(t testing.TB) {
	s.Kill(t)
	s.Restart(t)
}

// TestJournalReplay takes back revocations of all three kinds. They are there
// again before anybody is told of a session.
func TestJournalReplay(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	j := openJournal(t, store.JournalConfig{})
	f := newRedisFixture(t, s, func(c *store.RedisConfig) {
		c.Journal = j
		c.Wait = func(context.Context, time.Duration) error { return nil }
	})
	alice, bob, one, kept, other := someone(), someone(), newSession(), newSession(), newSession()
	f.swap(t, true, alice, discharger.Change{Session: one, New: live(t, 0)})
	f.swap(t, true, bob, discharger.Change{Session: kept, New: live(t, 0)}, discharger.Change{Session: other, New: live(t, 0)})
	s.do(t, "save")
	revoke := func(u discharger.UserKey, entries []revocation.Revocation, changes ...discharger.Change) {
		t.Helper()
		if ok, err := f.Swap(t.Context(), discharger.Write{User: u, Revocations: entries, Changes: changes}); !ok || err != nil {
			t.Fatalf("revoke: %v, %v", ok, err)
		}
	}
	all := session.GenerationRecord{Generation: 1, At: 1_700_000_200_000, Except: kept}
	home := marshal(t, session.GenerationRecord{Generation: 1, At: 1_700_000_300_000})
	revoke(alice, ending(t, alice, one), discharger.Change{Session: one, Old: live(t, 0), New: tombstone(t), Expires: time.Now().Add(time.Hour)})
	revoke(bob, []revocation.Revocation{{
		Kind: revocation.KindUser, Homeserver: bob.Homeserver, User: bob.User, Except: kept, Generation: 1, At: all.At, Cause: revocation.CauseRevoked,
	}}, discharger.Change{New: marshal(t, all)}, discharger.Change{Session: kept, Old: live(t, 0), New: live(t, 1)})
	if ok, err := f.SwapHomeserver(t.Context(), alice.Homeserver, nil, home); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	s.crash(t)
	redistest.Eventually(t, "the store answers again", func() bool {
		v, err := f.Load(t.Context(), alice, one, revocation.DeviceTag{})
		if err != nil {
			return false
		}
		if !bytes.Equal(v.Session, tombstone(t)) || !bytes.Equal(v.Homeserver, home) {
			t.Fatalf("after the crash the session is %x and the homeserver %x", v.Session, v.Homeserver)
		}
		return true
	})
	f.expect(t, bob, kept, string(live(t, 1)), string(marshal(t, all)))
	f.expect(t, bob, other, string(live(t, 0)), string(marshal(t, all)))
	r := f.Store.(*store.Redis)
	st := r.JournalStats()
	if st.Entries != 3 || st.Added != 3 || st.Replays != 2 || st.Replayed != 4 || st.LastFailover.IsZero() || st.Shut {
		t.Errorf("statistics: %+v", st)
	}
}

// TestJournalConnections has many connections open when the server changes, and
// uses none of them afterwards, which nobody notices.
func TestJournalConnections(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			t.Parallel()
			cfg := store.RedisConfig{}
			var server *redistest.Server
			if secure {
				s := redistest.StartSecure(t, "--dbfilename", "dump.rdb")
				server = s.Server
				cfg.Addrs, cfg.TLS = []string{s.Addr}, s.TLS()
				cfg.Username, cfg.Password = s.User, caveat.Secret(s.Password)
			} else {
				server = forgetful(t).Server
				cfg.Addrs = []string{server.Socket}
			}
			cfg = patient(cfg)
			cfg.Unpipelined, cfg.Journal = true, openJournal(t, store.JournalConfig{})
			f := &fixture{Store: openRedis(t, cfg), clock: newClock()}
			u, id := someone(), newSession()
			f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
			together := func() (failed int64) {
				var wg sync.WaitGroup
				var n atomic.Int64
				for range 30 {
					wg.Go(func() {
						if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); err != nil {
							n.Add(1)
						}
					})
				}
				wg.Wait()
				return n.Load()
			}
			if n := together(); n > 0 {
				t.Errorf("%d of 30 failed", n)
			}
			server.Do(t, "save")
			server.Kill(t)
			server.Restart(t)
			redistest.Eventually(t, "the store answers again", func() bool {
				_, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
				return err == nil
			})
			if n := together(); n > 0 {
				t.Errorf("%d of 30 failed", n)
			}
			f.expect(t, u, id, string(live(t, 0)), "")
		})
	}
}

// TestJournalSameServer has the server become a replica of one that has not
// heard of a revocation, and a primary again, without a connection being
// closed. Only looking shows that it is another one now.
func TestJournalSameServer(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	otherHost, otherPort := redistest.Address(t)
	s := startRedis(t, "--port", port, "--bind", host, "--repl-diskless-sync-delay", "0")
	other := startRedis(t, "--port", otherPort, "--bind", otherHost, "--repl-diskless-sync-delay", "0", "--replicaof", host, port)
	f := newRedisFixture(t, s, func(c *store.RedisConfig) { c.Journal = openJournal(t, store.JournalConfig{}) })
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
	key := store.UserHash(tagKey, u)
	redistest.Eventually(t, "the replica has the session", func() bool { return other.do(t, "hlen", key) != int64(0) })
	other.do(t, "replicaof", "no", "one")
	w := discharger.Write{User: u, Revocations: ending(t, u, id), Changes: []discharger.Change{{Session: id, Old: live(t, 0), New: tombstone(t)}}}
	if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	s.do(t, "replicaof", otherHost, otherPort)
	redistest.Eventually(t, "the server has what the other one has", func() bool {
		return s.Info(t, "replication")["master_link_status"] == "up"
	})
	if err := f.Ready(t.Context()); err == nil {
		t.Error("the store is ready at a replica")
	}
	s.do(t, "replicaof", "no", "one")
	redistest.Eventually(t, "the revocation has been replayed", func() bool {
		return f.Store.(*store.Redis).JournalStats().Replayed == 1 && f.Ready(t.Context()) == nil
	})
	f.expect(t, u, id, string(tombstone(t)), "")
}

// TestJournalRestart takes the process down before the server. The next one
// with the same file makes up for it before it opens.
func TestJournalRestart(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	path := filepath.Join(t.TempDir(), "journal.db")
	u, id := someone(), newSession()
	open := func() (*store.Journal, *store.Redis) {
		j, err := store.OpenJournal(store.JournalConfig{Path: path, LockWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.config()
		cfg.Journal = j
		r, err := store.OpenRedis(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return j, r
	}
	for round, replayed := range []uint64{0, 1, 0} {
		j, r := open()
		f := &fixture{Store: r, clock: newClock()}
		if round == 0 {
			f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
			s.do(t, "save")
			w := discharger.Write{User: u, Revocations: ending(t, u, id), Changes: []discharger.Change{{Session: id, Old: live(t, 0), New: tombstone(t)}}}
			if ok, err := r.Swap(t.Context(), w); !ok || err != nil {
				t.Fatalf("revoke: %v, %v", ok, err)
			}
		}
		f.expect(t, u, id, string(tombstone(t)), "")
		if got := r.JournalStats().Replayed; got != replayed {
			t.Errorf("round %d: %d records were replayed, want %d", round, got, replayed)
		}
		if err := errors.Join(r.Close(), j.Close()); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			s.crash(t)
		}
	}
}

// TestJournalUndecided acknowledges nothing that is not in the journal, and
// keeps nothing there that did not happen.
func TestJournalUndecided(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	j := openJournal(t, store.JournalConfig{})
	f := newRedisFixture(t, s, func(c *store.RedisConfig) { c.Journal = j })
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
	w := discharger.Write{User: u, Revocations: ending(t, u, id), Changes: []discharger.Change{{Session: id, Old: live(t, 7), New: tombstone(t)}}}
	if ok, err := f.Swap(t.Context(), w); ok || err != nil {
		t.Fatalf("a swap of something else gave %v, %v", ok, err)
	}
	if got := all(t, j); len(got) != 0 {
		t.Errorf("of a lost race, the journal keeps %+v", got)
	}
	store.BreakJournal(j)
	w.Changes[0].Old = live(t, 0)
	if ok, err := f.Swap(t.Context(), w); ok || err == nil || !strings.Contains(err.Error(), "journal") {
		t.Errorf("without a journal, a revocation gave %v, %v", ok, err)
	}
	f.expect(t, u, id, string(live(t, 0)), "")
	f.swap(t, true, u, discharger.Change{Session: id, Old: live(t, 0), New: live(t, 1)}) // what is no revocation goes on
}

// TestJournalLost accepts the loss of everything, which the journal must not
// be in the way of.
func TestJournalLost(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	j := openJournal(t, store.JournalConfig{})
	c := newClock()
	f := newRedisFixture(t, s, func(cfg *store.RedisConfig) { cfg.Journal, cfg.Now = j, c.now })
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
	w := discharger.Write{User: u, Revocations: ending(t, u, id), Changes: []discharger.Change{{Session: id, Old: live(t, 0), New: tombstone(t)}}}
	if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	s.crash(t)
	redistest.Eventually(t, "the loss is noticed", func() bool {
		c.advance(2 * time.Second)
		return errors.Is(f.Ready(t.Context()), discharger.ErrStoreLost)
	})
	if err := f.Store.(*store.Redis).AcceptLoss(t.Context()); err != nil && !strings.Contains(err.Error(), "replayed") {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
	f.expect(t, u, id, string(bare(t)), "")
	if st := f.Store.(*store.Redis).JournalStats(); st.Shut || st.Replayed != 1 {
		t.Errorf("statistics: %+v", st)
	}
}

// TestJournalPermission does not open for a user who may not see which primary
// it is that answers.
func TestJournalPermission(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	args := []any{"acl", "setuser", "blind", "on", ">secret", "~ds{*", "+@all", "-info"}
	s.do(t, args...)
	cfg := s.config()
	cfg.Username, cfg.Password, cfg.Journal = "blind", caveat.Secret("secret"), openJournal(t, store.JournalConfig{})
	r, err := store.OpenRedis(t.Context(), cfg)
	if err == nil {
		r.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "needs the commands info and role") {
		t.Errorf("opened: %v", err)
	}
}
