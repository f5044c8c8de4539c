package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/wire"
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
func (is *issuer) follow(st *store.Redis) *follower {
	is.t.Helper()
	key := "key of " + issuerHomeserver
	srv, err := server.New(server.Config{
		Service: is.any(), PublicKey: is.keys.Public, Ready: st.Ready,
		APIKeys: map[string][][sha256.Size]byte{issuerHomeserver: {sha256.Sum256([]byte(key))}},
		Feed:    server.FeedConfig{Source: st},
	})
	if err != nil {
		is.t.Fatal(err)
	}
	web := httptest.NewServer(srv.Client())
	is.t.Cleanup(func() { srv.Drain(); web.Close() })
	client, err := client.New(client.Config{URL: web.URL, APIKey: caveat.Secret(key)})
	if err != nil {
		is.t.Fatal(err)
	}
	f := &follower{t: is.t}
	f.Feed, err = homeserver.NewFeed(homeserver.FeedConfig{Client: client, OnEvent: func(wire.Revocation) { f.heard.Add(1) }})
	if err != nil {
		is.t.Fatal(err)
	}
	f.connect()
	is.t.Cleanup(func() { f.hang() })
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
func (f *follower) refuses(d *device) bool {
	return f.Revoked(homeserver.Identity{Session: d.session, User: d.user.User, Minted: d.minted})
}

// TestReplayIsAnnounced has a homeserver lose its connection to the feed, and
// the server lose a revocation together with its event, or the event alone, but
// not what the homeserver has heard already: from the feed as it was, it learns
// nothing.
func TestReplayIsAnnounced(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	one := func(d *device) error { return d.logout(ctx) }
	user := func(d *device) error {
		return d.insist(ctx, func(ctx context.Context, s *discharger.Service) error {
			return s.Logout(ctx, d.request(""), discharger.ScopeUser)
		})
	}
	for what, c := range map[string]struct {
		revoke func(one *device) error
		user   bool // others of the user are revoked too
		all    bool // and of others
		feed   bool // only the feed loses something
	}{
		"a session":              {one, false, false, false},
		"a user":                 {user, true, false, false},
		"the event of a session": {one, false, false, true},
		"the event about a user": {user, true, false, true},
		"a homeserver": {func(d *device) error {
			return d.insist(ctx, func(ctx context.Context, s *discharger.Service) error {
				return s.RevokeHomeserver(ctx, issuerHomeserver, discharger.Order{})
			})
		}, true, true, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := forgetful(t)
			p := openPeer(t, s.config(), "")
			is := newIssuer(t, p.Redis)
			early, one, same, other := is.login("@carol:hs"), is.login("@alice:hs"), is.login("@alice:hs"), is.login("@bob:hs")
			for _, d := range []*device{early, one, same, other} {
				if err := d.refresh(ctx); err != nil {
					t.Fatal(err)
				}
			}
			f := is.follow(p.Redis)
			if err := early.logout(ctx); err != nil {
				t.Fatal(err)
			}
			redistest.Eventually(t, "the homeserver hears of a logout", func() bool { return f.refuses(early) })
			s.do(t, "save")
			f.hang()
			feed := store.FeedKey(tagKey, issuerHomeserver)
			was := s.do(t, "dump", feed)
			if err := c.revoke(one); err != nil {
				t.Fatal(err)
			}
			if c.feed {
				s.do(t, "restore", feed, 0, was, "replace")
				s.do(t, "save")
			}
			s.crash(t)
			redistest.Eventually(t, "the store answers again", func() bool {
				return !p.JournalStats().LastFailover.IsZero() && p.Ready(ctx) == nil
			})
			heard := f.heard.Load()
			f.connect()
			redistest.Eventually(t, "the homeserver hears of what was restored", func() bool { return f.heard.Load() > heard })
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
			s.do(t, "save")
			replays := p.JournalStats().Replays
			s.crash(t)
			redistest.Eventually(t, "the journal is replayed again", func() bool {
				return p.JournalStats().Replays > replays && p.Ready(ctx) == nil
			})
			fx := &fixture{Store: p.Redis}
			if all, _ := fx.read(t, issuerHomeserver, ""); len(all) != 2 {
				t.Errorf("after a crash that lost nothing, the feed has %q", texts(all))
			}
		})
	}
}

// TestReplayAllOrNothing cannot publish, and then restores nothing: if it did
// and ended there, nobody would ever know that an event is missing.
func TestReplayAllOrNothing(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	p := openPeer(t, s.config(), "")
	f := &fixture{Store: p.Redis}
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
	s.do(t, "set", store.FeedKey(tagKey, u.Homeserver), "no feed")
	s.do(t, "save")
	w := discharger.Write{User: u, Revocations: ending(t, u, id), Changes: []discharger.Change{{Session: id, Old: live(t, 0), New: tombstone(t)}}}
	if ok, err := p.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	s.crash(t)
	redistest.Eventually(t, "the replay fails", func() bool {
		return strings.Contains(p.log.String(), "revocations cannot be replayed yet") && strings.Contains(p.log.String(), "WRONGTYPE")
	})
	if _, err := p.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
		t.Error("the store answers")
	}
	behind := &fixture{Store: openRedis(t, s.config())} // that has no journal
	behind.expect(t, u, id, string(live(t, 0)), "")
	s.do(t, "del", store.FeedKey(tagKey, u.Homeserver))
	redistest.Eventually(t, "the store answers", func() bool { return p.Ready(t.Context()) == nil })
	behind.expect(t, u, id, string(tombstone(t)), "")
	if all, _ := behind.read(t, u.Homeserver, ""); len(all) != 1 || !bytes.Contains(all[0].Data, []byte(id.String())) {
		t.Errorf("the feed has %q", texts(all))
	}
}

// TestReplayWithoutEvent restores what cannot be announced: it never was.
func TestReplayWithoutEvent(t *testing.T) {
	t.Parallel()
	s := forgetful(t)
	cfg := s.config()
	cfg.Announce = func(*revocation.Revocation, time.Time) (discharger.FeedEvent, error) {
		return discharger.FeedEvent{}, errors.New("there is nothing to say")
	}
	p := openPeer(t, cfg, "")
	s.do(t, "save")
	u, e := p.revoked(t)
	s.crash(t)
	f := &fixture{Store: p.Redis}
	redistest.Eventually(t, "the store answers again", func() bool {
		return p.JournalStats().Replayed == 1 && p.Ready(t.Context()) == nil
	})
	if v := f.load(t, u, e.Session); v.Session == nil {
		t.Error("nothing was restored")
	}
	if all, _ := f.read(t, u.Homeserver, ""); len(all) != 0 {
		t.Errorf("the feed has %q", texts(all))
	}
	if n := strings.Count(p.log.String(), "cannot be announced"); n != 1 {
		t.Errorf("warned %d times: %s", n, p.log.String())
	}
}
