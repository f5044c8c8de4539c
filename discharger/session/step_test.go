package session

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/policy"
)

// bench is a session under the state machine alone, with a store in memory.
type bench struct {
	t     testing.TB
	limit Limits
	state State
	cond  caveat.Condition
	now   int64
}

var (
	home  = Party{Addr: netip.MustParseAddr("203.0.113.7"), Client: "Element X/26.11"}
	thief = Party{Addr: netip.MustParseAddr("198.51.100.66"), Client: "curl/8"}
)

func newBench(t testing.TB, mode caveat.Mode) *bench {
	const start = int64(1_790_000_000_000)
	return &bench{
		t:     t,
		limit: Limits{Activation: 10 * time.Minute, Grace: 10 * time.Second, Skew: time.Minute, Remember: 90 * 24 * time.Hour},
		cond:  caveat.Condition{Session: caveat.SessionID{1}, User: "@a:x", Device: "D", Minted: start, Mode: mode},
		now:   start,
	}
}

// decide runs Step, with the store's time and the device's sessions if it needs
// them, and stores nothing.
func (b *bench) decide(kind EventKind, token *Token, change ...func(*Event)) Outcome {
	b.t.Helper()
	e := Event{Kind: kind, Now: b.now, Condition: &b.cond, Token: token, From: home}
	for _, f := range change {
		f(&e)
	}
	st := b.state
	for {
		o := Step(st, &e, b.limit)
		switch {
		case o.NeedsTime && st.Now == 0:
			st.Now = b.now
		case o.NeedsDevice && !st.Listed:
			st.Listed = true
		case o.NeedsTime, o.NeedsDevice:
			b.t.Fatalf("needs time or device again: %+v", o)
		default:
			return o
		}
	}
}

func (b *bench) step(kind EventKind, token *Token, change ...func(*Event)) Outcome {
	b.t.Helper()
	o := b.decide(kind, token, change...)
	if o.Next != nil {
		b.state.Session = o.Next
	}
	if o.NextUser != nil {
		b.state.User = *o.NextUser
	}
	if o.NextDevice != nil {
		b.state.Device = *o.NextDevice
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
	if o.Reason != "" || o.NotYet || o.Ended {
		b.t.Fatalf("got %+v, want a discharge", o)
	}
	return o.Issue
}

// refused demands a refusal that leaves the session as it is.
func (b *bench) refused(o Outcome, want Reason) {
	b.t.Helper()
	if o.Reason != want || o.Ended || o.NotYet {
		b.t.Fatalf("got %q, ended %v; want %q, not ended", o.Reason, o.Ended, want)
	}
	if o.Next != nil || o.NextUser != nil || o.NextDevice != nil || o.Issue != nil {
		b.t.Fatalf("refusal %q changes the state: %+v", want, o)
	}
}

// over demands that the session is over, with a reason and a kind of end.
func (b *bench) over(o Outcome, want Reason, soft bool) {
	b.t.Helper()
	if o.Reason != want || !o.Ended || o.NotYet || o.Issue != nil {
		b.t.Fatalf("got %q, ended %v; want the end %q", o.Reason, o.Ended, want)
	}
	if o.End.Soft != soft || ReasonOf(o.End) != want || o.End.At <= 0 {
		b.t.Fatalf("end is %+v; want %q, soft %v", o.End, want, soft)
	}
}

func (b *bench) undecided(o Outcome) {
	b.t.Helper()
	if !o.NotYet || o.Reason != "" || o.Next != nil || o.Issue != nil {
		b.t.Fatalf("got %+v, want no decision", o)
	}
}

func (b *bench) later(d time.Duration) { b.now += d.Milliseconds() }

func (b *bench) seen(epoch uint64) {
	b.t.Helper()
	if r := Seen(b.state, epoch, b.now); r != nil {
		b.state.Session = r
	}
}

func from(p Party) func(*Event) { return func(e *Event) { e.From = p } }
func tag(n byte) func(*Event)   { return func(e *Event) { e.Tag = RequestTag{1, n} } }
func byHomeserver(e *Event)     { e.ByHomeserver = true }
func same(a, b *Token) bool     { return a != nil && b != nil && *a == *b }

// activated returns a rotating session with its first refresh token.
func activated(t testing.TB) (*bench, *Token) {
	b := newBench(t, caveat.ModeRotate)
	return b, b.issued(b.discharge(nil))
}

// TestTokenTable tests every row of the table in the package comment, for the party
// of the last use and for another one.
func TestTokenTable(t *testing.T) {
	t.Parallel()
	parties := []struct {
		name  string
		who   Party
		other bool
	}{{"same party", home, false}, {"other party", thief, true}}
	rows := []struct {
		name string
		test func(t *testing.T, who Party, other bool)
	}{
		{"none, activation repeated, first token unused", rowActivationRepeated},
		{"none, activation repeated, first token used", rowActivationUsed},
		{"none, activation repeated, first token reported as used", rowActivationSeen},
		{"unused successor, reported as used", rowConfirmed},
		{"confirmed, no successor, by an earlier version", rowNoSuccessor},
		{"confirmed, successor unused, same request", rowSameRequest},
		{"confirmed, successor unused, within grace", rowWithinGrace},
		{"confirmed, successor unused, later", rowLater},
		{"confirmed, successor reported as used just now", rowReported},
		{"confirmed, successor reported as used, exchanged again and again", rowReportedSlack},
		{"confirmed, successor reported as used long ago", rowReportedLongAgo},
		{"unused successor", rowSuccessor},
		{"unused successor with siblings", rowSibling},
		{"dead successor", rowDead},
		{"dead successor of the confirmed epoch, after a report", rowDeadAfterReport},
		{"superseded just now", rowSuperseded(0)},
		{"superseded long ago", rowSuperseded(40 * 24 * time.Hour)},
		{"above the record's newest epoch", rowLostWrite},
		{"newer than the record's successor", rowLostSibling},
		{"no record, inside the window", rowLostActivation},
	}
	for _, row := range rows {
		for _, p := range parties {
			t.Run(row.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				row.test(t, p.who, p.other)
			})
		}
	}
}

