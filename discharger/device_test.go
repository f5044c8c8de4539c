package discharger_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
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

// TestReplacedByNewerLogin logs in again on a device: the session before ends softly,
// with one event, and stays ended.
func TestReplacedByNewerLogin(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, w *world) {
		elsewhere := w.login(caveat.ModeOpen, device("LAPTOP"))
		elsewhere.must()
		none := w.login(caveat.ModeOpen, device(""))
		none.must()
		n := 0
		var all []*login
		for _, mode := range []caveat.Mode{caveat.ModeRotate, caveat.ModeOpen, caveat.ModeHeld, caveat.ModeOpen} {
			l := w.login(mode, device("PHONE"))
			l.must(homeserver("a.example"))
			if len(all) > 0 {
				n = w.published(n, all[len(all)-1].ended(revocation.CauseReplaced, true))
			}
			all = append(all, l)
		}
		for range 2 {
			for _, l := range all[1 : len(all)-1] {
				l.over(session.ReasonReplaced, true, homeserver("a.example"))
			}
			all[len(all)-1].must()
			elsewhere.must()
			none.must()
			w.published(n)
			w.later(time.Minute)
		}
		// The logout of a replaced session ends no other.
		testkit.NoError(t, all[1].logout(discharger.ScopeSession))
		w.published(n)
		all[len(all)-1].must()
		var ends []string
		list, err := w.service.EndedSessions(context.Background(), alice("a.example"))
		testkit.NoError(t, err)
		for _, e := range list {
			if e.End.Cause != revocation.CauseReplaced || !e.End.Soft || e.Device != "PHONE" {
				t.Errorf("tombstone %+v", e)
			}
			ends = append(ends, e.ID.String())
		}
		if len(ends) != 3 || slices.Contains(ends, all[3].cond.Session.String()) {
			t.Errorf("ended: %v", ends)
		}
	})
}

// TestSimultaneousActivations activates sessions of one device at once, through
// two services on one store. Exactly one lives.
func TestSimultaneousActivations(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(testing.TB) func(*discharger.Config){
		"bolt": func(testing.TB) func(*discharger.Config) { return func(*discharger.Config) {} }, "redis": onRedis,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg discharger.Config
			w := newWorld(t, change(t), func(c *discharger.Config) { cfg = *c })
			second, err := discharger.New(cfg)
			testkit.NoError(t, err)
			for _, n := range []int{2, 3, 12} {
				t.Run(strconv.Itoa(n), func(t *testing.T) {
					for range 5 {
						together(t, w, second, n)
						w.later(time.Second)
					}
				})
			}
		})
	}
}

func together(t *testing.T, w *world, second *discharger.Service, n int) {
	all := make([]*login, n)
	for i := range all {
		all[i] = w.login(caveat.ModeOpen, device("PHONE"))
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, l := range all {
		service := w.service
		if i%2 == 1 {
			service = second
		}
		wg.Go(func() { _, errs[i] = service.Discharge(context.Background(), l.request()) })
	}
	wg.Wait()
	live := 0
	for i, l := range all {
		_, err := l.discharge()
		var r *discharger.Refusal
		switch {
		case errs[i] != nil && !errors.As(errs[i], &r):
			t.Errorf("login %d: %v", i, errs[i])
		case err == nil:
			live++
		case !errors.As(err, &r) || r.Reason != session.ReasonReplaced || !r.SoftLogout:
			t.Errorf("login %d: %v", i, err)
		}
	}
	if live != 1 {
		t.Errorf("%d of %d sessions live", live, n)
	}
}

// lose removes a session's record, and its device's if that names the session, as a
// failover that loses the last seconds does.
func (l *login) lose() {
	l.w.t.Helper()
	ctx, tag := context.Background(), revocation.TagOf(l.cond.Device)
	v, err := l.w.store.Load(ctx, l.user(), l.cond.Session, tag)
	testkit.NoError(l.w.t, err)
	changes := []store.Change{{Session: l.cond.Session, Old: v.Session}}
	var d session.DeviceRecord
	testkit.NoError(l.w.t, d.UnmarshalBinary(v.Device))
	if v.Device != nil && d.Current == l.cond.Session {
		changes = append(changes, store.Change{Device: tag, Old: v.Device})
	}
	if ok, err := l.w.store.Swap(ctx, store.Write{User: l.user(), Changes: changes}); !ok || err != nil {
		l.w.t.Fatal(ok, err)
	}
}

// TestLostActivation removes a session's activation from the store. Inside the window
// its token repeats the activation; the caveat alone does not.
func TestLostActivation(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, w *world) {
		t.Run("is over after a revocation", func(t *testing.T) { // first, while the clock is that of Redis
			l := w.login(caveat.ModeRotate, func(c *caveat.Condition) { c.User = "@bob:a.example" })
			tok := l.must().RefreshToken
			l.lose()
			testkit.NoError(t, w.revokeUser(l.user(), discharger.Order{}))
			l.over(session.ReasonSessionEnded, false, token(tok))
		})
		t.Run("comes back", func(t *testing.T) {
			l := w.login(caveat.ModeRotate)
			tok := l.must().RefreshToken
			tok = l.must(token(tok)).RefreshToken
			l.lose()
			w.later(time.Minute)
			tok = l.must(token(tok), at(away)).RefreshToken
			l.must(token(tok))
			l.alive(session.ReasonTokenRequired)
		})
		t.Run("takes no device over", func(t *testing.T) {
			l := w.login(caveat.ModeRotate, device("TABLET"))
			tok := l.must().RefreshToken
			l.lose()
			other := w.login(caveat.ModeOpen, device("TABLET"))
			other.must()
			l.over(session.ReasonReplaced, true, token(tok))
			other.must()
		})
		t.Run("is over after the window", func(t *testing.T) {
			l := w.login(caveat.ModeRotate)
			tok := l.must().RefreshToken
			l.lose()
			w.later(11 * time.Minute)
			l.over(session.ReasonSessionEnded, true, token(tok))
		})
	})
	t.Run("the policy is evaluated", func(t *testing.T) {
		w, p := newRuledWorld(t)
		l := w.login(caveat.ModeRotate)
		tok := l.must().RefreshToken
		l.lose()
		p.set(policy.Decision{Effect: policy.EffectDeny})
		l.alive(session.ReasonPolicy, token(tok))
		p.set(policy.Decision{Effect: policy.EffectAllow})
		l.must(token(tok))
	})
}

