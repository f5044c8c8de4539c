package discharger_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/policy"
)

// ruled is a policy that a test sets, and that records its inputs.
type ruled struct {
	decide func(*policy.Input) (policy.Decision, error)
	saw    []policy.Input
	counts bool
}

func (p *ruled) Evaluate(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	if p.counts {
		if _, err := in.CountSessions(ctx); err != nil {
			return policy.Decision{}, err
		}
	}
	p.saw = append(p.saw, *in)
	return p.decide(in)
}

func (p *ruled) set(d policy.Decision) {
	p.decide = func(*policy.Input) (policy.Decision, error) { return d, nil }
}

func (p *ruled) last() policy.Input { return p.saw[len(p.saw)-1] }

func newRuledWorld(t *testing.T) (*world, *ruled) {
	p := &ruled{}
	p.set(policy.Decision{Effect: policy.EffectAllow})
	return newWorld(t, func(c *discharger.Config) { c.Policy = p }), p
}

func TestPolicyNarrows(t *testing.T) {
	t.Parallel()
	w, p := newRuledWorld(t)
	l := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.MaxTTL = 20 * time.Minute })
	p.set(policy.Decision{Effect: policy.EffectAllow, TTL: time.Minute, Caveats: []string{"client-ip 203.0.113.7"}})
	g := l.must()
	if g.ExpiresIn != time.Minute {
		t.Errorf("ttl %v", g.ExpiresIn)
	}
	if got := l.check(g); !slices.Contains(got, "client-ip 203.0.113.7") {
		t.Errorf("conditions %q", got)
	}
	p.set(policy.Decision{Effect: policy.EffectAllow, TTL: 10 * time.Hour})
	if g := l.must(); g.ExpiresIn != 20*time.Minute {
		t.Errorf("a ttl beyond the condition's gave %v", g.ExpiresIn)
	}
}

func TestPolicyWithholds(t *testing.T) {
	t.Parallel()
	w, p := newRuledWorld(t)
	allow := policy.Decision{Effect: policy.EffectAllow}
	l := w.login(caveat.ModeRotate)
	tok := l.must().RefreshToken

	p.set(policy.Decision{Effect: policy.EffectDeny, Code: "office_hours", Message: "come back at nine"})
	if r := l.alive("office_hours", token(tok)); r.Message != "come back at nine" {
		t.Errorf("got %+v", r)
	}
	p.set(policy.Decision{Effect: policy.EffectDefer, RetryAfter: 7 * time.Second})
	l.unchanged(func() {
		var u *discharger.UnavailableError
		if err := l.undecided(token(tok)); !errors.As(err, &u) || u.RetryAfter != 7*time.Second {
			t.Errorf("got %v", err)
		}
	})
	p.set(allow)
	tok = l.must(token(tok)).RefreshToken // a denial changed nothing

	p.set(policy.Decision{Effect: policy.EffectReauth})
	l.over(session.ReasonPolicy, true, token(tok))
	p.set(allow)
	l.over(session.ReasonPolicy, true, token(tok))

	a, b := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
	a.must()
	b.must()
	p.set(policy.Decision{Effect: policy.EffectRevoke, Code: "device_lost"})
	a.over("device_lost", false)
	p.set(allow)
	a.over("device_lost", false)
	b.must()
	p.set(policy.Decision{Effect: policy.EffectRevokeUser, Code: "stolen", SoftLogout: true})
	b.over("stolen", true)
	p.set(allow)
	b.over("stolen", true)

	never := w.login(caveat.ModeOpen, func(c *caveat.Condition) { c.User, c.Minted = "@new:a.example", c.Minted+1 })
	p.set(policy.Decision{Effect: policy.EffectRevoke})
	never.over(session.ReasonPolicy, false)
	p.set(allow)
	never.over(session.ReasonPolicy, false) // revoked at activation
}

func TestPolicyFailuresAreUndecided(t *testing.T) {
	t.Parallel()
	w, p := newRuledWorld(t)
	l := w.login(caveat.ModeRotate)
	tok := l.must().RefreshToken
	many := make(map[string]string)
	for _, c := range "abcdefghijklmnopq" {
		many[string(c)] = "x"
	}
	for name, decide := range map[string]func(*policy.Input) (policy.Decision, error){
		"error": func(*policy.Input) (policy.Decision, error) {
			return policy.Decision{Effect: policy.EffectAllow}, errFault
		},
		"panic":        func(*policy.Input) (policy.Decision, error) { panic("index out of range") },
		"nothing":      func(*policy.Input) (policy.Decision, error) { return policy.Decision{}, nil },
		"no effect":    func(*policy.Input) (policy.Decision, error) { return policy.Decision{Effect: "permit"}, nil },
		"empty caveat": allowing(policy.Decision{Caveats: []string{""}}),
		"declares":     allowing(policy.Decision{Caveats: []string{"declared epoch 9"}}),
		"two in one":   allowing(policy.Decision{Caveats: []string{"a\nb"}}),
		"not UTF-8":    allowing(policy.Decision{Caveats: []string{"a\xff"}}),
		"long caveat":  allowing(policy.Decision{Caveats: []string{strings.Repeat("a", 2000)}}),
		"long label":   allowing(policy.Decision{Labels: map[string]string{"a": strings.Repeat("b", 300)}}),
		"empty label":  allowing(policy.Decision{Labels: map[string]string{"": "b"}}),
		"seventeen":    allowing(policy.Decision{Labels: many}),
	} {
		t.Run(name, func(t *testing.T) {
			p.decide = decide
			l.unchanged(func() {
				if g, err := l.discharge(token(tok)); g != nil || !errors.Is(err, discharger.ErrUnavailable) {
					t.Errorf("got %v, %v", g, err)
				}
			})
		})
	}
	p.set(policy.Decision{Effect: policy.EffectAllow})
	l.must(token(tok))
	p.decide = func(*policy.Input) (policy.Decision, error) { panic("evaluated at a logout") }
	if err := l.logout(discharger.ScopeSession, token(tok)); err != nil {
		t.Error(err)
	}
}

