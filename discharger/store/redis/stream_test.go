package redis_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// A peer is a process with a journal.
type peer struct {
	*redis.Store
	journal *journal.Journal
	log     storetest.LogBuffer
}

func openPeer(t testing.TB, cfg redis.Config, path string) *peer {
	t.Helper()
	p := &peer{journal: storetest.OpenJournal(t, journal.Config{Path: path})}
	cfg.Journal, cfg.Log = p.journal, p.log.Logger()
	if cfg.Replayer == nil {
		cfg.Replayer = failover.New(revocation.Lifetime{}, cfg.Log)
	}
	p.Store = OpenRedis(t, cfg)
	return p
}

// end ends the process.
func (p *peer) end(t testing.TB) {
	t.Helper()
	if err := p.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.journal.Close(); err != nil {
		t.Fatal(err)
	}
}

// revoked makes a session and revokes it.
func (p *peer) revoked(t testing.TB) (store.UserKey, revocation.Revocation) {
	t.Helper()
	f := &storetest.Fixture{Store: p.Store}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
	w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: storetest.Live(t, 0), New: storetest.Tombstone(t)}}}
	if ok, err := p.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	return u, w.Revocations[0]
}

func (p *peer) hears(t testing.TB, e revocation.Revocation) {
	t.Helper()
	redistest.Eventually(t, "the other process receives a revocation", func() bool {
		return slices.Contains(storetest.All(t, p.journal), e)
	})
}

// TestPeers receives the revocations of each process in the journal of the
// other one, once, also after a restart.
func TestPeers(t *testing.T) {
	t.Parallel()
	cfg := StartRedis(t).Config()
	path := filepath.Join(t.TempDir(), "journal.db")
	a, b := openPeer(t, cfg, ""), openPeer(t, cfg, path)
	_, first := a.revoked(t)
	b.hears(t, first)
	b.end(t)
	_, second := a.revoked(t)
	b = openPeer(t, cfg, path)
	_, third := b.revoked(t)
	_, fourth := a.revoked(t)
	b.hears(t, fourth)
	a.hears(t, third)
	for what, got := range map[string][]revocation.Revocation{"one": storetest.All(t, a.journal), "the other": storetest.All(t, b.journal)} {
		if len(got) != 4 || !slices.Contains(got, first) || !slices.Contains(got, second) {
			t.Errorf("the journal of %s has %+v", what, got)
		}
	}
	c := openPeer(t, cfg, "") // late, but not too late
	c.hears(t, fourth)
	if got := storetest.All(t, c.journal); len(got) != 4 {
		t.Errorf("the journal of a third has %+v", got)
	}
}

// TestStreamMalformedEntries adds entries to the stream that no process wrote.
func TestStreamMalformedEntries(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	a, b := openPeer(t, s.Config(), ""), openPeer(t, s.Config(), "")
	_, first := a.revoked(t)
	b.hears(t, first)
	key := redis.PeersKey(tagKey)
	raw, err := s.raw.XRange(t.Context(), key, "-", "+").Result()
	if err != nil || len(raw) != 1 {
		t.Fatalf("the stream has %v, %v", raw, err)
	}
	process, sealed := raw[0].Values["p"].(string), raw[0].Values["e"].(string)
	if strings.Contains(sealed, first.User) {
		t.Error("names are there in the clear")
	}
	for _, values := range [][]any{
		{"x", "y"},
		{"p", "", "e", ""},
		{"p", "0123456789abcdef", "e", sealed},
		{"p", process, "e", sealed[:11]},
		{"p", process, "e", sealed[:len(sealed)-1]},
		{"p", process, "e", sealed[:20] + string(sealed[20]^1) + sealed[21:]},
		{"p", process, "e", sealed, "more", "1"},
	} {
		s.Do(t, append([]any{"xadd", key, "*"}, values...)...)
	}
	_, second := a.revoked(t)
	b.hears(t, second)
	if got := storetest.All(t, b.journal); len(got) != 2 {
		t.Errorf("the journal has %+v", got)
	}
	if n := strings.Count(b.log.String(), "malformed entry in the stream"); n != 1 {
		t.Errorf("warned %d times: %s", n, b.log.String())
	}
}

// TestPeersRewind takes the stream back, so that ids are used which are lower
// than those that were read, and has a revocation that the store has lost
// after the loss was made up for.
func TestPeersRewind(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	a, b := openPeer(t, s.Config(), ""), openPeer(t, s.Config(), "")
	f := &storetest.Fixture{Store: b.Store}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
	s.Do(t, "save")
	s.Do(t, "xadd", redis.PeersKey(tagKey), "99999999999999-0", "x", "y")
	redistest.Eventually(t, "the last entry is read", func() bool {
		return strings.Contains(b.log.String(), "malformed entry in the stream")
	})
	s.crash(t)
	for _, p := range []*peer{a, b} {
		redistest.Eventually(t, "the crash is noticed and over", func() bool {
			return !p.JournalStats().LastFailover.IsZero() && p.Ready(t.Context()) == nil
		})
	}
	_, e := a.revoked(t)
	b.hears(t, e)
	lost := storetest.Ending(t, u, id)[0]
	if err := a.Tell(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the lost revocation is made up for", func() bool {
		v, err := b.Load(t.Context(), u, id, revocation.DeviceTag{})
		if err != nil {
			t.Fatal(err)
		}
		return string(v.Session) == string(storetest.Tombstone(t))
	})
}

// TestPeersFailover loses a logout together with the process that made it and
// the primary that had it. The other process has received it.
func TestPeersFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	a, b := openPeer(t, sentinelConfig(s), ""), openPeer(t, sentinelConfig(s), "")
	is := storetest.NewIssuer(t, a.Store, b.Store)
	d, stays := is.Login("@alice:hs"), is.Login("@bob:hs")
	for _, d := range []*storetest.Device{d, stays} {
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.Cut(t)
	is.Services = is.Services[:1]
	if err := d.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the other process receives the logout", func() bool { return len(storetest.All(t, b.journal)) == 1 })
	a.end(t)
	is.Services = nil
	is.Serve(b.Store, storetest.PatientLimits)
	s.Primary(t).Kill(t)
	s.Failover(t)
	var refused *discharger.Refusal
	if err := d.Refresh(t.Context()); !errors.As(err, &refused) {
		t.Errorf("after the failover, the logged-out session got %v", err)
	}
	if err := stays.Refresh(t.Context()); err != nil {
		t.Errorf("a session that was not ended: %v", err)
	}
	if st := b.JournalStats(); st.Replayed == 0 {
		t.Error("the logout was not lost: nothing is tested here")
	}
}
