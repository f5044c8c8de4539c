package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// forgetful starts a server that loses the writes since the last SAVE when it
// is killed.
func forgetful(t testing.TB) *redisServer { return StartRedis(t, "--dbfilename", "dump.rdb") }

// crash kills the server and starts it with its last save.
func (s *redisServer) crash(t testing.TB) {
	s.Kill(t)
	s.Restart(t)
}

// TestJournalReplay takes back revocations of all three kinds. They are there
// again before any session is loaded.
func TestJournalReplay(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	j := storetest.OpenJournal(t, journal.Config{})
	f := newRedisFixture(t, s, func(c *redis.Config) {
		c.Journal = j
		c.SetWait(func(context.Context, time.Duration) error { return nil })
	})
	alice, bob, one, kept, other := storetest.NewUser(), storetest.NewUser(), storetest.NewSession(), storetest.NewSession(), storetest.NewSession()
	f.MustSwap(t, true, alice, store.Change{Session: one, New: storetest.Live(t, 0)})
	f.MustSwap(t, true, bob, store.Change{Session: kept, New: storetest.Live(t, 0)}, store.Change{Session: other, New: storetest.Live(t, 0)})
	s.Do(t, "save")
	revoke := func(u store.UserKey, entries []revocation.Revocation, changes ...store.Change) {
		t.Helper()
		if ok, err := f.Swap(t.Context(), store.Write{User: u, Revocations: entries, Changes: changes}); !ok || err != nil {
			t.Fatalf("revoke: %v, %v", ok, err)
		}
	}
	all := session.GenerationRecord{Generation: 1, At: 1_700_000_200_000, Except: kept}
	mark := session.GenerationRecord{Generation: 1, At: 1_700_000_300_000}
	home := storetest.Marshal(t, mark)
	revoke(alice, storetest.Ending(t, alice, one), store.Change{Session: one, Old: storetest.Live(t, 0), New: storetest.Tombstone(t), Expires: time.Now().Add(time.Hour)})
	revoke(bob, []revocation.Revocation{{
		Kind: revocation.KindUser, Homeserver: bob.Homeserver, User: bob.User, Except: kept, Generation: 1, At: all.At, Cause: revocation.CauseRevoked,
	}}, store.Change{New: storetest.Marshal(t, all)}, store.Change{Session: kept, Old: storetest.Live(t, 0), New: storetest.Live(t, 1)})
	if ok, err := f.SwapHomeserver(t.Context(), alice.Homeserver, nil, home, session.RevokedHomeserver(alice.Homeserver, &mark)); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	s.crash(t)
	redistest.Eventually(t, "the store answers again", func() bool {
		v, err := f.Load(t.Context(), alice, one, revocation.DeviceTag{})
		if err != nil {
			return false
		}
		if !bytes.Equal(v.Session, storetest.Tombstone(t)) || !bytes.Equal(v.Homeserver, home) {
			t.Fatalf("after the crash the session is %x and the homeserver %x", v.Session, v.Homeserver)
		}
		return true
	})
	f.Expect(t, bob, kept, string(storetest.Live(t, 1)), string(storetest.Marshal(t, all)))
	f.Expect(t, bob, other, string(storetest.Live(t, 0)), string(storetest.Marshal(t, all)))
	r := f.Store.(*redis.Store)
	st := r.JournalStats()
	if st.Entries != 3 || st.Added != 3 || st.Replays != 2 || st.Replayed != 4 || st.LastFailover.IsZero() || st.Shut {
		t.Errorf("statistics: %+v", st)
	}
}

// TestJournalConnections has many connections open when the server changes, and
// uses none of them afterwards, without an error.
func TestJournalConnections(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			t.Parallel()
			cfg := redis.Config{}
			var server *redistest.Server
			if secure {
				s := redistest.StartSecure(t, "--dbfilename", "dump.rdb")
				server = s.Server
				cfg.Addrs, cfg.TLS = []string{s.Addr}, s.TLS()
				cfg.Username, cfg.Password = s.User, secret.Bytes(s.Password)
			} else {
				server = forgetful(t).Server
				cfg.Addrs = []string{server.Socket}
			}
			cfg = patient(cfg)
			cfg.Unpipelined, cfg.Journal = true, storetest.OpenJournal(t, journal.Config{})
			f := &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: storetest.NewClock()}
			u, id := storetest.NewUser(), storetest.NewSession()
			f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
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
			f.Expect(t, u, id, string(storetest.Live(t, 0)), "")
		})
	}
}

