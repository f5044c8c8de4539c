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
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/policy"
)

// unfed is a store that, while broken, loses the events of a swap that took effect, as
// after a crash of the process, or while the node of the feed is down.
type unfed struct {
	store.Store
	broken bool
	swaps  int
	bytes  int // written by swaps, with events
}

func (u *unfed) Swap(ctx context.Context, w store.Write) (bool, error) {
	u.swaps++
	for _, c := range w.Changes {
		u.bytes += len(c.New)
	}
	events, err := revocation.Lines(w.Revocations)
	if err != nil {
		return false, err
	}
	for _, e := range events {
		u.bytes += len(e.Data)
	}
	if u.broken && len(events) > 0 {
		w.Revocations = revocation.Journaled(w.Revocations)
		if ok, err := u.Store.Swap(ctx, w); err != nil || !ok {
			return ok, err
		}
		return false, errFault
	}
	return u.Store.Swap(ctx, w)
}

func (u *unfed) Publish(ctx context.Context, homeserver string, revocations ...revocation.Revocation) error {
	if u.broken {
		return errFault
	}
	return u.Store.Publish(ctx, homeserver, revocations...)
}

func newUnfedWorld(t testing.TB, change ...func(*discharger.Config)) (*world, *unfed) {
	u := &unfed{}
	return newWorld(t, append(change, func(c *discharger.Config) { u.Store, c.Store = c.Store, u })...), u
}

// event is an entry of a feed.
type event struct {
	revocation.Event
	before, until time.Time
}

// feed returns all events of a homeserver.
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

// published demands the events of the feed after the first n, and returns the number of
// all.
func (w *world) published(n int, want ...revocation.Event) int {
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
			w.t.Fatalf("event %d covers sessions minted before %v, at %v", n+i, g.before, g.At)
		}
	}
	return len(got)
}

// ended returns the event of the session's end.
func (l *login) ended(cause revocation.Cause, soft bool) revocation.Event {
	return revocation.Event{Session: l.cond.Session, User: l.cond.User, Device: l.cond.Device, Soft: soft, Reason: cause}
}

// againCause is the reason of repeated events.
const againCause revocation.Cause = "again"

// TestEveryRevocationIsPublished ends sessions by every kind of request.
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
		n = w.published(n)

		l.over(session.ReasonTokenReused, true, token(first), at(away))
		n = w.published(n, l.ended(revocation.CauseReuse, true))
		l.over(session.ReasonTokenReused, true, token(next))
		n = w.published(n)

		l = w.login(caveat.ModeOpen)
		l.must()
		testkit.NoError(t, l.logout(discharger.ScopeSession))
		n = w.published(n, l.ended(revocation.CauseLogout, false))
		early := w.login(caveat.ModeOpen)
		testkit.NoError(t, early.logout(discharger.ScopeSession))
		n = w.published(n, early.ended(revocation.CauseLogout, false))

		l = w.login(caveat.ModeOpen)
		l.must()
		w.later(time.Second)
		testkit.NoError(t, l.logout(discharger.ScopeUser, homeserver("a.example")))
		n = w.published(n, all(revocation.CauseLogout, caveat.SessionID{}))
		w.pastMarks()

		kept, other := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
		kept.must()
		other.must()
		w.later(time.Second)
		testkit.NoError(t, w.revokeUser(user, but(kept)))
		n = w.published(n, all(revocation.CauseRevoked, kept.cond.Session))
		kept.must()
		// An ended session cannot be spared.
		testkit.NoError(t, w.revokeUser(user, but(other)))
		n = w.published(n, all(revocation.CauseRevoked, caveat.SessionID{}))
		w.pastMarks()

		l = w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.Device = "TABLET" })
		l.must()
		testkit.NoError(t, w.revokeDevice(user, "TABLET", discharger.Order{}))
		n = w.published(n, l.ended(revocation.CauseRevoked, false),
			revocation.Event{User: user.User, Device: "TABLET", Reason: revocation.CauseRevoked})
		w.pastMarks()
		before, after := w.login(caveat.ModeOpen, device("TABLET")), w.login(caveat.ModeOpen, device("TABLET"))
		before.must()
		after.must()
		n = w.published(n, before.ended(revocation.CauseReplaced, true))
		l = w.login(caveat.ModeOpen)
		l.must()
		testkit.NoError(t, l.revokeBy(discharger.Order{}))
		n = w.published(n, l.ended(revocation.CauseRevoked, false))

		testkit.NoError(t, w.service.RevokeHomeserver(ctx, "a.example", discharger.Order{}))
		w.published(n, revocation.Event{All: true, Reason: revocation.CauseRevoked})
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
	p.set(policy.Decision{Effect: policy.EffectAllow, KeepSessions: 2})
	c.must()
	n := w.published(0, a.ended(revocation.CauseLimit, true))
	p.set(policy.Decision{Effect: policy.EffectDeny})
	b.refused(session.ReasonPolicy)
	n = w.published(n)
	p.set(policy.Decision{Effect: policy.EffectRevoke})
	b.refused(session.ReasonPolicy)
	n = w.published(n, b.ended(revocation.CausePolicy, false))
	p.set(policy.Decision{Effect: policy.EffectRevokeUser})
	c.refused(session.ReasonPolicy)
	w.published(n, revocation.Event{User: c.cond.User, Reason: revocation.CausePolicy})
}