func rowActivationRepeated(t *testing.T, who Party, other bool) {
	for _, pause := range []time.Duration{0, 9 * time.Minute} { // not only within grace
		b, t1 := activated(t)
		b.later(pause)
		o := b.discharge(nil, from(who))
		again := b.issued(o)
		if same(again, t1) == other || again.Epoch != 1 || o.Replay != policy.ReplayRetry {
			t.Fatalf("got %+v after %+v", again, t1)
		}
		if (o.Next == nil) == other {
			t.Errorf("stores %+v", o.Next)
		}
		b.issued(b.discharge(t1)) // both are good until one is used
		b, t1 = activated(t)
		b.later(pause)
		again = b.issued(b.discharge(nil, from(who)))
		b.issued(b.discharge(again))
		if other {
			b.refused(b.discharge(t1), ReasonTokenSuperseded)
		}
	}
}

func rowActivationUsed(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	b.issued(b.discharge(t1))
	b.refused(b.discharge(nil, from(who)), ReasonTokenRequired)
	b.later(time.Hour)
	b.refused(b.discharge(nil, from(who)), ReasonTokenRequired)
}

func rowActivationSeen(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	b.seen(1)
	b.refused(b.discharge(nil, from(who)), ReasonTokenRequired)
	b.issued(b.discharge(t1))
}

func rowConfirmed(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	b.seen(1)
	if s := b.state.Session.Successor; s.Reported == 0 || s.Nonce != t1.Nonce {
		t.Fatalf("a report of use left %+v", s)
	}
	o := b.discharge(t1, from(who))
	if t2 := b.issued(o); t2.Epoch != 2 || o.Replay != policy.ReplayNone {
		t.Errorf("issued %+v, replay %q", t2, o.Replay)
	}
	if b.state.Session.Last != who {
		t.Errorf("last used by %+v", b.state.Session.Last)
	}
}

func rowSameRequest(t *testing.T, who Party, other bool) {
	b, t1 := activated(t)
	t2 := b.issued(b.discharge(t1, tag(7)))
	b.later(time.Hour)
	another(t, b, b.discharge(t1, tag(7), from(who)), t2, other)
}

func rowWithinGrace(t *testing.T, who Party, other bool) {
	b, t1 := activated(t)
	t2 := b.issued(b.discharge(t1, tag(7)))
	b.later(10 * time.Second)
	another(t, b, b.discharge(t1, tag(8), from(who)), t2, other)
}

func rowLater(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	t2 := b.issued(b.discharge(t1, tag(7)))
	b.later(11 * time.Second)
	another(t, b, b.discharge(t1, tag(8), from(who)), t2, true)
}

// another demands that a retry is answered with the same successor, or, if beside,
// with another one that leaves the first live.
func another(t *testing.T, b *bench, o Outcome, first *Token, beside bool) {
	t.Helper()
	got := b.issued(o)
	if o.Replay != policy.ReplayRetry || got.Epoch != first.Epoch || same(got, first) == beside {
		t.Fatalf("got %+v, replay %q, after %+v; want another: %v", got, o.Replay, first, beside)
	}
	if !beside {
		if o.Next != nil {
			t.Errorf("stores %+v", o.Next)
		}
		return
	}
	if g, f := binaryNonce(got.Nonce), binaryNonce(first.Nonce); g <= f {
		t.Errorf("issued at %d, no later than %d", g, f)
	}
	for _, tok := range []*Token{first, got} { // each is live until one is used
		use := *b
		use.issued(use.discharge(tok))
	}
}

func binaryNonce(n Nonce) int64 { return n.issued(0, 1<<47) }

func rowReported(t *testing.T, who Party, other bool) {
	b, t1 := activated(t)
	t2 := b.issued(b.discharge(t1))
	b.seen(2)
	b.later(time.Second)
	if !other {
		refusedOrTheft(t, b, t1, t2, who, other, policy.ReplayStale)
		return
	}
	another(t, b, b.discharge(t1, from(who)), t2, true)
}

// rowReportedSlack exchanges the token from another party within reportSlack: the
// new successor is not reported, so a lost reply does no harm.
func rowReportedSlack(t *testing.T, who Party, other bool) {
	b, t1 := activated(t)
	t2 := b.issued(b.discharge(t1))
	b.seen(2)
	b.later(reportSlack - time.Second)
	t2b := b.issued(b.discharge(t1, from(thief)))
	b.later(time.Hour)
	got := b.issued(b.discharge(t1, from(who)))
	if same(got, t2) || same(got, t2b) {
		t.Errorf("got %+v again", got)
	}
	b.issued(b.discharge(got, from(who)))
	b.over(b.discharge(t2, from(Party{Client: "a third"})), ReasonTokenReused, true)
}

func rowReportedLongAgo(t *testing.T, who Party, other bool) {
	b, t1 := activated(t)
	t2 := b.issued(b.discharge(t1))
	b.seen(2)
	b.later(reportSlack + time.Second)
	refusedOrTheft(t, b, t1, t2, who, other, policy.ReplayStale)
}

