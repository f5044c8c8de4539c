package discharger_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/policy"
)

// unfed is a store whose events get lost on the way, after the swap took
// effect, as when a process dies there, or the node of the feed is down.
type unfed struct {
	discharger.Store
	broken bool
	swaps  int // that were made, and what they wrote
	bytes  int
}

func (u *unfed) Swap(ctx context.Context, w discharger.Write) (bool, error) {
	u.swaps++
	for _, c := range w.Changes {
		u.bytes += len(c.New)
	}
	for _, e := range w.Events {
		u.bytes += len(e.Data)
	}
	if u.broken && len(w.Events) > 0 {
		w.Events = nil
		if ok, err := u.Store.Swap(ctx, w); err != nil || !ok {
			return ok, err
		}
		return false, errFault
	}
	return u.Store.Swap(ctx, w)
}

func (u *unfed) Publish(ctx context.Context, homeserver string, events ...discharger.FeedEvent) error {
	if u.broken {
		return errFault
	}
	return u.Store.Publish(ctx, homeserver, events...)
}

func newUnfedWorld(t testing.TB, change ...func(*discharger.Config)) (*world, *unfed) {
	u := &unfed{}
	return newWorld(t, append(change, func(c *discharger.Config) { u.Store, c.Store = c.Store, u })...), u
}

// feed reads all that a homeserver's feed says, as the homeserver would.
func (w *world) feed(homeserver string) (out []api.Revocation) {
	w.t.Helper()
	st := w.store
	if u, ok := st.(*unfed); ok {
		st = u.Store
	}
	for after := ""; ; {
		page, err := st.(discharger.Feed).ReadFeed(context.Background(), homeserver, after)
		if err != nil || page.Gap {
			w.t.Fatalf("ReadFeed: %v, gap %v", err, page.Gap)
		}
		if len(page.Entries) == 0 {
			return out
		}
		for _, e := range page.Entries {
			var r api.Revocation
			if err := r.UnmarshalJSON(e.Data); err != nil {
				w.t.Fatalf("%s: %v", e.Data, err)
			}
			if again, err := r.MarshalJSON(); err != nil || string(again) != string(e.Data) {
				w.t.Fatalf("%s is read as %s, %v", e.Data, again, err)
			}
			out = append(out, r)
			after = e.Position
		}
	}
}

// said demands what the feed says beyond the first n events, and returns how
// many there are.
func (w *world) said(n int, want ...api.Revocation) int {
	w.t.Helper()
	got := w.feed("a.example")
	if len(got) != n+len(want) {
		w.t.Fatalf("the feed has %d events, want %d: %+v", len(got), n+len(want), got[min(n, len(got)):])
	}
	for i, g := range got[n:] {
		x := want[i]
		if g.Session != x.Session || g.User != x.User || g.All != x.All || g.Except != x.Except || g.Reason != x.Reason {
			w.t.Fatalf("event %d is %+v, want %+v", n+i, g, x)
		}
		if off := w.clock().Sub(g.At); off < -time.Second || off > 3*time.Second {
			w.t.Fatalf("event %d is from %v, it is %v", n+i, g.At, w.clock())
		}
		if lives := g.Until.Sub(g.At); lives < time.Hour+time.Minute || lives > time.Hour+3*time.Minute {
			w.t.Fatalf("event %d is kept for %v", n+i, lives)
		}
		if x.Session == (caveat.SessionID{}) && (g.Before.Before(g.At) || g.Before.Sub(g.At) > time.Second) {
			w.t.Fatalf("event %d is about what was minted before %v, at %v", n+i, g.Before, g.At)
		}
	}
	return len(got)
}

func (l *login) ended(reason string) api.Revocation {
	return api.Revocation{Session: l.cond.Session, Reason: reason}
}