// TestRepetitionPublishesLostEvents loses the event of each revocation after the
// revocation was stored. The request is undecided; a repeated one publishes the event,
// and further ones do not.
func TestRepetitionPublishesLostEvents(t *testing.T) {
	t.Parallel()
	user := alice("a.example")
	all := revocation.Event{User: user.User, Reason: revocation.CauseLogout}
	for name, c := range map[string]struct {
		revoke func(w *world, l *login) error
		want   func(l *login) []revocation.Event
		more   int // the last of these, which each repetition publishes: it is another revocation
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
			n := w.published(0)
			u.broken = false
			testkit.NoError(t, c.revoke(w, l))
			want := c.want(l)
			n = w.published(n, want...)
			testkit.NoError(t, c.revoke(w, l))
			w.published(n, want[len(want)-c.more:]...)
		})
	}
}

// TestReuseIsPublishedAtLast tests that the requests of thief and victim are undecided
// until the event of the theft is published.
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
	n := w.published(0)
	l.over(session.ReasonTokenReused, true, token(next))
	n = w.published(n, l.ended(againCause, true))
	l.over(session.ReasonTokenReused, true, token(old), at(away))
	w.published(n)
}

// TestEvictionIsPublishedAtLast tests that an activation over a limit waits until the
// end of the other session is published.
func TestEvictionIsPublishedAtLast(t *testing.T) {
	t.Parallel()
	p := &ruled{}
	w, u := newUnfedWorld(t, func(c *discharger.Config) { c.Policy = p })
	p.set(policy.Decision{Effect: policy.EffectAllow, KeepSessions: 1})
	a, b := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
	a.must()
	u.broken = true
	b.undecided()
	b.undecided()
	u.broken = false
	n := w.published(0)
	b.must()
	n = w.published(n, a.ended(againCause, true))
	b.must()
	w.published(n)
}

// TestRevocationIsPublishedByAnother repeats a revocation at another process, which
// publishes it again; long after, it does not.
func TestRevocationIsPublishedByAnother(t *testing.T) {
	t.Parallel()
	w, u := newUnfedWorld(t)
	l := w.login(caveat.ModeOpen)
	l.must()
	testkit.NoError(t, l.logout(discharger.ScopeSession))
	n := w.published(0, l.ended(revocation.CauseLogout, false))
	another := newWorld(t, func(c *discharger.Config) { c.Store = u.Store })
	another.later(w.clock().Sub(another.clock())) // to the same time
	_, err := another.service.Revoke(context.Background(), l.user(), l.cond.Session, discharger.Order{})
	testkit.NoError(t, err)
	n = w.published(n, l.ended(revocation.CauseLogout, false)) // as it ended
	third := newWorld(t, func(c *discharger.Config) { c.Store = u.Store })
	third.later(w.clock().Sub(third.clock()) + 2*time.Hour)
	_, err = third.service.Revoke(context.Background(), l.user(), l.cond.Session, discharger.Order{})
	testkit.NoError(t, err)
	w.published(n)
}

// TestPublishedIsBounded tests the bound of the memory for published events.
func TestPublishedIsBounded(t *testing.T) {
	t.Parallel()
	got, err := discharger.PublishedSize(20_000)
	testkit.NoError(t, err)
	if got > discharger.PublishedBytes || got < discharger.PublishedBytes/3 {
		t.Errorf("%d bytes, want at most %d and a third at least", got, discharger.PublishedBytes)
	}
}

// TestLogoutAllIsOneWrite ends a thousand sessions with one swap of one record and one
// event.
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
	testkit.NoError(t, some[0].logout(discharger.ScopeUser, homeserver("a.example")))
	if u.swaps != 1 || u.bytes > 300 {
		t.Errorf("%d swaps, %d bytes", u.swaps, u.bytes)
	}
	w.published(0, revocation.Event{User: "@alice:a.example", Reason: revocation.CauseLogout})
	for _, l := range some {
		l.refused(session.ReasonSessionEnded)
	}
	t.Logf("%d sessions ended with %d write of %d bytes, event included", sessions, u.swaps, u.bytes)
}

// TestCaveatAloneRevealsNothing tests that a request with the caveat of a rotating
// session alone reveals nothing of it, and publishes nothing.
func TestCaveatAloneRevealsNothing(t *testing.T) {
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
	w.published(0)
	l.refused(session.ReasonSessionEnded, token(tok))
	w.published(0, l.ended(againCause, false))
}