// rowNoSuccessor has a record of an earlier version after a report of use.
func rowNoSuccessor(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	b.state.Session.Confirmed, b.state.Session.Successor = Confirmed{Epoch: 1, Nonce: t1.Nonce, At: b.now}, nil
	o := b.discharge(t1, from(who))
	if t2 := b.issued(o); t2.Epoch != 2 || o.Replay != policy.ReplayNone || o.LostWrite {
		t.Errorf("issued %+v, %+v", t2, o)
	}
}

func rowSuccessor(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	t2 := b.issued(b.discharge(t1))
	b.later(5 * time.Minute)
	o := b.discharge(t2, from(who))
	t3 := b.issued(o)
	if r := b.state.Session; o.Replay != policy.ReplayNone || t3.Epoch != 3 || r.Confirmed.Epoch != 2 || r.Confirmed.Nonce != t2.Nonce || o.LostWrite {
		t.Errorf("issued %+v, confirmed %+v, %+v", t3, r.Confirmed, o)
	}
	b.refused(b.discharge(t1, from(who)), ReasonTokenSuperseded)
}

func rowSibling(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	first := b.issued(b.discharge(t1))
	b.later(time.Minute)
	second := b.issued(b.discharge(t1))
	for i, used := range []*Token{first, second} {
		b := *b
		dead := []*Token{second, first}[i]
		o := b.discharge(used, from(who))
		if b.issued(o); o.LostWrite {
			t.Errorf("got %+v", o)
		}
		b.refused(b.discharge(dead, from(who)), ReasonTokenSuperseded)
	}
}

// refusedOrTheft demands that the party of the last use is refused, and that another
// one ends the session for every holder, softly.
func refusedOrTheft(t *testing.T, b *bench, old, live *Token, who Party, other bool, replay policy.Replay) {
	t.Helper()
	o := b.discharge(old, from(who))
	if !other {
		b.refused(o, ReasonTokenSuperseded)
		if o.Replay != replay {
			t.Errorf("replay %q, want %q", o.Replay, replay)
		}
		b.issued(b.discharge(live))
		return
	}
	b.over(o, ReasonTokenReused, true)
	if o.Replay != policy.ReplayReuse || !o.Revokes() || o.End.Cause != revocation.CauseReuse {
		t.Errorf("got %+v", o)
	}
	for _, tok := range []*Token{old, live} {
		for _, p := range []Party{home, thief} {
			b.over(b.discharge(tok, from(p)), ReasonTokenReused, true)
		}
	}
}

func rowDead(t *testing.T, who Party, other bool) {
	b, t1 := activated(t)
	dead := b.issued(b.discharge(t1))
	b.later(time.Minute)
	used := b.issued(b.discharge(t1))
	live := b.issued(b.discharge(used))
	refusedOrTheft(t, b, dead, live, who, other, policy.ReplayFork)
}

func rowDeadAfterReport(t *testing.T, who Party, other bool) {
	b, t1 := activated(t)
	dead := b.issued(b.discharge(t1))
	b.later(time.Minute)
	used := b.issued(b.discharge(t1))
	b.seen(2) // of one of the two
	live := b.issued(b.discharge(used))
	refusedOrTheft(t, b, dead, live, who, other, policy.ReplayFork)
}

func rowSuperseded(age time.Duration) func(*testing.T, Party, bool) {
	return func(t *testing.T, who Party, other bool) {
		b, t1 := activated(t)
		live := b.issued(b.discharge(b.issued(b.discharge(t1))))
		b.later(age)
		refusedOrTheft(t, b, t1, live, who, other, policy.ReplayStale)
	}
}

func rowLostWrite(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	old := b.state
	t3 := b.issued(b.discharge(b.issued(b.discharge(t1))))
	b.later(time.Second)
	t4 := b.issued(b.discharge(t3))
	b.state = old // the store lost the last writes
	o := b.discharge(t4, from(who))
	t5 := b.issued(o)
	if !o.LostWrite || t5.Epoch != 5 || b.state.Session.Confirmed.Nonce != t4.Nonce {
		t.Errorf("issued %+v, %+v", t5, o)
	}
	b.issued(b.discharge(t5))
	b.refused(b.discharge(t3), ReasonTokenSuperseded)
}

func rowLostSibling(t *testing.T, who Party, _ bool) {
	b, t1 := activated(t)
	b.issued(b.discharge(t1))
	old := b.state
	b.later(time.Minute)
	t2 := b.issued(b.discharge(t1))
	b.state = old
	o := b.discharge(t2, from(who))
	if b.issued(o); !o.LostWrite {
		t.Error("LostWrite is not set")
	}
}

func rowLostActivation(t *testing.T, who Party, _ bool) {
	for _, pause := range []time.Duration{time.Second, 9 * time.Minute} {
		t.Run(pause.String(), func(t *testing.T) {
			b, t1 := activated(t)
			t2 := b.issued(b.discharge(t1))
			for _, lost := range []*Token{t1, t2} {
				b.state = State{}
				b.later(pause / 2)
				o := b.discharge(lost, from(who))
				next := b.issued(o)
				if !o.LostWrite || o.Action != policy.ActionRefresh || next.Epoch != lost.Epoch+1 || len(o.Replaces) > 0 {
					t.Errorf("issued %+v, %+v", next, o)
				}
				b.issued(b.discharge(next))
				b.refused(b.discharge(nil), ReasonTokenRequired)
			}
		})
	}
}

