package discharger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/policy"
)

// unfed is a store whose events get lost on the way, after the swap took
// effect, as when a process dies there, or the node of the feed is down.
type unfed struct {
	store.Store
	broken bool
	swaps  int // that were made, and what they wrote
	bytes  int
}

func (u *unfed) Swap(ctx context.Context, w store.Write) (bool, error) {
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

func (u *unfed) Publish(ctx context.Context, homeserver string, events ...store.FeedEvent) error {
	if u.broken {
		return errFault
	}
	return u.Store.Publish(ctx, homeserver, events...)
}

func newUnfedWorld(t testing.TB, change ...func(*discharger.Config)) (*world, *unfed) {
	u := &unfed{}
	return newWorld(t, append(change, func(c *discharger.Config) { u.Store, c.Store = c.Store, u })...), u
}

// event is what an entry of a feed says.
type event struct {
	revocation.Event
	before, until time.Time
}

// feed reads all events of a homeserver.
func (w *world) feed(homeserver string) (out []event) {
	w.t.Helper()
	st := w.store
	switch s := st.(type) {
	case *unfed:
		st = s.Store
	case *losing:
		st = s.Store
	}
	for after := ""; ; {
		page, err := st.(store.Feed).ReadFeed(context.Background(), homeserver, after)
		if err != nil || page.Gap {
			w.t.Fatalf("ReadFeed: %v, gap %v", err, page.Gap)
		}
		if len(page.Entries) == 0 {
			return out
		}
		for _, e := range page.Entries {
			var times struct{ Before, Until int64 }
			if err := json.Unmarshal(e.Data, &times); err != nil {
				w.t.Fatalf("%s: %v", e.Data, err)
			}
			read, err := revocation.ParseEvent(e.Data)
			if err != nil {
				w.t.Fatalf("%s: %v", e.Data, err)
			}
			out = append(out, event{read, time.UnixMilli(times.Before), time.UnixMilli(times.Until)})
			after = e.Position
		}
	}
}

// said demands the events of the feed beyond the first n, and returns how many
// there are.
func (w *world) said(n int, want ...revocation.Event) int {
	w.t.Helper()
	got := w.feed("a.example")
	if len(got) != n+len(want) {
		w.t.Fatalf("the feed has %d events, want %d: %+v", len(got), n+len(want), got[min(n, len(got)):])
	}
	for i, g := range got[n:] {
		x := want[i]
		x.At, x.Before, x.Until = g.At, g.Before, g.Until
		if g.Event != x {
			w.t.Fatalf("event %d is %+v, want %+v", n+i, g.Event, x)
		}
		one := x.Session != caveat.SessionID{}
		if off := w.clock().Sub(g.At); one && (off < -time.Second || off > 3*time.Second) {
			w.t.Fatalf("event %d is from %v, it is %v", n+i, g.At, w.clock())
		}
		if lives := g.until.Sub(g.At); lives < time.Hour+time.Minute || lives > time.Hour+3*time.Minute {
			w.t.Fatalf("event %d is kept for %v", n+i, lives)
		}
		if !one && (g.before.Before(g.At) || g.before.Sub(g.At) > time.Second) {
			w.t.Fatalf("event %d is about what was minted before %v, at %v", n+i, g.before, g.At)
		}
	}
	return len(got)
}

// ended is the event of the end of the session.
func (l *login) ended(cause revocation.Cause, soft bool) revocation.Event {
	return revocation.Event{Session: l.cond.Session, User: l.cond.User, Device: l.cond.Device, Soft: soft, Reason: cause}
}

// againCause is the reason of events that repeat an end.
const againCause revocation.Cause = "again"

// TestEveryRevocationIsPublished goes through everybody who can end a session.
func TestEveryRevocationIsPublished(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, w *world) {
		ctx, user, n := context.Background(), alice("a.example"), 0
		all := func(cause revocation.Cause, except caveat.SessionID) revocation.Event {
			return revocation.Event{User: user.User, Except: except, Reason: cause}
		}
		l := w.login(caveat.ModeRotate)
		first := l.must().RefreshToken
		next := l.must(token(l.must(token(first)).RefreshToken)).RefreshToken
		n = w.said(n)

		l.over(session.ReasonTokenReused, true, token(first), at(away))
		n = w.said(n, l.ended(revocation.CauseReuse, true))
		l.over(session.ReasonTokenReused, true, token(next))
		n = w.said(n)

		l = w.login(caveat.ModeOpen)
		l.must()
		mustDo(t, l.logout(discharger.ScopeSession))
		n = w.said(n, l.ended(revocation.CauseLogout, false))
		early := w.login(caveat.ModeOpen)
		mustDo(t, early.logout(discharger.ScopeSession))
		n = w.said(n, early.ended(revocation.CauseLogout, false))

		l = w.login(caveat.ModeOpen)
		l.must()
		w.later(time.Second)
		mustDo(t, l.logout(discharger.ScopeUser, homeserver("a.example")))
		n = w.said(n, all(revocation.CauseLogout, caveat.SessionID{}))
		w.pastMarks()

		kept, other := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
		kept.must()
		other.must()
		w.later(time.Second)
		mustDo(t, w.revokeUser(user, but(kept)))
		n = w.said(n, all(revocation.CauseRevoked, kept.cond.Session))
		kept.must()
		// What is not alive cannot be left alone.
		mustDo(t, w.revokeUser(user, but(other)))
		n = w.said(n, all(revocation.CauseRevoked, caveat.SessionID{}))
		w.pastMarks()

		l = w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.Device = "TABLET" })
		l.must()
		mustDo(t, w.revokeDevice(user, "TABLET", discharger.Order{}))
		n = w.said(n, l.ended(revocation.CauseRevoked, false),
			revocation.Event{User: user.User, Device: "TABLET", Reason: revocation.CauseRevoked})
		w.pastMarks()
		before, after := w.login(caveat.ModeOpen, device("TABLET")), w.login(caveat.ModeOpen, device("TABLET"))
		before.must()
		after.must()
		n = w.said(n, before.ended(revocation.CauseReplaced, true))
		l = w.login(caveat.ModeOpen)
		l.must()
		mustDo(t, l.revokeBy(discharger.Order{}))
		n = w.said(n, l.ended(revocation.CauseRevoked, false))

		mustDo(t, w.service.RevokeHomeserver(ctx, "a.example", discharger.Order{}))
		w.said(n, revocation.Event{All: true, Reason: revocation.CauseRevoked})
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
	n := w.said(0, a.ended(revocation.CauseLimit, true))
	p.say(policy.Decision{Effect: policy.EffectDeny})
	b.refused(session.ReasonPolicy)
	n = w.said(n)
	p.say(policy.Decision{Effect: policy.EffectRevoke})
	b.refused(session.ReasonPolicy)
	n = w.said(n, b.ended(revocation.CausePolicy, false))
	p.say(policy.Decision{Effect: policy.EffectRevokeUser})
	c.refused(session.ReasonPolicy)
	w.said(n, revocation.Event{User: c.cond.User, Reason: revocation.CausePolicy})
}

