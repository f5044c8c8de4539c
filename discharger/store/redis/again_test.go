package redis_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// A follower is a homeserver that follows the feed, whose connection can be
// ended.
type follower struct {
	*homeserver.Feed
	t     testing.TB
	hang  func() // ends the connection
	heard atomic.Int64
}

// follow serves the feed of a store and follows it.
func follow(is *storetest.Issuer, st *redis.Store) *follower {
	is.T.Helper()
	key := "key of " + storetest.IssuerHomeserver
	srv, err := server.New(server.Config{
		Service: is.Any(), PublicKey: is.Keys.Public, Ready: st.Ready,
		APIKeys: map[string][][sha256.Size]byte{storetest.IssuerHomeserver: {sha256.Sum256([]byte(key))}},
		Feed:    server.FeedConfig{Source: st},
	})
	if err != nil {
		is.T.Fatal(err)
	}
	web := httptest.NewServer(srv.Client())
	is.T.Cleanup(func() { srv.Drain(); web.Close() })
	client, err := client.New(client.Config{URL: web.URL, APIKey: secret.Bytes(key)})
	if err != nil {
		is.T.Fatal(err)
	}
	f := &follower{t: is.T}
	f.Feed, err = homeserver.NewFeed(homeserver.FeedConfig{Client: client, OnEvent: func(revocation.Event) { f.heard.Add(1) }})
	if err != nil {
		is.T.Fatal(err)
	}
	f.connect()
	is.T.Cleanup(func() { f.hang() })
	return f
}

// connect goes on after the last event.
func (f *follower) connect() {
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	f.hang = func() {
		f.hang = func() {}
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	}
}

// refuses reports whether the homeserver would refuse a device's discharges.
func (f *follower) refuses(d *storetest.Device) bool {
	return f.Revoked(homeserver.Identity{Session: d.Session, User: d.User.User, Minted: d.Minted})
}

// TestReplayIsAnnounced has a homeserver lose its connection to the feed, and
// the server lose a revocation together with its event, or the event alone, but
// not the events that the homeserver has: from the earlier feed it learns
// nothing.
func TestReplayIsAnnounced(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	one := func(d *storetest.Device) error { return d.Logout(ctx) }
	user := func(d *storetest.Device) error {
		return d.Insist(ctx, func(ctx context.Context, s *discharger.Service) error {
			return s.Logout(ctx, d.Request(""), discharger.ScopeUser)
		})
	}
	for what, c := range map[string]struct {
		revoke func(one *storetest.Device) error
		user   bool // others of the user are revoked too
		all    bool // and of others
		feed   bool // only the feed loses something
	}{
		"a session":              {one, false, false, false},
		"a user":                 {user, true, false, false},
		"the event of a session": {one, false, false, true},
		"the event about a user": {user, true, false, true},
		"a homeserver": {func(d *storetest.Device) error {
			return d.Insist(ctx, func(ctx context.Context, s *discharger.Service) error {
				return s.RevokeHomeserver(ctx, storetest.IssuerHomeserver, discharger.Order{})
			})
		}, true, true, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := forgetful(t)
			p := openPeer(t, s.Config(), "")
			is := storetest.NewIssuer(t, p.Store)
			early, one, same, other := is.Login("@carol:hs"), is.Login("@alice:hs"), is.Login("@alice:hs"), is.Login("@bob:hs")
			for _, d := range []*storetest.Device{early, one, same, other} {
				if err := d.Refresh(ctx); err != nil {
					t.Fatal(err)
				}
			}
			f := follow(is, p.Store)
			if err := early.Logout(ctx); err != nil {
				t.Fatal(err)
			}
			redistest.Eventually(t, "the homeserver receives a logout", func() bool { return f.refuses(early) })
			s.Do(t, "save")
			f.hang()
			feed := redis.FeedKey(tagKey, storetest.IssuerHomeserver)
			was := s.Do(t, "dump", feed)
			if err := c.revoke(one); err != nil {
				t.Fatal(err)
			}
			if c.feed {
				s.Do(t, "restore", feed, 0, was, "replace")
				s.Do(t, "save")
			}
			s.crash(t)
			redistest.Eventually(t, "the store answers again", func() bool {
				return !p.JournalStats().LastFailover.IsZero() && p.Ready(ctx) == nil
			})
			heard := f.heard.Load()
			f.connect()
			redistest.Eventually(t, "the homeserver receives the restored revocation", func() bool { return f.heard.Load() > heard })
			if f.refuses(one) != true || f.refuses(same) != c.user || f.refuses(other) != c.all {
				t.Errorf("refused: %v, another of the user %v, others %v", f.refuses(one), f.refuses(same), f.refuses(other))
			}
			if st := p.JournalStats(); (st.Replayed == 0) != c.feed || (st.Missing > 0) != c.feed {
				t.Errorf("statistics of the journal: %+v", st)
			}
			if st := f.Status(); st.Gaps != 0 || st.Events != 2 {
				t.Errorf("status of the feed: %+v", st)
			}

			// Nothing is lost now.
			s.Do(t, "save")
			replays := p.JournalStats().Replays
			s.crash(t)
			redistest.Eventually(t, "the journal is replayed again", func() bool {
				return p.JournalStats().Replays > replays && p.Ready(ctx) == nil
			})
			fx := &storetest.Fixture{Store: p.Store}
			if all, _ := fx.MustRead(t, storetest.IssuerHomeserver, ""); len(all) != 2 {
				t.Errorf("after a crash that lost nothing, the feed has %q", storetest.Texts(all))
			}
		})
	}
}