// TestLostActivationStaysLost tests when a token without a record does not activate
// its session again.
func TestLostActivationStaysLost(t *testing.T) {
	t.Parallel()
	lost := func(t *testing.T, change func(b *bench)) (*bench, *Token) {
		b, t1 := activated(t)
		b.state = State{}
		b.later(time.Minute)
		change(b)
		return b, t1
	}
	t.Run("after the window", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) { b.later(time.Hour) })
		b.over(b.discharge(t1), ReasonSessionEnded, true)
	})
	t.Run("a user's mark since it was issued", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) { b.state.User = GenerationRecord{Generation: 1, At: b.now} })
		b.over(b.discharge(t1), ReasonSessionEnded, false)
	})
	t.Run("a homeserver's mark since it was issued", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) {
			b.state.Homeserver = GenerationRecord{}.Raise(b.now, caveat.SessionID{}, revocation.End{Soft: true})
		})
		b.over(b.discharge(t1), ReasonSessionEnded, true)
	})
	t.Run("a device's mark since it was issued", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) {
			b.state.Device = DeviceRecord{Revoked: b.now, End: revocation.End{Cause: revocation.CauseRevoked, At: b.now}}
		})
		b.over(b.discharge(t1), ReasonSessionEnded, false)
	})
	t.Run("a mark from before it was issued", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) { b.state.User = GenerationRecord{Generation: 3, At: b.cond.Minted - 1} })
		b.issued(b.discharge(t1))
		if b.state.Session.UserGeneration != 3 {
			t.Errorf("generation %d", b.state.Session.UserGeneration)
		}
	})
	t.Run("a loss accepted since it was issued", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) { b.state.Losses.Missing = b.now })
		b.over(b.discharge(t1), ReasonSessionLost, true)
	})
	t.Run("a token of an earlier version, without a time", func(t *testing.T) {
		b, t1 := lost(t, func(*bench) {})
		b.over(b.discharge(&Token{Epoch: t1.Epoch, Nonce: Nonce{0xff, 0xff, 1, 2, 3, 4}}), ReasonSessionEnded, true)
	})
	t.Run("a tombstone", func(t *testing.T) {
		b, t1 := activated(t)
		b.step(EventLogout, t1)
		b.over(b.discharge(t1), ReasonSessionEnded, false)
	})
	t.Run("the device lives on in another session", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) {
			b.state.Listed, b.state.OnDevice = true, []caveat.SessionID{{9}}
			b.state.Device = DeviceRecord{Current: caveat.SessionID{9}, Since: b.cond.Minted - 1000}
		})
		b.over(b.discharge(t1), ReasonReplaced, true)
	})
	t.Run("a later session of the device is over already", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) { b.state.Device = DeviceRecord{Current: caveat.SessionID{9}, Since: b.now} })
		b.over(b.discharge(t1), ReasonReplaced, true)
	})
	t.Run("an earlier session of the device is over already", func(t *testing.T) {
		b, t1 := lost(t, func(b *bench) {
			b.state.Device = DeviceRecord{Current: caveat.SessionID{9}, Since: b.cond.Minted - 60_000}
		})
		b.issued(b.discharge(t1))
		if b.state.Device.Current != b.cond.Session {
			t.Errorf("current is %v", b.state.Device.Current)
		}
	})
}

// TestNonceTimeStrictlyIncreases lets the clock stand still and go back.
func TestNonceTimeStrictlyIncreases(t *testing.T) {
	t.Parallel()
	b, tok := activated(t)
	last := binaryNonce(tok.Nonce)
	for i := range 50 {
		switch i % 5 {
		case 1:
			b.later(-3 * time.Second)
		case 2:
			b.later(time.Minute)
		case 3: // a retry from elsewhere: a sibling
			next := b.issued(b.discharge(tok, from(thief)))
			at := binaryNonce(next.Nonce)
			if at <= last {
				t.Fatalf("issued at %d, after %d", at, last)
			}
			last = at
		}
		tok = b.issued(b.discharge(tok))
		if at := binaryNonce(tok.Nonce); at <= last {
			t.Fatalf("step %d: issued at %d, after %d", i, at, last)
		} else {
			last = at
		}
	}
}

func TestActivationWindow(t *testing.T) {
	t.Parallel()
	for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate, caveat.ModeHeld} {
		t.Run(mode.String(), func(t *testing.T) {
			b := newBench(t, mode)
			b.later(10 * time.Minute)
			b.issued(b.discharge(nil, byHomeserver))
			b = newBench(t, mode)
			b.later(10*time.Minute + time.Millisecond)
			o := b.discharge(nil, byHomeserver)
			if mode == caveat.ModeRotate {
				b.refused(o, ReasonTokenRequired)
			} else {
				b.over(o, ReasonSessionEnded, true)
			}
			if b.state.Session != nil {
				t.Error("a late activation left a record")
			}
		})
	}
	t.Run("not after the window, although the token is good", func(t *testing.T) {
		b, t1 := activated(t)
		b.later(10*time.Minute + time.Millisecond)
		b.refused(b.discharge(nil), ReasonTokenRequired)
		b.issued(b.discharge(t1))
	})
	t.Run("from the future", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.later(-time.Minute)
		b.issued(b.discharge(nil)) // the homeserver's clock is ahead by Skew
		b = newBench(t, caveat.ModeOpen)
		b.later(-time.Minute - time.Millisecond)
		b.undecided(b.discharge(nil))
	})
	t.Run("the caveat alone reveals nothing", func(t *testing.T) {
		live, t1 := activated(t)
		live.issued(live.discharge(t1))
		ended, _ := activated(t)
		ended.step(EventLogout, nil)
		unknown := newBench(t, caveat.ModeRotate)
		for _, b := range []*bench{live, ended, unknown} {
			b.later(time.Hour)
			b.refused(b.discharge(nil), ReasonTokenRequired)
			b.refused(b.step(EventLogout, nil), ReasonTokenRequired)
			b.refused(b.step(EventOwn, nil), ReasonTokenRequired)
		}
	})
}

