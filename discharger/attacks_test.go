package discharger_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/testkit"
)

// TestAttackReplayAcrossRestart presents a token that was exchanged twice since, to
// another process and within the same millisecond. From another party that ends the
// session; from the party of the last use it is refused, at any age.
func TestAttackReplayAcrossRestart(t *testing.T) {
	t.Parallel()
	for name, redis := range map[string]bool{"bolt": false, "redis": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg discharger.Config
			changes := []func(*discharger.Config){func(c *discharger.Config) { cfg = *c }}
			if redis {
				changes = append([]func(*discharger.Config){onRedis(t)}, changes...)
			}
			w := newWorld(t, changes...)
			restart := func() {
				var err error
				if w.service, err = discharger.New(cfg); err != nil {
					t.Fatal(err)
				}
			}
			for _, elsewhere := range []bool{true, false} {
				l := w.login(caveat.ModeRotate)
				first := l.must().RefreshToken
				restart()
				second := l.must(token(first)).RefreshToken
				third := l.must(token(second)).RefreshToken
				restart()
				if !elsewhere {
					l.alive(session.ReasonTokenSuperseded, token(first))
					w.later(time.Hour)
					restart()
					l.alive(session.ReasonTokenSuperseded, token(first))
					l.must(token(third))
					continue
				}
				l.over(session.ReasonTokenReused, true, token(first), at(away))
				restart()
				l.over(session.ReasonTokenReused, true, token(third))
			}
		})
	}
}

// TestAttackClockJumps sets the service's clock forward and back. No live session is
// refused, and no ended one lives again.
func TestAttackClockJumps(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, w *world) {
		l, gone := w.login(caveat.ModeRotate), w.login(caveat.ModeRotate)
		tok, over := l.must().RefreshToken, gone.must().RefreshToken
		testkit.NoError(t, gone.logout(discharger.ScopeSession, token(over)))
		for _, jump := range []time.Duration{-10 * time.Minute, 20 * time.Minute, -time.Hour, time.Hour, -time.Millisecond} {
			w.later(jump)
			if jump < -time.Minute { // the caveat is from the future
				gone.undecided(token(over))
				l.undecided(token(tok))
				continue
			}
			gone.refused(session.ReasonSessionEnded, token(over))
			tok = l.must(token(tok)).RefreshToken
		}
		slow := w.login(caveat.ModeRotate, func(c *caveat.Condition) { c.Minted -= time.Minute.Milliseconds() })
		slow.must(token(slow.must().RefreshToken))
	})
}

// counting is a store that counts calls.
type counting struct {
	store.Store
	loads, others atomic.Int64
}

func (c *counting) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, d revocation.DeviceTag) (store.View, error) {
	c.loads.Add(1)
	return c.Store.Load(ctx, u, id, d)
}

func (c *counting) Swap(ctx context.Context, w store.Write) (bool, error) {
	c.others.Add(1)
	return c.Store.Swap(ctx, w)
}

func (c *counting) List(ctx context.Context, u store.UserKey) (store.Listing, error) {
	c.others.Add(1)
	return c.Store.List(ctx, u)
}

// TestAttackTimingShape tests that every ended session is refused with the same calls
// of the store, so that the time of the answer does not reveal its end.
func TestAttackTimingShape(t *testing.T) {
	t.Parallel()
	c := &counting{}
	w := newWorld(t, func(cfg *discharger.Config) { c.Store, cfg.Store = cfg.Store, c })
	user := func(name string) func(*caveat.Condition) {
		return func(c *caveat.Condition) { c.User = name }
	}
	absent, ended, all := w.login(caveat.ModeOpen, user("@a:x")), w.login(caveat.ModeOpen, user("@b:x")), w.login(caveat.ModeOpen, user("@c:x"))
	ended.must()
	all.must()
	testkit.NoError(t, ended.logout(discharger.ScopeSession))
	testkit.NoError(t, all.logout(discharger.ScopeUser, homeserver("a.example")))
	w.later(20 * time.Minute)
	for name, l := range map[string]*login{"never activated": absent, "logged out": ended, "all logged out": all} {
		t.Run(name, func(t *testing.T) {
			c.loads.Store(0)
			c.others.Store(0)
			l.refused(session.ReasonSessionEnded)
			if c.loads.Load() != 1 || c.others.Load() > 0 {
				t.Errorf("%d loads and %d others", c.loads.Load(), c.others.Load())
			}
		})
	}
}

// TestAttackDowngrade presents a second caveat of a session, in a mode that requires
// less. Only the homeserver can make it, and it is refused.
func TestAttackDowngrade(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, w *world) {
		l := w.login(caveat.ModeRotate)
		tok := l.must().RefreshToken
		weaker := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.Session = l.cond.Session })
		weaker.alive(session.ReasonTokenInvalid)
		weaker.alive(session.ReasonTokenInvalid, token(tok))
		for _, scope := range []discharger.Scope{discharger.ScopeSession, discharger.ScopeUser} {
			if err := weaker.logout(scope); err == nil {
				t.Errorf("scope %d: logged out", scope)
			}
		}
		l.must(token(tok))
	})
}
