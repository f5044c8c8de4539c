package discharger

import (
	"net/netip"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/policy"
)

// bench is a session under the state machine alone: it stores what Step says.
type bench struct {
	t     testing.TB
	limit Limits
	state State
	cond  caveat.Condition
	now   int64
	n     byte // last nonce given out
}

var (
	home  = Party{Addr: netip.MustParseAddr("203.0.113.7"), Client: "Element X/26.11"}
	thief = Party{Addr: netip.MustParseAddr("198.51.100.66"), Client: "curl/8"}
)

func newBench(t testing.TB, mode caveat.Mode) *bench {
	const start = int64(1_790_000_000_000)
	return &bench{
		t:     t,
		limit: Limits{Activation: 10 * time.Minute, Grace: 10 * time.Second, Skew: time.Minute},
		cond:  caveat.Condition{Session: caveat.SessionID{1}, User: "@a:x", Device: "D", Minted: start, Mode: mode},
		now:   start,
	}
}

func (b *bench) step(kind EventKind, token *Token, change ...func(*Event)) Outcome {
	b.t.Helper()
	b.n++
	e := Event{Kind: kind, Now: b.now, Condition: &b.cond, Token: token, From: home, Nonce: Nonce{b.n}}
	for _, f := range change {
		f(&e)
	}
	o := Step(b.state, &e, b.limit)
	if o.Next != nil {
		b.state.Session = o.Next
	}
	if o.NextUser != nil {
		b.state.User = *o.NextUser
	}
	return o
}

func (b *bench) discharge(token *Token, change ...func(*Event)) Outcome {
	b.t.Helper()
	return b.step(EventDischarge, token, change...)
}

// issued demands that a discharge was granted, and returns its refresh token.
func (b *bench) issued(o Outcome) *Token {
	b.t.Helper()
	if o.Reason != "" || o.NotYet {
		b.t.Fatalf("refused (%s), want a discharge", o.Reason)
	}
	return o.Issue
}

func (b *bench) refused(o Outcome, want Reason) {
	b.t.Helper()
	if o.Reason != want {
		b.t.Fatalf("reason %q, want %q", o.Reason, want)
	}
}

func (b *bench) later(d time.Duration) { b.now += d.Milliseconds() }

func from(p Party) func(*Event) { return func(e *Event) { e.From = p } }
func tag(n byte) func(*Event)   { return func(e *Event) { e.Tag = RequestTag{n} } }
func byHomeserver(e *Event)     { e.ByHomeserver = true }
func same(a, b *Token) bool     { return a != nil && b != nil && *a == *b }

// activated returns a rotating session with its first refresh token.
func activated(t testing.TB) (*bench, *Token) {
	b := newBench(t, caveat.ModeRotate)
	return b, b.issued(b.discharge(nil))
}