// TestEveryRevocationIsPublished goes through everybody who can end a session.
func TestEveryRevocationIsPublished(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, w *world) {
		ctx, user, n := context.Background(), alice("a.example"), 0
		all := func(reason string, except caveat.SessionID) api.Revocation {
			return api.Revocation{User: user.User, Except: except, Reason: reason}
		}
		l := w.login(caveat.ModeRotate)
		first := l.must().RefreshToken
		next := l.must(token(l.must(token(first)).RefreshToken)).RefreshToken
		n = w.said(n)

		w.later(time.Hour)
		l.refused(discharger.ReasonTokenReused, token(first), at(away))
		n = w.said(n, l.ended(api.RevokedReuse))
		l.refused(discharger.ReasonSessionEnded, token(next))
		n = w.said(n)

		l = w.login(caveat.ModeOpen)
		l.must()
		mustDo(t, l.logout(discharger.ScopeSession))
		n = w.said(n, l.ended(api.RevokedLogout))
		early := w.login(caveat.ModeOpen)
		mustDo(t, early.logout(discharger.ScopeSession))
		n = w.said(n, early.ended(api.RevokedLogout))

		l = w.login(caveat.ModeOpen)
		l.must()
		w.later(time.Second)
		mustDo(t, l.logout(discharger.ScopeUser))
		n = w.said(n, all(api.RevokedLogout, caveat.SessionID{}))
		w.later(2 * time.Second)

		kept, other := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
		kept.must()
		other.must()
		w.later(time.Second)
		mustDo(t, w.service.RevokeUser(ctx, user, kept.cond.Session))
		n = w.said(n, all(api.RevokedOrder, kept.cond.Session))
		kept.must()
		// What is not alive cannot be left alone.
		mustDo(t, w.service.RevokeUser(ctx, user, other.cond.Session))
		n = w.said(n, all(api.RevokedOrder, caveat.SessionID{}))
		w.later(2 * time.Second)

		l = w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.Device = "TABLET" })
		l.must()
		mustDo(t, w.service.RevokeDevice(ctx, user, "TABLET", caveat.SessionID{}))
		n = w.said(n, l.ended(api.RevokedOrder))
		l = w.login(caveat.ModeOpen)
		l.must()
		mustDo(t, w.service.Revoke(ctx, user, l.cond.Session))
		n = w.said(n, l.ended(api.RevokedOrder))

		mustDo(t, w.service.RevokeHomeserver(ctx, "a.example"))
		w.said(n, api.Revocation{All: true, Reason: api.RevokedOrder})
		if got := w.feed("b.example"); len(got) != 0 {
			t.Errorf("another homeserver reads %+v", got)
		}
	})
}

func TestPolicyRevocationsArePublished(t *testing.T) {
	t.Parallel()
	w, p := newRuledWorld(t)
	a, b, c := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
	a.must()
	w.later(time.Second)
	b.must()
	w.later(time.Second)
	p.say(policy.Decision{Effect: policy.EffectAllow, KeepSessions: 2})
	c.must()
	n := w.said(0, a.ended(api.RevokedLimit))
	p.say(policy.Decision{Effect: policy.EffectDeny})
	b.refused(discharger.ReasonPolicy)
	n = w.said(n)
	p.say(policy.Decision{Effect: policy.EffectRevoke})
	b.refused(discharger.ReasonPolicy)
	n = w.said(n, b.ended(api.RevokedPolicy))
	p.say(policy.Decision{Effect: policy.EffectRevokeUser})
	c.refused(discharger.ReasonPolicy)
	w.said(n, api.Revocation{User: c.cond.User, Reason: api.RevokedPolicy})
}

// TestRepetitionPublishesWhatGotLost has the event of each revocation get lost
// after the revocation was stored. The request is undecided, and whoever
// repeats it has the event published; after that it is known to be out.
func TestRepetitionPublishesWhatGotLost(t *testing.T) {
	t.Parallel()
	ctx, user := context.Background(), alice("a.example")
	all := api.Revocation{User: user.User, Reason: api.RevokedLogout}
	for name, c := range map[string]struct {
		revoke func(w *world, l *login) error
		want   func(l *login) api.Revocation
		more   int // that each repetition says again: it is a revocation of its own
	}{
		"logout": {
			func(w *world, l *login) error { return l.logout(discharger.ScopeSession) },
			func(l *login) api.Revocation { return l.ended(api.RevokedLogout) }, 0,
		},
		"logout of the user": {
			func(w *world, l *login) error { return l.logout(discharger.ScopeUser) },
			func(l *login) api.Revocation { return all }, 0,
		},
		"order": {
			func(w *world, l *login) error { return w.service.Revoke(ctx, user, l.cond.Session) },
			func(l *login) api.Revocation { return l.ended(api.RevokedOrder) }, 0,
		},
		"device": {
			func(w *world, l *login) error { return w.service.RevokeDevice(ctx, user, "PHONE", caveat.SessionID{}) },
			func(l *login) api.Revocation { return l.ended(api.RevokedEarlier) }, 0,
		},
		"user": {
			func(w *world, l *login) error { return w.service.RevokeUser(ctx, user, caveat.SessionID{}) },
			func(l *login) api.Revocation { return api.Revocation{User: user.User, Reason: api.RevokedOrder} }, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, u := newUnfedWorld(t)
			l := w.login(caveat.ModeOpen)
			l.must()
			w.later(time.Second)
			u.broken = true
			for range 2 {
				if err := c.revoke(w, l); !errors.Is(err, discharger.ErrUnavailable) {
					t.Fatalf("without a feed: %v", err)
				}
			}
			n := w.said(0)
			u.broken = false
			mustDo(t, c.revoke(w, l))
			n = w.said(n, c.want(l))
			mustDo(t, c.revoke(w, l))
			for range c.more {
				n = w.said(n, c.want(l))
			}
			w.said(n)
		})
	}
}