// TestModes tests which credentials an operation requires in each mode.
func TestModes(t *testing.T) {
	t.Parallel()
	t.Run("held requires the homeserver", func(t *testing.T) {
		b := newBench(t, caveat.ModeHeld)
		for _, kind := range []EventKind{EventDischarge, EventLogout, EventLogoutAll, EventOwn} {
			b.refused(b.step(kind, nil), ReasonHomeserverRequired)
		}
		b.issued(b.discharge(nil, byHomeserver))
	})
	t.Run("the user's other sessions require a refresh token, in the window too", func(t *testing.T) {
		for _, kind := range []EventKind{EventOwn, EventLogoutAll} {
			b := newBench(t, caveat.ModeRotate)
			b.refused(b.step(kind, nil), ReasonTokenRequired)
			b, t1 := activated(t)
			b.refused(b.step(kind, nil), ReasonTokenRequired)
			if o := b.step(kind, t1); o.Reason != "" {
				t.Errorf("refused %q", o.Reason)
			}
		}
	})
	t.Run("in mode open they are not available", func(t *testing.T) {
		for _, kind := range []EventKind{EventOwn, EventLogoutAll} {
			b := newBench(t, caveat.ModeOpen)
			b.issued(b.discharge(nil))
			b.refused(b.step(kind, nil), ReasonHomeserverRequired)
			if o := b.step(kind, nil, byHomeserver); o.Reason != "" {
				t.Errorf("refused %q", o.Reason)
			}
		}
	})
	t.Run("a second macaroon in another mode does not bypass the first", func(t *testing.T) {
		b, _ := activated(t)
		b.cond.Mode = caveat.ModeOpen
		b.refused(b.discharge(nil), ReasonTokenInvalid)
		b.refused(b.step(EventLogout, nil), ReasonTokenInvalid)
	})
}

func TestLogout(t *testing.T) {
	t.Parallel()
	t.Run("before activation", func(t *testing.T) {
		for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate, caveat.ModeHeld} {
			b := newBench(t, mode)
			b.loggedOut(b.step(EventLogout, nil, byHomeserver))
			b.loggedOut(b.step(EventLogout, nil, byHomeserver))
			o := b.discharge(nil, byHomeserver)
			if mode == caveat.ModeRotate {
				b.refused(o, ReasonTokenRequired)
			} else {
				b.over(o, ReasonSessionEnded, false)
			}
		}
	})
	t.Run("with the confirmed token, its successor, and the one before", func(t *testing.T) {
		for n := range 3 {
			b, t1 := activated(t)
			t2 := b.issued(b.discharge(t1))
			t3 := b.issued(b.discharge(t2)) // t2 is confirmed
			b.later(time.Hour)
			b.loggedOut(b.step(EventLogout, []*Token{t1, t2, t3}[n]))
			b.over(b.discharge(t3), ReasonSessionEnded, false)
			b.loggedOut(b.step(EventLogout, t3))
		}
	})
	t.Run("not with an older one, which ends nothing", func(t *testing.T) {
		b, t1 := activated(t)
		live := b.issued(b.discharge(b.issued(b.discharge(b.issued(b.discharge(t1))))))
		for _, p := range []Party{home, thief} {
			b.refused(b.step(EventLogout, t1, from(p)), ReasonTokenSuperseded)
		}
		b.issued(b.discharge(live))
	})
	t.Run("a rotating session is not ended without a token", func(t *testing.T) {
		b, t1 := activated(t)
		b.issued(b.discharge(t1))
		b.refused(b.step(EventLogout, nil), ReasonTokenRequired)
	})
	t.Run("without a record and after the window", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.later(time.Hour)
		b.loggedOut(b.step(EventLogout, nil))
		if b.state.Session != nil {
			t.Errorf("left %+v", b.state.Session)
		}
	})
}

// loggedOut demands that a logout took effect, now or earlier.
func (b *bench) loggedOut(o Outcome) {
	b.t.Helper()
	if o.Reason != "" || o.NotYet {
		b.t.Fatalf("refused %q, not yet %v", o.Reason, o.NotYet)
	}
}

func TestLogoutAll(t *testing.T) {
	t.Parallel()
	t.Run("ends activated and other sessions", func(t *testing.T) {
		b, t1 := activated(t)
		b.later(time.Second)
		b.loggedOut(b.step(EventLogoutAll, t1))
		b.over(b.discharge(t1), ReasonSessionEnded, false)
		b.loggedOut(b.step(EventLogoutAll, t1)) // repeated
		if b.state.User.Generation != 1 {
			t.Fatalf("generation %d, want 1", b.state.User.Generation)
		}
		other := newBench(t, caveat.ModeOpen) // minted before, activated after
		other.state.User = b.state.User
		other.later(2 * time.Second)
		other.over(other.discharge(nil), ReasonSessionEnded, false)
		other.cond.Minted = b.state.User.At + 1 // a new login
		other.issued(other.discharge(nil))
		if other.state.Session.UserGeneration != 1 {
			t.Error("the new session has the old generation")
		}
	})
	t.Run("requires a token that a refresh accepts", func(t *testing.T) {
		b, t1 := activated(t)
		t2 := b.issued(b.discharge(t1))
		live := b.issued(b.discharge(t2))
		b.refused(b.step(EventLogoutAll, t1), ReasonTokenSuperseded)
		for _, tok := range []*Token{t2, live} { // confirmed, and its successor
			b := *b
			b.loggedOut(b.step(EventLogoutAll, tok))
			b.over(b.discharge(live), ReasonSessionEnded, false)
		}
	})
	t.Run("not by a session that is over", func(t *testing.T) {
		b, t1 := activated(t)
		b.step(EventLogout, t1)
		b.over(b.step(EventLogoutAll, t1), ReasonSessionEnded, false)
		b, t1 = activated(t)
		b.limit.Idle = time.Hour
		b.later(time.Hour)
		b.over(b.step(EventLogoutAll, t1), ReasonSessionExpired, true)
		if b.state.User.Generation != 0 {
			t.Error("raised the user's generation")
		}
		b = newBench(t, caveat.ModeHeld)
		b.later(time.Hour)
		b.over(b.step(EventLogoutAll, nil, byHomeserver), ReasonSessionEnded, true)
	})
}