func allowing(d policy.Decision) func(*policy.Input) (policy.Decision, error) {
	d.Effect = policy.EffectAllow
	return func(*policy.Input) (policy.Decision, error) { return d, nil }
}

// TestPolicyOnReplay tests that a policy can change the end after a reused token, but
// cannot grant a discharge.
func TestPolicyOnReplay(t *testing.T) {
	t.Parallel()
	fork := func(t *testing.T) (*login, *ruled, []byte) {
		w, p := newRuledWorld(t)
		l := w.login(caveat.ModeRotate)
		tok := l.must().RefreshToken
		dead := l.must(token(tok)).RefreshToken
		w.later(time.Minute)
		l.must(token(l.must(token(tok)).RefreshToken))
		return l, p, dead
	}
	t.Run("agrees", func(t *testing.T) {
		l, p, dead := fork(t)
		l.over(session.ReasonTokenReused, true, token(dead), at(away))
		in := p.last()
		if in.Replay != policy.ReplayReuse || !in.Grant.Revokes || in.Grant.TTL != 0 || in.Request.IP != away.String() || in.Session.LastIP != phone.String() {
			t.Errorf("saw %+v", in)
		}
		l.over(session.ReasonTokenReused, true, token(dead))
	})
	t.Run("softens", func(t *testing.T) {
		l, p, dead := fork(t)
		p.set(policy.Decision{Effect: policy.EffectDeny})
		l.alive(session.ReasonTokenSuperseded, token(dead), at(away))
	})
	t.Run("hardens", func(t *testing.T) {
		l, p, dead := fork(t)
		p.set(policy.Decision{Effect: policy.EffectRevoke})
		l.over(session.ReasonPolicy, false, token(dead), at(away))
		l.over(session.ReasonPolicy, false, token(dead))
	})
}

func TestPolicyInput(t *testing.T) {
	t.Parallel()
	w, p := newRuledWorld(t)
	l := w.login(caveat.ModeOpen, func(c *caveat.Condition) {
		c.Policy, c.Labels, c.Expires = "bots", map[string]string{"role": "bot", "kind": "x"}, c.Minted+3_600_000
	})
	p.set(policy.Decision{Effect: policy.EffectAllow, Labels: map[string]string{"kind": "y", "seen": "1"}})
	l.must()
	in := p.last()
	if in.Action != policy.ActionActivate || in.Policy != "bots" || in.User.Sessions != -1 || in.Session.Labels["kind"] != "x" ||
		in.Homeserver.Name != "a.example" || in.Session.Device != "PHONE" || !in.Session.Expires.Equal(w.now.Add(time.Hour)) {
		t.Errorf("activation: %+v", in)
	}
	w.later(time.Minute)
	p.set(policy.Decision{Effect: policy.EffectAllow, Labels: map[string]string{"seen": ""}})
	l.must(at(away), client("curl/8"))
	in = p.last()
	if in.Action != policy.ActionRefresh || in.Session.Labels["kind"] != "y" || in.Session.Labels["role"] != "bot" ||
		in.Session.Labels["seen"] != "1" || in.Session.FirstIP != phone.String() || in.Request.IP != away.String() || in.Request.Client != "curl" || in.Request.UserAgent != "curl/8" {
		t.Errorf("refresh: %+v", in)
	}
	l.must()
	if _, ok := p.last().Session.Labels["seen"]; ok {
		t.Error("the label was not removed")
	}
}

func TestPolicyLimitsSessions(t *testing.T) {
	t.Parallel()
	w, p := newRuledWorld(t)
	p.counts = true
	var all []*login
	for n := range 4 {
		l := w.login(caveat.ModeOpen)
		l.must()
		if got := p.last().User.Sessions; got != n {
			t.Errorf("login %d: counted %d others", n, got)
		}
		all = append(all, l)
		w.later(time.Minute)
	}
	testkit.NoError(t, all[3].logout(discharger.ScopeSession))
	p.set(policy.Decision{Effect: policy.EffectAllow, KeepSessions: 2})
	fifth := w.login(caveat.ModeOpen)
	fifth.must()
	if got := p.last().User.Sessions; got != 3 {
		t.Errorf("counted %d, one of four was logged out", got)
	}
	all[0].refused(session.ReasonSessionEnded)
	all[1].refused(session.ReasonSessionEnded)
	all[2].must()
	fifth.must()
}
