package discharger_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/policy"
)

// process is one of several that share a store. Its clock can be wrong.
type process struct {
	*discharger.Service
	off  time.Duration // of its clock
	keys []discharger.RefreshKey
	gone [][4]byte // ids of keys that were retired
}

// undecidedWorld is the world of TestNoDecisionIsSoft: two processes on one store.
type undecidedWorld struct {
	*world
	cfg       discharger.Config
	elapsed   time.Duration
	store     *losing
	policy    *ruled
	processes [2]*process
	users     int

	user   string    // of the present run
	logins []*holder // likewise
}

// holder is a client with every refresh token that it received.
type holder struct {
	*login
	tokens [][]byte
}

func newUndecidedWorld(t *testing.T) *undecidedWorld {
	u := &undecidedWorld{store: &losing{}, policy: &ruled{}}
	u.world = newWorld(t, func(c *discharger.Config) {
		u.store.Store, c.Store = c.Store, u.store
		c.Policy, c.Limits.Absolute = u.policy, 60*24*time.Hour
		u.cfg = *c
	})
	for i := range u.processes {
		u.processes[i] = &process{keys: u.cfg.RefreshKeys}
		u.restart(i)
	}
	return u
}

// restart replaces a process by a new one on the same store.
func (u *undecidedWorld) restart(i int) {
	p, cfg := u.processes[i], u.cfg
	cfg.RefreshKeys, cfg.RetiredKeys = p.keys, p.gone
	cfg = cfg.WithClock(func() time.Time { return u.clock().Add(p.off) })
	discharger.SetElapsed(&cfg, func() time.Duration { return u.elapsed })
	var err error
	if p.Service, err = discharger.New(cfg); err != nil {
		u.t.Fatal(err)
	}
}

func (u *undecidedWorld) wait(d time.Duration) {
	u.elapsed += d
	u.later(d)
}

// begin resets the world for a run with a new user.
func (u *undecidedWorld) begin() {
	u.users++
	u.user, u.logins = fmt.Sprintf("@user%d:a.example", u.users), nil
	u.store.losses = store.Losses{}
	u.policy.saw = nil
	u.policy.set(policy.Decision{Effect: policy.EffectAllow})
	for i, p := range u.processes {
		p.off, p.keys, p.gone = 0, u.cfg.RefreshKeys, nil
		u.restart(i)
	}
}

// TestNoDecisionIsSoft ends sessions at random without a decision of a user or an
// operator: by times, losses, limits, reauth, retired keys, other logins and theft. Every
// end in answers and events is soft, also after repetitions, restarts, requests to
// another process, and clock jumps.
func TestNoDecisionIsSoft(t *testing.T) {
	t.Parallel()
	u := newUndecidedWorld(t)
	ends := make(map[session.Reason]int)
	check := func(t *rapid.T) {
		u.begin()
		t.Repeat(map[string]func(*rapid.T){
			"login":   func(t *rapid.T) { u.draw(t) },
			"refresh": func(t *rapid.T) { u.present(t, ends) },
			"again":   func(t *rapid.T) { u.present(t, ends) },
			"use": func(t *rapid.T) {
				u.draw(t)
				u.use(t)
				u.present(t, ends)
			},
			"wait": func(t *rapid.T) {
				u.wait(rapid.SampledFrom([]time.Duration{
					time.Millisecond, time.Second, 20 * time.Second, 4 * time.Minute, 11 * time.Minute, 7 * time.Hour, 31 * 24 * time.Hour,
				}).Draw(t, "wait"))
			},
			"clock":   u.step,
			"restart": func(t *rapid.T) { u.restart(rapid.IntRange(0, 1).Draw(t, "process")) },
			"lose":    u.loseOne,
			"loss": func(t *rapid.T) {
				u.store.losses.Missing = u.clock().UnixMilli()
				if rapid.Bool().Draw(t, "all") {
					u.store.losses.All = u.store.losses.Missing
				}
			},
			"policy": func(t *rapid.T) {
				u.policy.set(rapid.SampledFrom([]policy.Decision{
					{Effect: policy.EffectAllow}, {Effect: policy.EffectAllow}, {Effect: policy.EffectReauth, Code: "too_long"},
					{Effect: policy.EffectAllow, KeepSessions: 1}, {Effect: policy.EffectDeny}, {Effect: policy.EffectDefer},
				}).Draw(t, "policy"))
			},
			"key":  u.retire,
			"seen": u.report,
		})
		for _, e := range u.feed("a.example") {
			if e.User == u.user && !e.Soft {
				t.Fatalf("event %+v is hard", e)
			}
		}
	}
	for range 5 {
		rapid.Check(t, check)
	}
	for _, want := range []session.Reason{
		session.ReasonSessionExpired, session.ReasonSessionLost, session.ReasonReplaced, session.ReasonTokenReused,
		session.ReasonSessionEnded, "too_long",
	} {
		if ends[want] == 0 {
			t.Errorf("no session ended with %q", want)
		}
	}
}