// losing is a store that reports losses.
type losing struct {
	store.Store
	losses store.Losses
}

func (s *losing) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, d revocation.DeviceTag) (store.View, error) {
	v, err := s.Store.Load(ctx, u, id, d)
	v.Losses = s.losses
	return v, err
}

// TestAcceptedLoss accepts a loss of data: sessions that may have been revoked in it
// are over, softly, and later ones are not.
func TestAcceptedLoss(t *testing.T) {
	t.Parallel()
	st := &losing{}
	w := newWorld(t, func(c *discharger.Config) { st.Store, c.Store = c.Store, st })
	gone, unused, kept := w.login(caveat.ModeRotate), w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
	tok := gone.must().RefreshToken
	kept.must()
	gone.lose()
	w.later(time.Second)
	st.losses.Missing = w.clock().UnixMilli()
	gone.over(session.ReasonSessionLost, true, token(tok))
	unused.over(session.ReasonSessionLost, true)
	kept.must()
	st.losses.All = st.losses.Missing
	kept.over(session.ReasonSessionLost, true)
	kept.over(session.ReasonSessionLost, true)
	w.later(time.Second)
	w.login(caveat.ModeOpen).must()
}

// TestClockJumpEndsNothing moves the clock by 40 days for some seconds. Every method is
// undecided meanwhile, and no session has changed afterwards.
func TestClockJumpEndsNothing(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{40 * 24 * time.Hour, -40 * 24 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			t.Parallel()
			var elapsed time.Duration
			w := newWorld(t, func(c *discharger.Config) {
				discharger.SetElapsed(c, func() time.Duration { return elapsed })
			})
			wait := func(d time.Duration) { elapsed += d; w.later(d) }
			l, open := w.login(caveat.ModeRotate), w.login(caveat.ModeOpen)
			tok := l.must().RefreshToken
			open.must()
			wait(time.Minute)
			ctx, user := context.Background(), alice("a.example")
			w.later(jump)
			for range 3 {
				wait(time.Second)
				l.unchanged(func() { l.undecided(token(tok)) })
				open.unchanged(func() { open.undecided() })
				_, err1 := w.service.Sessions(ctx, user)
				_, _, err2 := l.own(token(tok))
				for i, err := range []error{
					open.logout(discharger.ScopeSession), open.revokeBy(discharger.Order{}), w.revokeUser(user, but(l)),
					w.revokeDevice(user, "PHONE", discharger.Order{}), w.service.RevokeHomeserver(ctx, "a.example", discharger.Order{}), err1, err2,
				} {
					if !errors.Is(err, discharger.ErrUnavailable) {
						t.Errorf("call %d: %v", i, err)
					}
				}
			}
			w.later(-jump)
			tok = l.must(token(tok)).RefreshToken
			open.must()
			w.login(caveat.ModeOpen).must() // no mark was left
			w.later(jump)
			l.undecided(token(tok))
			wait(discharger.ClockSettles)
			if jump > 0 { // the session has been idle for 40 days, and is forgotten
				l.over(session.ReasonSessionEnded, true, token(tok))
			} else { // the caveat is from the future
				l.undecided(token(tok))
			}
		})
	}
}

// TestMarkFromTheFuture revokes by a wrong clock. Later logins are undecided, not
// refused, until an operator lifts the mark.
func TestMarkFromTheFuture(t *testing.T) {
	t.Parallel()
	var seen discharger.Observation
	w := newWorld(t, func(c *discharger.Config) { c.Observer = observer(func(o discharger.Observation) { seen = o }) })
	ctx, user := context.Background(), alice("a.example")
	live, revoked := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
	live.must()
	w.later(365 * 24 * time.Hour)
	testkit.NoError(t, w.service.RevokeHomeserver(ctx, "a.example", discharger.Order{}))
	testkit.NoError(t, w.revokeUser(user, discharger.Order{}))
	w.later(-365*24*time.Hour + time.Second)
	live.over(session.ReasonSessionEnded, false)
	l := w.login(caveat.ModeOpen)
	for range 2 {
		l.undecided()
		if !seen.FutureMark {
			t.Error("FutureMark is not observed")
		}
	}
	m, err := w.service.Marks(ctx, user)
	if err != nil || !m.User.After(m.Now) || !m.Homeserver.After(m.Now) {
		t.Fatalf("marks %+v, %v", m, err)
	}
	for _, want := range []int{2, 0} {
		if n, err := w.service.LiftMarks(ctx, user); err != nil || n != want {
			t.Errorf("lifted %d, %v; want %d", n, err, want)
		}
	}
	revoked.over(session.ReasonSessionEnded, false)
	live.over(session.ReasonSessionEnded, false)
	w.later(time.Second)
	w.login(caveat.ModeOpen).must()
}

type observer func(discharger.Observation)

func (f observer) Observe(_ context.Context, o discharger.Observation) { f(o) }