// TestRepetitionPublishesWhatGotLost has the event of each revocation get lost
// after the revocation was stored. The request is undecided, and whoever
// repeats it has the event published; after that it is known to be out.
func TestRepetitionPublishesWhatGotLost(t *testing.T) {
	t.Parallel()
	user := alice("a.example")
	all := revocation.Event{User: user.User, Reason: revocation.CauseLogout}
	for name, c := range map[string]struct {
		revoke func(w *world, l *login) error
		want   func(l *login) []revocation.Event
		more   int // of these, the last that each repetition says again: it is a revocation of its own
	}{
		"logout": {
			func(w *world, l *login) error { return l.logout(discharger.ScopeSession) },
			func(l *login) []revocation.Event { return []revocation.Event{l.ended(revocation.CauseLogout, false)} }, 0,
		},
		"logout of the user": {
			func(w *world, l *login) error { return l.logout(discharger.ScopeUser, homeserver("a.example")) },
			func(l *login) []revocation.Event { return []revocation.Event{all} }, 0,
		},
		"order": {
			func(w *world, l *login) error { return l.revokeBy(discharger.Order{}) },
			func(l *login) []revocation.Event { return []revocation.Event{l.ended(revocation.CauseRevoked, false)} }, 0,
		},
		"device": {
			func(w *world, l *login) error { return w.revokeDevice(user, "PHONE", discharger.Order{}) },
			func(l *login) []revocation.Event {
				mark := revocation.Event{User: user.User, Device: "PHONE", Reason: revocation.CauseRevoked}
				return []revocation.Event{l.ended(againCause, false), mark}
			}, 1,
		},
		"user": {
			func(w *world, l *login) error { return w.revokeUser(user, discharger.Order{}) },
			func(l *login) []revocation.Event {
				return []revocation.Event{{User: user.User, Reason: revocation.CauseRevoked}}
			}, 1,
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
			want := c.want(l)
			n = w.said(n, want...)
			mustDo(t, c.revoke(w, l))
			w.said(n, want[len(want)-c.more:]...)
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
	l.over(session.ReasonTokenReused, true, token(next))
	n = w.said(n, l.ended(againCause, true))
	l.over(session.ReasonTokenReused, true, token(old), at(away))
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
	n = w.said(n, a.ended(againCause, true))
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
	n := w.said(0, l.ended(revocation.CauseLogout, false))
	another := newWorld(t, func(c *discharger.Config) { c.Store = u.Store })
	another.later(w.clock().Sub(another.clock())) // their clocks agree, however long it took to start it
	_, err := another.service.Revoke(context.Background(), l.user(), l.cond.Session, discharger.Order{})
	mustDo(t, err)
	n = w.said(n, l.ended(revocation.CauseLogout, false)) // as it ended
	third := newWorld(t, func(c *discharger.Config) { c.Store = u.Store })
	third.later(w.clock().Sub(third.clock()) + 2*time.Hour)
	_, err = third.service.Revoke(context.Background(), l.user(), l.cond.Session, discharger.Order{})
	mustDo(t, err)
	w.said(n)
}

// TestAnnouncementsAreBounded: more ends of sessions than can be remembered are
// published twice, and take no more memory.
func TestAnnouncementsAreBounded(t *testing.T) {
	t.Parallel()
	got, err := discharger.Announced(20_000)
	mustDo(t, err)
	if got > discharger.AnnouncedBytes || got < discharger.AnnouncedBytes/3 {
		t.Errorf("%d bytes are remembered, of %d", got, discharger.AnnouncedBytes)
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
	mustDo(t, some[0].logout(discharger.ScopeUser, homeserver("a.example")))
	if u.swaps != 1 || u.bytes > 300 {
		t.Errorf("%d swaps, %d bytes", u.swaps, u.bytes)
	}
	w.said(0, revocation.Event{User: "@alice:a.example", Reason: revocation.CauseLogout})
	for _, l := range some {
		l.refused(session.ReasonSessionEnded)
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
	l.refused(session.ReasonTokenRequired)
	u.broken = false
	l.refused(session.ReasonTokenRequired)
	w.said(0)
	l.refused(session.ReasonSessionEnded, token(tok))
	w.said(0, l.ended(againCause, false))
}