// TestEndsByTime tests that ends by time are soft from the first answer on.
func TestEndsByTime(t *testing.T) {
	t.Parallel()
	t.Run("idle", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.limit.Idle = 8 * time.Hour
		b.issued(b.discharge(nil))
		for range 20 { // more often than LastUsed is stored
			b.later(20 * time.Minute)
			b.issued(b.discharge(nil))
		}
		b.later(8 * time.Hour)
		b.over(b.discharge(nil), ReasonSessionExpired, true)
		b.later(-7 * time.Hour) // a clock that is set back does not revive it
		b.over(b.discharge(nil), ReasonSessionExpired, true)
		b.limit.Idle = 0 // nor does another configuration
		b.over(b.discharge(nil), ReasonSessionExpired, true)
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
		for _, tok := range []*Token{t2, t1} {
			b.over(b.discharge(tok), ReasonSessionExpired, true)
		}
	})
	t.Run("the condition's own, before the first discharge too", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.cond.Expires = b.now + 1000
		b.later(time.Second)
		b.over(b.discharge(nil), ReasonSessionExpired, true)
	})
	t.Run("forgotten", func(t *testing.T) {
		for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeHeld} {
			b := newBench(t, mode)
			b.later(40 * 24 * time.Hour)
			b.over(b.discharge(nil, byHomeserver), ReasonSessionEnded, true)
		}
		b, t1 := activated(t)
		b.state = State{}
		b.later(40 * 24 * time.Hour)
		b.over(b.discharge(t1), ReasonSessionEnded, true)
	})
}

// TestEndsAgreeWithTombstone ends a session with each kind of end. Every later answer
// has the reason and the kind of the tombstone, also after it was stored, and after
// later revocations and losses.
func TestEndsAgreeWithTombstone(t *testing.T) {
	t.Parallel()
	for _, end := range []revocation.End{
		{Cause: revocation.CauseLogout}, {Cause: revocation.CauseRevoked}, {Soft: true, Cause: revocation.CauseRevoked}, {Soft: true, Cause: revocation.CauseReuse}, {Cause: revocation.CauseReuse},
		{Cause: revocation.CausePolicy}, {Soft: true, Cause: revocation.CausePolicy, Code: "office_hours"}, {Soft: true, Cause: revocation.CauseLimit},
		{Soft: true, Cause: revocation.CauseExpired}, {Soft: true, Cause: revocation.CauseReplaced}, {Soft: true, Cause: revocation.CauseLost},
	} {
		t.Run(fmt.Sprintf("%s %s soft=%v", end.Cause, end.Code, end.Soft), func(t *testing.T) {
			b, t1 := activated(t)
			t2 := b.issued(b.discharge(t1))
			end.At = b.now
			want := ReasonOf(end)
			b.state.Session = b.state.Session.Tombstone(end)
			for _, later := range []time.Duration{0, time.Hour, 40 * 24 * time.Hour, -80 * 24 * time.Hour, 40 * 24 * time.Hour} {
				b.later(later)
				if b.now < b.cond.Minted {
					continue // the caveat is from the future: undecided
				}
				enc, err := b.state.Session.MarshalBinary()
				if err != nil {
					t.Fatal(err)
				}
				b.state.Session = new(Record)
				if err := b.state.Session.UnmarshalBinary(enc); err != nil {
					t.Fatal(err)
				}
				for _, tok := range []*Token{t1, t2, {Epoch: 9, Nonce: t2.Nonce}} {
					for _, kind := range []EventKind{EventDischarge, EventOwn, EventLogoutAll} {
						o := b.step(kind, tok, from(thief))
						b.over(o, want, end.Soft)
						if o.Next != nil || o.End != b.state.Session.End {
							t.Fatalf("%d: %+v, tombstone %+v", kind, o, b.state.Session)
						}
					}
					b.loggedOut(b.step(EventLogout, tok))
				}
				b.state.User = b.state.User.Raise(b.now, caveat.SessionID{}, revocation.End{Soft: !end.Soft})
				b.state.Losses = store.Losses{Missing: b.now, All: b.now}
			}
		})
	}
}