// draw adds a login, on one of two devices or none.
func (u *undecidedWorld) draw(t *rapid.T) {
	mode := rapid.SampledFrom([]caveat.Mode{caveat.ModeRotate, caveat.ModeRotate, caveat.ModeOpen, caveat.ModeHeld}).Draw(t, "mode")
	l := u.login(mode, device(rapid.SampledFrom([]string{"PHONE", "LAPTOP", ""}).Draw(t, "device")), func(c *caveat.Condition) {
		c.User = u.user
		if rapid.IntRange(0, 4).Draw(t, "expires") == 0 {
			c.Expires = c.Minted + (8 * time.Hour).Milliseconds()
		}
	})
	u.logins = append(u.logins, &holder{login: l})
}

// present presents a random token of a random session to a random process, twice if it
// is refused.
func (u *undecidedWorld) present(t *rapid.T, ends map[session.Reason]int) {
	if len(u.logins) == 0 {
		return
	}
	h := u.logins[rapid.IntRange(0, len(u.logins)-1).Draw(t, "session")]
	addr := rapid.SampledFrom([]netip.Addr{phone, phone, away}).Draw(t, "from")
	opts := []option{at(addr), homeserver("a.example")}
	if n := len(h.tokens); n > 0 {
		opts = append(opts, token(h.tokens[max(0, n-1-rapid.IntRange(0, 4).Draw(t, "age"))]))
	}
	for range 2 {
		p := u.processes[rapid.IntRange(0, 1).Draw(t, "process")]
		g, err := p.Discharge(context.Background(), h.request(opts...))
		var r *discharger.Refusal
		switch {
		case err == nil:
			if g.RefreshToken != nil {
				h.tokens = append(h.tokens, g.RefreshToken)
			}
			return
		case errors.Is(err, discharger.ErrUnavailable):
			return
		case !errors.As(err, &r):
			t.Fatalf("discharge: %v", err)
		case r.SoftLogout != r.Ended:
			t.Fatalf("refused (%s): ended %v, soft %v", r.Reason, r.Ended, r.SoftLogout)
		case r.Ended:
			ends[r.Reason]++
		}
	}
}

// use refreshes the newest session several times, with its newest token.
func (u *undecidedWorld) use(t *rapid.T) {
	h := u.logins[len(u.logins)-1]
	for range rapid.IntRange(1, 4).Draw(t, "times") {
		opts := []option{homeserver("a.example")}
		if n := len(h.tokens); n > 0 {
			opts = append(opts, token(h.tokens[n-1]))
		}
		g, err := u.processes[0].Discharge(context.Background(), h.request(opts...))
		var r *discharger.Refusal
		switch {
		case errors.As(err, &r) && r.SoftLogout != r.Ended:
			t.Fatalf("refused (%s): ended %v, soft %v", r.Reason, r.Ended, r.SoftLogout)
		case err == nil && g.RefreshToken != nil:
			h.tokens = append(h.tokens, g.RefreshToken)
		}
	}
}

// step sets the clock of a process, possibly to the right time.
func (u *undecidedWorld) step(t *rapid.T) {
	p := u.processes[rapid.IntRange(0, 1).Draw(t, "process")]
	p.off = rapid.SampledFrom([]time.Duration{0, 0, 40 * 24 * time.Hour, -40 * 24 * time.Hour, 30 * time.Second}).Draw(t, "clock")
}

// loseOne removes a session's record from the store.
func (u *undecidedWorld) loseOne(t *rapid.T) {
	if len(u.logins) == 0 {
		return
	}
	h := u.logins[rapid.IntRange(0, len(u.logins)-1).Draw(t, "session")]
	if h.stored() != nil {
		h.lose()
	}
}

// retire retires the refresh-token key in use, at one process.
func (u *undecidedWorld) retire(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "seldom") > 0 {
		return
	}
	fresh, err := discharger.NewRefreshKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range u.processes {
		p.keys = append([]discharger.RefreshKey{fresh}, p.keys...)
		u.restart(i)
	}
	i := rapid.IntRange(0, 1).Draw(t, "process")
	p := u.processes[i]
	p.keys, p.gone = p.keys[:1], append(p.gone, p.keys[1].ID())
	u.restart(i)
}

// report reports a discharge in use.
func (u *undecidedWorld) report(t *rapid.T) {
	if len(u.logins) == 0 {
		return
	}
	h := u.logins[rapid.IntRange(0, len(u.logins)-1).Draw(t, "session")]
	p := u.processes[rapid.IntRange(0, 1).Draw(t, "process")]
	err := p.Seen(context.Background(), h.user(), h.cond.Session, uint64(len(h.tokens)))
	if err != nil && !errors.Is(err, discharger.ErrUnavailable) {
		t.Fatal(err)
	}
}