func TestRotationTable(t *testing.T) {
	t.Parallel()
	t.Run("confirmed token without successor gets one", func(t *testing.T) {
		b, t1 := activated(t)
		b.state.Session = Seen(b.state, 1, b.now) // the homeserver saw epoch 1 in use
		if b.state.Session.Successor != nil {
			t.Fatal("seen did not confirm the successor")
		}
		t2 := b.issued(b.discharge(t1))
		if t2.Epoch != 2 {
			t.Errorf("epoch %d, want 2", t2.Epoch)
		}
	})
	t.Run("same request gets the same successor, however late", func(t *testing.T) {
		b, t1 := activated(t)
		t2 := b.issued(b.discharge(t1, tag(7)))
		b.later(time.Hour)
		o := b.discharge(t1, tag(7))
		if !same(b.issued(o), t2) || o.Replay != policy.ReplayRetry || o.Next != nil {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("within grace gets the same successor", func(t *testing.T) {
		b, t1 := activated(t)
		t2 := b.issued(b.discharge(t1, tag(7)))
		b.later(10 * time.Second)
		if o := b.discharge(t1, tag(8)); !same(b.issued(o), t2) || o.Replay != policy.ReplayRetry {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("later gets a new successor, and the old one is dead", func(t *testing.T) {
		b, t1 := activated(t)
		dead := b.issued(b.discharge(t1))
		b.later(11 * time.Second)
		o := b.discharge(t1)
		live := b.issued(o)
		if same(live, dead) || live.Epoch != dead.Epoch || o.Replay != policy.ReplayRetry {
			t.Fatalf("got %+v after %+v", o, dead)
		}
		o = b.discharge(dead)
		b.refused(o, ReasonTokenSuperseded)
		if o.Replay != policy.ReplayFork || o.Revokes() {
			t.Errorf("from the same party: %+v", o)
		}
		b.issued(b.discharge(live))
		o = b.discharge(dead) // its epoch is the confirmed one by now
		b.refused(o, ReasonTokenSuperseded)
		if o.Replay != policy.ReplayFork {
			t.Errorf("replay %q, want fork", o.Replay)
		}
	})
	t.Run("fork from elsewhere ends the session", func(t *testing.T) {
		b, t1 := activated(t)
		dead := b.issued(b.discharge(t1))
		b.later(time.Minute)
		b.issued(b.discharge(t1, from(thief)))
		o := b.discharge(dead)
		b.refused(o, ReasonTokenReused)
		if o.Replay != policy.ReplayFork || !o.Revokes() {
			t.Errorf("got %+v", o)
		}
		b.refused(b.discharge(t1), ReasonSessionEnded)
	})
	t.Run("stale within grace is a race from the same party", func(t *testing.T) {
		b, t1 := activated(t)
		t2 := b.issued(b.discharge(t1))
		b.issued(b.discharge(t2))
		o := b.discharge(t1)
		b.refused(o, ReasonTokenSuperseded)
		if o.Replay != policy.ReplayStale || o.Revokes() {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("stale from elsewhere ends the session", func(t *testing.T) {
		b, t1 := activated(t)
		t2 := b.issued(b.discharge(t1))
		b.issued(b.discharge(t2))
		o := b.discharge(t1, from(thief))
		b.refused(o, ReasonTokenReused)
		if o.Replay != policy.ReplayStale || !o.Revokes() {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("anything older is reuse, whoever shows it", func(t *testing.T) {
		b, t1 := activated(t)
		t2 := b.issued(b.discharge(t1))
		b.issued(b.discharge(t2))
		b.later(11 * time.Second)
		o := b.discharge(t1)
		b.refused(o, ReasonTokenReused)
		if o.Replay != policy.ReplayReuse || !o.Revokes() {
			t.Errorf("got %+v", o)
		}
		b.refused(b.discharge(t2), ReasonSessionEnded)
	})
	t.Run("a token from the future moves the session forward", func(t *testing.T) {
		b, t1 := activated(t)
		old := b.state
		t2 := b.issued(b.discharge(t1))
		t3 := b.issued(b.discharge(t2))
		b.state = old // the store lost two writes
		o := b.discharge(t3)
		t4 := b.issued(o)
		if !o.LostWrite || t4.Epoch != 4 {
			t.Errorf("got %+v", o)
		}
		b.issued(b.discharge(t4))
	})
}

func TestRotateActivation(t *testing.T) {
	t.Parallel()
	t.Run("asked again without a token, until the first one is used", func(t *testing.T) {
		b, t1 := activated(t)
		if again := b.issued(b.discharge(nil)); !same(again, t1) {
			t.Errorf("within grace: %+v, want %+v", again, t1)
		}
		b.later(time.Minute)
		t1b := b.issued(b.discharge(nil))
		if same(t1b, t1) {
			t.Error("later: the same token again")
		}
		b.issued(b.discharge(t1b))
		b.refused(b.discharge(nil), ReasonTokenRequired)
		if b.state.Session.Ended > 0 {
			t.Error("asking without a token ended the session")
		}
	})
	t.Run("seen closes it too", func(t *testing.T) {
		b, _ := activated(t)
		b.state.Session = Seen(b.state, 1, b.now)
		b.refused(b.discharge(nil), ReasonTokenRequired)
	})
	t.Run("not after the window", func(t *testing.T) {
		b, t1 := activated(t)
		b.later(10*time.Minute + time.Millisecond)
		b.refused(b.discharge(nil), ReasonTokenRequired)
		b.issued(b.discharge(t1))
	})
	t.Run("whoever has only the caveat learns nothing", func(t *testing.T) {
		live, t1 := activated(t)
		live.issued(live.discharge(t1))
		ended, _ := activated(t)
		ended.step(EventLogout, nil)
		unknown := newBench(t, caveat.ModeRotate)
		for _, b := range []*bench{live, ended, unknown} {
			b.later(time.Hour)
			b.refused(b.discharge(nil), ReasonTokenRequired)
			b.refused(b.step(EventLogout, nil), ReasonTokenRequired)
		}
	})
}

func TestActivationWindow(t *testing.T) {
	t.Parallel()
	for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate, caveat.ModeHeld} {
		b := newBench(t, mode)
		b.later(10 * time.Minute)
		b.issued(b.discharge(nil, byHomeserver))
		b = newBench(t, mode)
		b.later(10*time.Minute + time.Millisecond)
		want := ReasonSessionEnded
		if mode == caveat.ModeRotate {
			want = ReasonTokenRequired
		}
		b.refused(b.discharge(nil, byHomeserver), want)
		if b.state.Session != nil {
			t.Errorf("%v: a late activation left a record", mode)
		}
	}
	b := newBench(t, caveat.ModeOpen)
	b.now -= time.Minute.Milliseconds()
	b.issued(b.discharge(nil)) // the homeserver's clock is ahead a little
	b = newBench(t, caveat.ModeOpen)
	b.now -= time.Minute.Milliseconds() + 1
	if o := b.discharge(nil); !o.NotYet || o.Reason != "" {
		t.Errorf("a caveat from the future: %+v", o)
	}
}

func TestLogout(t *testing.T) {
	t.Parallel()
	t.Run("before activation", func(t *testing.T) {
		for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate, caveat.ModeHeld} {
			b := newBench(t, mode)
			b.refused(b.step(EventLogout, nil, byHomeserver), "")
			b.refused(b.step(EventLogout, nil, byHomeserver), "")
			if o := b.discharge(nil, byHomeserver); o.Reason == "" {
				t.Errorf("%v: activated after logout", mode)
			}
		}
	})
	t.Run("with any token of the session", func(t *testing.T) {
		b, t1 := activated(t)
		t2 := b.issued(b.discharge(t1))
		t3 := b.issued(b.discharge(t2))
		b.later(time.Hour)
		b.refused(b.step(EventLogout, t1), "")
		b.refused(b.discharge(t3), ReasonSessionEnded)
		b.refused(b.step(EventLogout, t3), "")
	})
	t.Run("rotating session is not ended without a token", func(t *testing.T) {
		b, t1 := activated(t)
		b.issued(b.discharge(t1))
		b.refused(b.step(EventLogout, nil), ReasonTokenRequired)
		if b.state.Session.Ended > 0 {
			t.Error("ended")
		}
	})
	t.Run("held needs the homeserver", func(t *testing.T) {
		b := newBench(t, caveat.ModeHeld)
		b.refused(b.discharge(nil), ReasonHomeserverRequired)
		b.refused(b.step(EventLogout, nil), ReasonHomeserverRequired)
		b.issued(b.discharge(nil, byHomeserver))
	})
	t.Run("a second mode of one session is no way around the first", func(t *testing.T) {
		b, _ := activated(t)
		b.cond.Mode = caveat.ModeOpen
		b.refused(b.discharge(nil), ReasonSessionEnded)
	})
}

func TestRevokeEverything(t *testing.T) {
	t.Parallel()
	t.Run("user", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.issued(b.discharge(nil))
		b.later(time.Second)
		b.refused(b.step(EventLogoutAll, nil), "")
		if b.state.User.Generation != 1 {
			t.Fatalf("generation %d", b.state.User.Generation)
		}
		b.refused(b.discharge(nil), ReasonSessionEnded)
		b.refused(b.step(EventLogoutAll, nil), "") // repeated
		if b.state.User.Generation != 1 {
			t.Error("a dead session raised the generation again")
		}
		other := newBench(t, caveat.ModeOpen) // minted before, activated after
		other.state.User = b.state.User
		other.refused(other.discharge(nil), ReasonSessionEnded)
		other.cond.Minted = b.state.User.At + 1 // a new login
		other.now = other.cond.Minted
		other.issued(other.discharge(nil))
		if other.state.Session.UserGeneration != 1 {
			t.Error("the new session was made under the old generation")
		}
	})
	t.Run("not by a session that is over", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.issued(b.discharge(nil))
		b.step(EventLogout, nil)
		b.refused(b.step(EventLogoutAll, nil), ReasonSessionEnded)
		b = newBench(t, caveat.ModeOpen)
		b.later(time.Hour)
		b.refused(b.step(EventLogoutAll, nil), ReasonSessionEnded)
		b = newBench(t, caveat.ModeOpen)
		b.issued(b.discharge(nil))
		b.limit.Idle = time.Hour
		b.later(time.Hour)
		b.refused(b.step(EventLogoutAll, nil), ReasonSessionEnded)
	})
	t.Run("homeserver", func(t *testing.T) {
		b, t1 := activated(t)
		b.state.Homeserver = Revocation{Generation: 1, At: b.now}
		b.refused(b.discharge(t1), ReasonSessionEnded)
	})
}

func TestEnds(t *testing.T) {
	t.Parallel()
	t.Run("idle", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.limit.Idle = 8 * time.Hour
		b.issued(b.discharge(nil))
		for range 20 { // used more often than the last use is noted
			b.later(20 * time.Minute)
			b.issued(b.discharge(nil))
		}
		b.later(8 * time.Hour)
		o := b.discharge(nil)
		b.refused(o, ReasonSessionExpired)
		if !o.SoftLogout {
			t.Error("an expired session should keep its device keys")
		}
	})
	t.Run("absolute", func(t *testing.T) {
		b, t1 := activated(t)
		b.limit.Absolute = time.Hour
		b.later(time.Hour - time.Millisecond)
		o := b.discharge(t1)
		t2 := b.issued(o)
		if o.Ends != b.cond.Minted+time.Hour.Milliseconds() {
			t.Errorf("ends %d", o.Ends)
		}
		b.later(time.Millisecond)
		b.refused(b.discharge(t2), ReasonSessionExpired)
	})
	t.Run("the condition's own, before the first discharge too", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.cond.Expires = b.now + 1000
		b.later(time.Second)
		b.refused(b.discharge(nil), ReasonSessionExpired)
	})
}

// TestExpires holds what the store is told to forget: never a record whose
// caveat could activate the session again.
func TestExpires(t *testing.T) {
	t.Parallel()
	b := newBench(t, caveat.ModeOpen)
	b.limit.Idle = time.Minute // shorter than the activation window
	b.issued(b.discharge(nil))
	closes := time.UnixMilli(b.cond.Minted).Add(b.limit.Activation)
	if got := Expires(b.state.Session, &b.cond, b.limit); !got.After(closes) {
		t.Errorf("live record forgotten at %v, the window closes at %v", got, closes)
	}
	b.step(EventLogout, nil)
	if got := Expires(b.state.Session, &b.cond, b.limit); !got.After(closes) {
		t.Errorf("tombstone forgotten at %v, the window closes at %v", got, closes)
	}
	b.limit.Idle = 0
	if got := Expires(&Record{Mode: caveat.ModeOpen}, &b.cond, b.limit); !got.IsZero() {
		t.Errorf("a session without an end is forgotten at %v", got)
	}
}

func TestParty(t *testing.T) {
	t.Parallel()
	p := func(addr, client string) Party {
		a, _ := netip.ParseAddr(addr)
		return Party{Addr: a, Client: client}.cut()
	}
	for _, c := range []struct {
		a, b Party
		want bool
	}{
		{p("203.0.113.7", "x"), p("203.0.113.7", "x"), true},
		{p("203.0.113.7", "x"), p("::ffff:203.0.113.7", "x"), true},
		{p("203.0.113.7", "x"), p("203.0.113.8", "x"), false},
		{p("203.0.113.7", "x"), p("203.0.113.7", "y"), false},
		{p("2001:db8::1", "x"), p("2001:db8::2:0:0:9", "x"), true},
		{p("2001:db8::1", "x"), p("2001:db8:0:1::1", "x"), false},
		{p("2001:db8::1", "x"), p("203.0.113.7", "x"), false},
		{p("", "x"), p("", "x"), true},
		{p("", "x"), p("203.0.113.7", "x"), false},
	} {
		if got := c.a.same(c.b); got != c.want {
			t.Errorf("%v, %v: %v", c.a, c.b, got)
		}
	}
	long := Party{Client: "0123456789012345678901234567890123456789é"}
	if got := long.cut().Client; len(got) != 40 {
		t.Errorf("cut to %q", got)
	}
	if got := (Party{Client: "012345678901234567890123456789012345678é"}).cut().Client; len(got) != 39 {
		t.Errorf("cut inside a character: %q", got)
	}
}