// TestReplayAllOrNothing cannot publish, and then restores nothing: if it did
// and ended there, a missing event would leave no trace.
func TestReplayAllOrNothing(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	p := openPeer(t, s.Config(), "")
	f := &storetest.Fixture{Store: p.Store}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
	s.Do(t, "set", redis.FeedKey(tagKey, u.Homeserver), "no feed")
	s.Do(t, "save")
	w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: storetest.Live(t, 0), New: storetest.Tombstone(t)}}}
	if ok, err := p.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	s.crash(t)
	redistest.Eventually(t, "the replay fails", func() bool {
		return strings.Contains(p.log.String(), "replay of revocations failed") && strings.Contains(p.log.String(), "WRONGTYPE")
	})
	if _, err := p.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
		t.Error("the store answers")
	}
	behind := &storetest.Fixture{Store: OpenRedis(t, s.Config())} // that has no journal
	behind.Expect(t, u, id, string(storetest.Live(t, 0)), "")
	s.Do(t, "del", redis.FeedKey(tagKey, u.Homeserver))
	redistest.Eventually(t, "the store answers", func() bool { return p.Ready(t.Context()) == nil })
	behind.Expect(t, u, id, string(storetest.Tombstone(t)), "")
	if all, _ := behind.MustRead(t, u.Homeserver, ""); len(all) != 1 || !bytes.Contains(all[0].Data, []byte(id.String())) {
		t.Errorf("the feed has %q", storetest.Texts(all))
	}
}

// TestReplayWithoutEvent restores a revocation without an event: it was never
// published.
func TestReplayWithoutEvent(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	cfg, log := s.Config(), new(storetest.LogBuffer)
	cfg.Replayer = failover.New(revocation.Lifetime{MaxTTL: -100 * 365 * 24 * time.Hour}, log.Logger()) // of events before 1970
	p := openPeer(t, cfg, "")
	s.Do(t, "save")
	u, e := p.revoked(t)
	s.crash(t)
	f := &storetest.Fixture{Store: p.Store}
	redistest.Eventually(t, "the store answers again", func() bool {
		return p.JournalStats().Replayed == 1 && p.Ready(t.Context()) == nil
	})
	if v := f.MustLoad(t, u, e.Session); v.Session == nil {
		t.Error("nothing was restored")
	}
	if all, _ := f.MustRead(t, u.Homeserver, ""); len(all) != 0 {
		t.Errorf("the feed has %q", storetest.Texts(all))
	}
	if n := strings.Count(log.String(), "restored revocation has no event"); n != 1 {
		t.Errorf("warned %d times: %s", n, log)
	}
}