// TestReuseIsPublishedAtLast: the request that was noticed to be a theft is
// undecided as long as nobody can be told, and so are the victim's.
func TestReuseIsPublishedAtLast(t *testing.T) {
	t.Parallel()
	w, u := newUnfedWorld(t)
	l := w.login(caveat.ModeRotate)
	old := l.must().RefreshToken
	next := l.must(token(l.must(token(old)).RefreshToken)).RefreshToken
	w.later(time.Minute)
	u.broken = true
	l.undecided(token(old), at(away))
	l.undecided(token(old), at(away))
	l.undecided(token(next))
	u.broken = false
	n := w.said(0)
	l.refused(discharger.ReasonSessionEnded, token(next))
	n = w.said(n, l.ended(api.RevokedEarlier))
	l.refused(discharger.ReasonSessionEnded, token(old), at(away))
	w.said(n)
}

// TestEvictionIsPublishedAtLast: an activation that has to end another session
// happens only when that has been said.
func TestEvictionIsPublishedAtLast(t *testing.T) {
	t.Parallel()
	p := &ruled{}
	w, u := newUnfedWorld(t, func(c *discharger.Config) { c.Policy = p })
	p.say(policy.Decision{Effect: policy.EffectAllow, KeepSessions: 1})
	a, b := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
	a.must()
	u.broken = true
	b.undecided()
	b.undecided()
	u.broken = false
	n := w.said(0)
	b.must()
	n = w.said(n, a.ended(api.RevokedEarlier))
	b.must()
	w.said(n)
}

// TestRevocationIsPublishedByAnother has a process die with its memory, and
// another one take over. Long after, nothing is said any more.
func TestRevocationIsPublishedByAnother(t *testing.T) {
	t.Parallel()
	w, u := newUnfedWorld(t)
	l := w.login(caveat.ModeOpen)
	l.must()
	mustDo(t, l.logout(discharger.ScopeSession))
	n := w.said(0, l.ended(api.RevokedLogout))
	another := newWorld(t, func(c *discharger.Config) { c.Store = u.Store })
	another.later(w.clock().Sub(another.clock())) // their clocks agree, however long it took to start it
	mustDo(t, another.service.Revoke(context.Background(), alice("a.example"), l.cond.Session))
	n = w.said(n, l.ended(api.RevokedOrder))
	third := newWorld(t, func(c *discharger.Config) { c.Store = u.Store })
	third.later(w.clock().Sub(third.clock()) + 2*time.Hour)
	mustDo(t, third.service.Revoke(context.Background(), alice("a.example"), l.cond.Session))
	w.said(n)
}

// TestAnnouncementsAreBounded: whoever ends more sessions than are remembered
// has only made them be said twice.
func TestAnnouncementsAreBounded(t *testing.T) {
	t.Parallel()
	if got, most := discharger.Announcements(100_000), 2*discharger.MaxAnnouncements; got > most {
		t.Errorf("%d are remembered, more than %d", got, most)
	}
}

// TestLogoutAllIsOneWrite ends a thousand sessions: one swap of one record and
// one event.
func TestLogoutAllIsOneWrite(t *testing.T) {
	t.Parallel()
	const sessions = 1000
	w, u := newUnfedWorld(t)
	var some []*login
	for i := range sessions {
		l := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.Device = fmt.Sprint(i) })
		l.must()
		if i%100 == 0 {
			some = append(some, l)
		}
	}
	w.later(time.Second)
	u.swaps, u.bytes = 0, 0
	mustDo(t, some[0].logout(discharger.ScopeUser))
	if u.swaps != 1 || u.bytes > 300 {
		t.Errorf("%d swaps, %d bytes", u.swaps, u.bytes)
	}
	w.said(0, api.Revocation{User: "@alice:a.example", Reason: api.RevokedLogout})
	for _, l := range some {
		l.refused(discharger.ReasonSessionEnded)
	}
	t.Logf("%d sessions ended with %d write of %d bytes, event included", sessions, u.swaps, u.bytes)
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCaveatAloneShowsNothing: whoever has only the caveat of a rotating session
// learns nothing of it, and so sets nothing off either.
func TestCaveatAloneShowsNothing(t *testing.T) {
	t.Parallel()
	w, u := newUnfedWorld(t)
	l := w.login(caveat.ModeRotate)
	tok := l.must().RefreshToken
	u.broken = true
	if err := l.logout(discharger.ScopeSession, token(tok)); !errors.Is(err, discharger.ErrUnavailable) {
		t.Fatalf("without a feed: %v", err)
	}
	w.later(time.Second)
	l.refused(discharger.ReasonTokenRequired)
	u.broken = false
	l.refused(discharger.ReasonTokenRequired)
	w.said(0)
	l.refused(discharger.ReasonSessionEnded, token(tok))
	w.said(0, l.ended(api.RevokedEarlier))
}