// TestGenerations tests that a session's end is that of the oldest revocation above
// its generation.
func TestGenerations(t *testing.T) {
	t.Parallel()
	live := func(t *testing.T) *bench {
		b := newBench(t, caveat.ModeOpen)
		b.issued(b.discharge(nil))
		return b
	}
	soft := revocation.End{Soft: true, Cause: revocation.CauseRevoked}
	hard := revocation.End{Cause: revocation.CauseRevoked}
	reauth := revocation.End{Soft: true, Cause: revocation.CausePolicy, Code: "stolen_laptop"}
	t.Run("soft, then hard", func(t *testing.T) {
		b := live(t)
		b.state.User = b.state.User.Raise(b.now+1, caveat.SessionID{}, soft).Raise(b.now+2, caveat.SessionID{}, hard)
		b.over(b.discharge(nil), ReasonSessionEnded, true)
	})
	t.Run("hard, then soft", func(t *testing.T) {
		b := live(t)
		b.state.User = b.state.User.Raise(b.now+1, caveat.SessionID{}, hard).Raise(b.now+2, caveat.SessionID{}, soft)
		b.over(b.discharge(nil), ReasonSessionEnded, false)
	})
	t.Run("by a policy, then hard", func(t *testing.T) {
		b := live(t)
		b.state.User = b.state.User.Raise(b.now+1, caveat.SessionID{}, reauth).Raise(b.now+2, caveat.SessionID{}, hard)
		b.over(b.discharge(nil), "stolen_laptop", true)
	})
	t.Run("of the user, then of the homeserver", func(t *testing.T) {
		b := live(t)
		b.state.User = b.state.User.Raise(b.now+1, caveat.SessionID{}, hard)
		b.state.Homeserver = b.state.Homeserver.Raise(b.now+2, caveat.SessionID{}, soft)
		b.over(b.discharge(nil), ReasonSessionEnded, false)
	})
	t.Run("of the homeserver, then of the user", func(t *testing.T) {
		b := live(t)
		b.state.Homeserver = b.state.Homeserver.Raise(b.now+1, caveat.SessionID{}, soft)
		b.state.User = b.state.User.Raise(b.now+2, caveat.SessionID{}, hard)
		b.over(b.discharge(nil), ReasonSessionEnded, true)
	})
	t.Run("from before its generation", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.state.User = b.state.User.Raise(b.now-2, caveat.SessionID{}, hard)
		b.issued(b.discharge(nil))
		b.state.User = b.state.User.Raise(b.now+2, caveat.SessionID{}, soft)
		b.over(b.discharge(nil), ReasonSessionEnded, true)
	})
	t.Run("more than are remembered", func(t *testing.T) {
		b := live(t)
		for i := range int64(3 * MaxEnds) {
			b.state.User = b.state.User.Raise(b.now+i, caveat.SessionID{}, soft)
		}
		if n := len(b.state.User.Ends); n != MaxEnds {
			t.Errorf("%d ends are kept", n)
		}
		b.over(b.discharge(nil), ReasonSessionEnded, true) // a dropped end is taken for soft
	})
	t.Run("a lost store", func(t *testing.T) {
		b := live(t)
		b.later(time.Second)
		b.state.Losses.Missing = b.now
		b.issued(b.discharge(nil)) // it has a record, and no revocation is missing
		b.state.Losses.All = b.now
		b.over(b.discharge(nil), ReasonSessionLost, true)
	})
}

// TestMarks tests the marks that cover sessions without a record.
func TestMarks(t *testing.T) {
	t.Parallel()
	id := caveat.SessionID{1}
	marks := map[string]func(*State, int64, caveat.SessionID, revocation.End){
		"user": func(s *State, at int64, except caveat.SessionID, e revocation.End) {
			s.User = s.User.Raise(at, except, e)
		},
		"homeserver": func(s *State, at int64, _ caveat.SessionID, e revocation.End) {
			s.Homeserver = s.Homeserver.Raise(at, caveat.SessionID{}, e)
		},
		"device": func(s *State, at int64, except caveat.SessionID, e revocation.End) {
			e.At = at
			s.Device.Revoked, s.Device.Except, s.Device.End = at, except, e
		},
	}
	for name, mark := range marks {
		t.Run(name, func(t *testing.T) {
			for _, soft := range []bool{false, true} {
				b := newBench(t, caveat.ModeOpen)
				b.later(time.Second)
				mark(&b.state, b.now, caveat.SessionID{}, revocation.End{Soft: soft, Cause: revocation.CauseRevoked})
				b.over(b.discharge(nil), ReasonSessionEnded, soft)
				b.cond.Minted = b.now + 1
				b.issued(b.discharge(nil))
			}
		})
		t.Run(name+", by the store's time", func(t *testing.T) {
			b := newBench(t, caveat.ModeOpen)
			mark(&b.state, b.now+5_000, caveat.SessionID{}, revocation.End{Cause: revocation.CauseRevoked})
			if o := Step(b.state, &Event{Kind: EventDischarge, Now: b.now, Condition: &b.cond}, b.limit); !o.NeedsTime {
				t.Errorf("decided without the store's time: %+v", o)
			}
			b.state.Now = b.now + 5_000 // ahead of ours
			b.over(b.discharge(nil), ReasonSessionEnded, false)
		})
		t.Run(name+", from the future", func(t *testing.T) {
			b := newBench(t, caveat.ModeOpen)
			future := b.now + 40*24*time.Hour.Milliseconds()
			mark(&b.state, future, caveat.SessionID{}, revocation.End{Cause: revocation.CauseRevoked})
			o := b.discharge(nil)
			if b.undecided(o); o.FutureMark != future {
				t.Errorf("mark %d, want %d", o.FutureMark, future)
			}
			live := newBench(t, caveat.ModeOpen) // a mark does not concern a session with a record
			live.issued(live.discharge(nil))
			if name == "device" {
				mark(&live.state, future, caveat.SessionID{}, revocation.End{Cause: revocation.CauseRevoked})
				live.issued(live.discharge(nil))
			}
		})
		if name != "homeserver" {
			t.Run(name+", except", func(t *testing.T) {
				b := newBench(t, caveat.ModeOpen)
				b.later(time.Second)
				mark(&b.state, b.now, id, revocation.End{Cause: revocation.CauseRevoked})
				b.issued(b.discharge(nil)) // its record may have been lost
				b.state.Session, b.cond.Session = nil, caveat.SessionID{2}
				b.over(b.discharge(nil), ReasonSessionEnded, false)
			})
		}
	}
	t.Run("missing data", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.state.Losses.Missing = b.cond.Minted + 1
		b.over(b.discharge(nil), ReasonSessionLost, true)
		b.cond.Minted++
		b.issued(b.discharge(nil))
	})
}