// TestJournalSameServer has the server become a replica of one that has not
// received a revocation, and a primary again, without a connection being
// closed. Only looking shows that it is another one now.
func TestJournalSameServer(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	otherHost, otherPort := redistest.Address(t)
	s := StartRedis(t, "--port", port, "--bind", host, "--repl-diskless-sync-delay", "0")
	other := StartRedis(t, "--port", otherPort, "--bind", otherHost, "--repl-diskless-sync-delay", "0", "--replicaof", host, port)
	f := newRedisFixture(t, s, func(c *redis.Config) { c.Journal = storetest.OpenJournal(t, journal.Config{}) })
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
	key := redis.UserHash(tagKey, u)
	redistest.Eventually(t, "the replica has the session", func() bool { return other.Do(t, "hlen", key) != int64(0) })
	other.Do(t, "replicaof", "no", "one")
	w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: storetest.Live(t, 0), New: storetest.Tombstone(t)}}}
	if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	s.Do(t, "replicaof", otherHost, otherPort)
	redistest.Eventually(t, "the server has the data of the other one", func() bool {
		return s.Info(t, "replication")["master_link_status"] == "up"
	})
	if err := f.Ready(t.Context()); err == nil {
		t.Error("the store is ready at a replica")
	}
	s.Do(t, "replicaof", "no", "one")
	redistest.Eventually(t, "the revocation has been replayed", func() bool {
		return f.Store.(*redis.Store).JournalStats().Replayed == 1 && f.Ready(t.Context()) == nil
	})
	f.Expect(t, u, id, string(storetest.Tombstone(t)), "")
}

// TestJournalRestart takes the process down before the server. The next one
// with the same file makes up for it before it opens.
func TestJournalRestart(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	path := filepath.Join(t.TempDir(), "journal.db")
	u, id := storetest.NewUser(), storetest.NewSession()
	open := func() (*journal.Journal, *redis.Store) {
		j, err := journal.Open(journal.Config{Path: path, LockWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.Config()
		cfg.Journal = j
		r, err := redis.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return j, r
	}
	for round, replayed := range []uint64{0, 1, 0} {
		j, r := open()
		f := &storetest.Fixture{Store: r, Clock: storetest.NewClock()}
		if round == 0 {
			f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
			s.Do(t, "save")
			w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: storetest.Live(t, 0), New: storetest.Tombstone(t)}}}
			if ok, err := r.Swap(t.Context(), w); !ok || err != nil {
				t.Fatalf("revoke: %v, %v", ok, err)
			}
		}
		f.Expect(t, u, id, string(storetest.Tombstone(t)), "")
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
	s := StartRedis(t)
	j := storetest.OpenJournal(t, journal.Config{})
	f := newRedisFixture(t, s, func(c *redis.Config) { c.Journal = j })
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
	w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: storetest.Live(t, 7), New: storetest.Tombstone(t)}}}
	if ok, err := f.Swap(t.Context(), w); ok || err != nil {
		t.Fatalf("a swap of something else gave %v, %v", ok, err)
	}
	if got := storetest.All(t, j); len(got) != 0 {
		t.Errorf("of a lost race, the journal keeps %+v", got)
	}
	storetest.BreakJournal(t, j)
	w.Changes[0].Old = storetest.Live(t, 0)
	if ok, err := f.Swap(t.Context(), w); ok || err == nil || !strings.Contains(err.Error(), "journal") {
		t.Errorf("without a journal, a revocation gave %v, %v", ok, err)
	}
	f.Expect(t, u, id, string(storetest.Live(t, 0)), "")
	f.MustSwap(t, true, u, store.Change{Session: id, Old: storetest.Live(t, 0), New: storetest.Live(t, 1)}) // other writes continue
}

// TestJournalLost accepts the loss of everything, which the journal must not
// be in the way of.
func TestJournalLost(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	j := storetest.OpenJournal(t, journal.Config{})
	c := storetest.NewClock()
	f := newRedisFixture(t, s, func(cfg *redis.Config) { cfg.Journal = j; *cfg = cfg.WithClock(c.Now) })
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
	w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: storetest.Live(t, 0), New: storetest.Tombstone(t)}}}
	if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	s.crash(t)
	redistest.Eventually(t, "the loss is noticed", func() bool {
		c.Advance(2 * time.Second)
		return errors.Is(f.Ready(t.Context()), store.ErrLost)
	})
	if err := f.Store.(*redis.Store).AcceptLoss(t.Context()); err != nil && !strings.Contains(err.Error(), "replayed") {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the store is ready", func() bool { return f.Ready(t.Context()) == nil })
	f.Expect(t, u, id, string(storetest.Bare(t)), "")
	if st := f.Store.(*redis.Store).JournalStats(); st.Shut || st.Replayed != 1 {
		t.Errorf("statistics: %+v", st)
	}
}

// TestJournalPermission does not open for a user who may not see which primary
// it is that answers.
func TestJournalPermission(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	args := []any{"acl", "setuser", "blind", "on", ">secret", "~ds{*", "+@all", "-info"}
	s.Do(t, args...)
	cfg := s.Config()
	cfg.Username, cfg.Password, cfg.Journal = "blind", secret.Bytes("secret"), storetest.OpenJournal(t, journal.Config{})
	r, err := redis.Open(t.Context(), cfg)
	if err == nil {
		r.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "needs the commands info and role") {
		t.Errorf("opened: %v", err)
	}
}