// TestDevice tests that a device has one live session.
func TestDevice(t *testing.T) {
	t.Parallel()
	t.Run("an activation takes it over", func(t *testing.T) {
		b := newBench(t, caveat.ModeRotate)
		others := []caveat.SessionID{{7}, {8}}
		b.state.Device = DeviceRecord{Current: caveat.SessionID{7}, Since: b.now - 1000, Revoked: 5, End: revocation.End{Cause: revocation.CauseRevoked, At: 5}}
		if o := Step(b.state, &Event{Kind: EventDischarge, Now: b.now, Condition: &b.cond}, b.limit); !o.NeedsDevice {
			t.Errorf("decided without the device's sessions: %+v", o)
		}
		b.state.Listed, b.state.OnDevice = true, others
		o := b.discharge(nil)
		b.issued(o)
		if len(o.Replaces) != 2 || b.state.Device.Current != b.cond.Session || b.state.Device.Revoked != 5 {
			t.Errorf("replaces %v, device %+v", o.Replaces, b.state.Device)
		}
	})
	t.Run("a session without a device takes none over", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.cond.Device = ""
		o := Step(b.state, &Event{Kind: EventDischarge, Now: b.now, Condition: &b.cond}, b.limit)
		if b.issued(o); o.NextDevice != nil || o.Replaces != nil {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("a session that an earlier version left beside a newer one", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.issued(b.discharge(nil))
		b.later(time.Minute)
		b.state.Device = DeviceRecord{Current: caveat.SessionID{9}, Since: b.now}
		b.over(b.discharge(nil), ReasonReplaced, true)
		b.state.Device = DeviceRecord{}
		b.over(b.discharge(nil), ReasonReplaced, true) // by the tombstone
	})
	t.Run("a session that an earlier version activated since", func(t *testing.T) {
		b := newBench(t, caveat.ModeOpen)
		b.state.Device = DeviceRecord{Current: caveat.SessionID{9}, Since: b.now - 60_000}
		b.issued(b.discharge(nil))
		b.state.Device = DeviceRecord{Current: caveat.SessionID{9}, Since: b.now - 60_000}
		b.issued(b.discharge(nil))
	})
}

func TestSeen(t *testing.T) {
	t.Parallel()
	t.Run("of another epoch, without a record, after the end", func(t *testing.T) {
		b, t1 := activated(t)
		for _, epoch := range []uint64{0, 2, 99} {
			if r := Seen(b.state, epoch, b.now); r != nil {
				t.Errorf("epoch %d: %+v", epoch, r)
			}
		}
		if r := Seen(State{}, 1, b.now); r != nil {
			t.Errorf("no record: %+v", r)
		}
		gone := b.state
		gone.User.Generation++
		if r := Seen(gone, 1, b.now); r != nil {
			t.Errorf("revoked: %+v", r)
		}
		b.seen(1)
		if r := Seen(b.state, 1, b.now); r != nil {
			t.Errorf("again: %+v", r)
		}
		b.issued(b.discharge(t1))
	})
	// Two tabs, one on IPv4 and one on IPv6, refresh at once, and the discharge of one
	// is reported before either refreshes again.
	t.Run("of an epoch with several tokens leaves each of them usable", func(t *testing.T) {
		for _, use := range []string{"first", "second"} {
			b, t1 := activated(t)
			six := Party{Addr: netip.MustParseAddr("2001:db8::7"), Client: home.Client}
			tabs := map[string]*Token{"first": b.issued(b.discharge(t1)), "second": b.issued(b.discharge(t1, from(six)))}
			b.seen(2)
			b.later(5 * time.Minute)
			next := b.issued(b.discharge(tabs[use]))
			b.issued(b.discharge(next))
		}
	})
}

// TestExpires tests when the store may forget a record: never while its caveat could
// activate the session again.
func TestExpires(t *testing.T) {
	t.Parallel()
	b := newBench(t, caveat.ModeOpen)
	b.limit.Idle = time.Minute // shorter than the activation window
	b.issued(b.discharge(nil))
	closes := time.UnixMilli(b.cond.Minted).Add(b.limit.Activation + b.limit.Skew)
	if got := Expires(b.state.Session, &b.cond, b.limit); !got.After(closes) {
		t.Errorf("live record forgotten at %v, the window closes at %v", got, closes)
	}
	live := b.state.Session
	for _, soft := range []bool{true, false} {
		b.later(24 * time.Hour)
		end := live.Tombstone(revocation.End{Soft: soft, Cause: revocation.CauseRevoked, At: b.now})
		got := Expires(end, &b.cond, b.limit)
		if kept := got.Sub(time.UnixMilli(b.now)); !got.After(closes) || soft && kept > 2*time.Hour || !soft && kept < b.limit.Remember-time.Second {
			t.Errorf("tombstone, soft %v, is kept for %v", soft, kept)
		}
	}
	early := live.Tombstone(revocation.End{Soft: true, Cause: revocation.CauseExpired, At: b.cond.Minted})
	if got := Expires(early, &b.cond, b.limit); !got.After(closes) {
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
		t.Run(fmt.Sprint(c.a, " and ", c.b), func(t *testing.T) {
			if got := c.a.same(c.b); got != c.want {
				t.Errorf("same: %v", got)
			}
		})
	}
	long := Party{Client: "0123456789012345678901234567890123456789é"}
	if got := long.cut().Client; len(got) != 40 {
		t.Errorf("cut to %q", got)
	}
	if got := (Party{Client: "012345678901234567890123456789012345678é"}).cut().Client; len(got) != 39 {
		t.Errorf("cut inside a character: %q", got)
	}
}
