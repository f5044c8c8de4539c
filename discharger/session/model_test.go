package session

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/policy"
)

// model is the reference for Step: it keeps every refresh token that was issued, and
// decides by the state of the presented one, where Step has one record.
type model struct {
	tokens      []*modelToken // the first one is the absent token of an activation
	confirmed   *modelToken   // the newest that is known to have arrived
	reported    int64         // time of the report that a successor is in use; 0: none
	successors  []*modelToken // live and unused, the newest last
	last        Party
	issued      int64 // time of issue of the newest token
	confirmedAt int64
	ended       bool
	reason      Reason // with ended
}

type modelToken struct {
	Token
	issuedAt int64
	tag      RequestTag
}

// present returns the result of presenting tok.
func (m *model) present(tok *modelToken, e *Event, l Limits) (replay policy.Replay, reason Reason) {
	same := m.last.same(e.From)
	switch {
	case tok.Epoch == 0 && (m.ended || m.confirmed.Epoch > 0 || m.reported > 0 || e.Now-e.Condition.Minted > l.Activation.Milliseconds()):
		return "", ReasonTokenRequired
	case m.ended:
		return "", m.reason
	case slices.Contains(m.successors, tok) || len(m.successors) == 0: // none: the activation
		m.confirmed, m.successors, m.reported, m.confirmedAt = tok, nil, 0, max(e.Now, m.issued)
		m.last = e.From
		return policy.ReplayNone, ""
	case tok == m.confirmed && (m.reported == 0 || !same && e.Now-max(m.reported, m.issued) <= reportSlack.Milliseconds()):
		newest := m.successors[len(m.successors)-1]
		again := tok.Epoch == 0 || newest.tag == e.Tag && e.Tag != RequestTag{} || e.Now-newest.issuedAt <= l.Grace.Milliseconds()
		if !same || !again {
			m.last, m.reported = e.From, 0
			return policy.ReplayRetry, ""
		}
		return replayAgain, ""
	case !same:
		m.ended, m.reason = true, ReasonTokenReused
		return policy.ReplayReuse, ReasonTokenReused
	case tok.Epoch == m.confirmed.Epoch && tok != m.confirmed:
		return policy.ReplayFork, ReasonTokenSuperseded
	}
	return policy.ReplayStale, ReasonTokenSuperseded
}

// replayAgain is a retry that is answered with the same successor.
const replayAgain policy.Replay = "again"

// issue adds the token that Step issued.
func (m *model) issue(t *rapid.T, tok *Token, e *Event) {
	at := binaryNonce(tok.Nonce)
	if tok.Epoch != m.confirmed.Epoch+1 || at <= m.issued || at < e.Now {
		t.Fatalf("issued %+v at %d, after %d, at %d", tok, at, m.issued, e.Now)
	}
	m.issued = at
	next := &modelToken{Token: *tok, issuedAt: at, tag: e.Tag}
	m.successors, m.tokens = append(m.successors, next), append(m.tokens, next)
}

func (m *model) seen(epoch uint64, now int64) {
	if !m.ended && m.reported == 0 && len(m.successors) > 0 && epoch == m.successors[0].Epoch {
		m.reported = m.confirmedAt + max(now-m.confirmedAt, 0)/1000*1000
	}
}

// logout returns whether a logout with tok is refused.
func (m *model) logout(tok *modelToken) Reason {
	if !m.ended && tok.Epoch+1 < m.confirmed.Epoch {
		return ReasonTokenSuperseded
	}
	if !m.ended {
		m.ended, m.reason = true, ReasonSessionEnded
	}
	return ""
}

// TestStepMatchesModel runs Step and the model on the same random history: clients
// that refresh in turn or at once, old tokens after lost replies, duplicates, thieves,
// reports of use, logouts, and a clock that jumps both ways.
func TestStepMatchesModel(t *testing.T) {
	t.Parallel()
	for range 20 {
		rapid.Check(t, stepMatchesModel)
	}
}

func stepMatchesModel(t *rapid.T) {
	b := newBench(noT{}, caveat.ModeRotate)
	parties := []Party{home, thief, {Client: "Element X/26.11"}}
	event := func() *Event {
		e := &Event{Kind: EventDischarge, Now: b.now, Condition: &b.cond, From: rapid.SampledFrom(parties).Draw(t, "from")}
		if n := byte(rapid.IntRange(0, 3).Draw(t, "tag")); n > 0 {
			e.Tag = RequestTag{1, n}
		}
		return e
	}
	none := &modelToken{}
	m := &model{tokens: []*modelToken{none}, confirmed: none}
	present := func(t *rapid.T, e *Event, tok *modelToken) {
		if tok.Epoch > 0 {
			e.Token = &tok.Token
		}
		ended := m.ended
		replay, reason := m.present(tok, e, b.limit)
		b.state.Listed = true
		o := Step(b.state, e, b.limit)
		m.compare(t, &o, e, replay, reason)
		if o.Revokes() != (m.ended && !ended) || o.Ended != (m.ended && reason != ReasonTokenRequired) || o.Ended && o.End.Soft != (m.reason == ReasonTokenReused) {
			t.Fatalf("ended %v, model %v: %+v", o.Ended, m.ended, o)
		}
		if o.Next != nil {
			b.state.Session = o.Next
		}
	}
	first := event()
	m.last = first.From
	present(t, first, none)
	t.Repeat(map[string]func(*rapid.T){
		"refresh": func(t *rapid.T) {
			tok := rapid.SampledFrom(m.tokens).Draw(t, "token")
			if rapid.Bool().Draw(t, "recent") {
				tok = m.tokens[max(0, len(m.tokens)-1-rapid.IntRange(0, 2).Draw(t, "age"))]
			}
			present(t, event(), tok)
		},
		"seen": func(t *rapid.T) {
			n := uint64(rapid.IntRange(0, int(m.confirmed.Epoch)+2).Draw(t, "epoch"))
			m.seen(n, b.now)
			if r := Seen(b.state, n, b.now); r != nil {
				b.state.Session = r
			}
		},
		"clock": func(t *rapid.T) {
			b.now = max(b.cond.Minted, b.now+rapid.SampledFrom([]int64{1, 900, 9_000, 10_001, 300_000, -1, -8_000, -60_000}).Draw(t, "step"))
		},
		"logout": func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "seldom") > 0 || len(m.tokens) < 2 {
				return
			}
			e, ended := event(), m.ended
			tok := rapid.SampledFrom(m.tokens[1:]).Draw(t, "token")
			e.Kind, e.Token = EventLogout, &tok.Token
			reason := m.logout(tok)
			o := Step(b.state, e, b.limit)
			if o.Reason != reason || o.Revokes() != (m.ended && !ended) || o.Revokes() && o.Next.End.Soft {
				t.Fatalf("logout: %+v, model %q, ended %v", o, reason, m.ended)
			}
			if o.Next != nil {
				b.state.Session = o.Next
			}
		},
		"": func(t *rapid.T) { m.check(t, b) },
	})
}

// compare demands that Step decided as the model did.
func (m *model) compare(t *rapid.T, o *Outcome, e *Event, replay policy.Replay, reason Reason) {
	again := replay == replayAgain
	if again {
		replay = policy.ReplayRetry
	}
	if o.Reason != reason || o.LostWrite || o.NotYet || len(m.tokens) > 1 && o.Replay != replay {
		t.Fatalf("%+v at %d: got %q %q, lost write %v; want %q %q", e.Token, e.Now, o.Replay, o.Reason, o.LostWrite, replay, reason)
	}
	switch {
	case reason != "":
		if o.Issue != nil {
			t.Fatal("a refusal issues a token")
		}
		if !o.Ended && o.Next != nil {
			t.Fatalf("a refusal stores %+v", o.Next)
		}
	case again:
		if newest := m.successors[len(m.successors)-1]; *o.Issue != newest.Token || o.Next != nil {
			t.Fatalf("issued %+v, want %+v again", o.Issue, newest.Token)
		}
	default:
		m.issue(t, o.Issue, e)
	}
}

// check compares the record with the model, and replaces it by its stored form.
func (m *model) check(t *rapid.T, b *bench) {
	r := b.state.Session
	if r.Over() != m.ended {
		t.Fatalf("ended %+v, model %v", r.End, m.ended)
	}
	if m.ended {
		return
	}
	newest := m.confirmed
	if r.Confirmed.Epoch != newest.Epoch || r.Confirmed.Nonce != newest.Nonce || r.Last != m.last {
		t.Fatalf("confirmed %+v by %v, model %+v by %v", r.Confirmed, r.Last, newest, m.last)
	}
	if (r.Successor == nil) != (len(m.successors) == 0) || r.Successor != nil && r.Successor.Nonce != m.successors[len(m.successors)-1].Nonce {
		t.Fatalf("successor %+v, model %+v", r.Successor, m.successors)
	}
	var back Record
	enc, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := back.UnmarshalBinary(enc); err != nil {
		t.Fatal(err)
	}
	b.state.Session = &back
}

// noT is the testing.TB of a bench in a rapid check.
type noT struct{ testing.TB }

func (noT) Helper() {}

// client refreshes by the protocol: it keeps its token until it has stored the next
// one, and repeats a request without a reply.
type client struct {
	party Party
	token *Token
	tag   uint32
}

// refresh makes one refresh, whose replies are lost with probability loss, with time
// between the attempts. It returns the refusal.
func (c *client) refresh(b *bench, rng *rand.Rand, loss float64) (refused Reason) {
	c.tag++
	crashed := false
	for {
		o := b.discharge(c.token, from(c.party), func(e *Event) {
			binary.BigEndian.PutUint32(e.Tag[:], c.tag|1<<31)
		})
		if o.Reason != "" {
			return o.Reason
		}
		if rng.Float64() >= loss {
			c.token = o.Issue
			return ""
		}
		b.now += rng.Int64N(40_000)
		if !crashed && rng.IntN(4) == 0 { // a restart loses the request id
			crashed = true
			c.tag++
		}
	}
}

// TestHonestClientsAreNeverRefused tests that lost replies never end a session without
// a thief.
func TestHonestClientsAreNeverRefused(t *testing.T) {
	t.Parallel()
	sessions := 3000
	if testing.Short() {
		sessions = 300
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range sessions {
		b := newBench(t, caveat.ModeRotate)
		c := &client{party: home}
		for n := range 200 {
			if reason := c.refresh(b, rng, 0.2); reason != "" {
				t.Fatalf("session %d, refresh %d: refused (%s)", i, n, reason)
			}
			if rng.IntN(3) == 0 {
				b.seen(c.token.Epoch)
			}
			b.now += rng.Int64N(600_000)
			if rng.IntN(20) == 0 {
				c.party.Addr = c.party.Addr.Next() // another network
			}
			if rng.IntN(50) == 0 {
				b.now = max(b.cond.Minted, b.now-rng.Int64N(120_000)) // the clock is set back
			}
		}
	}
}

// TestCopiedTokenIsNoticed runs a thief with a copy of a client's token, at different
// rhythms, and counts the sessions that are over when both have refreshed three times.
func TestCopiedTokenIsNoticed(t *testing.T) {
	t.Parallel()
	const runs = 1000
	for name, rhythm := range map[string]func(*rand.Rand) int64{
		"at once":       func(r *rand.Rand) int64 { return 1 + r.Int64N(2_000) },
		"within grace":  func(r *rand.Rand) int64 { return 3_000 + r.Int64N(7_000) },
		"soon":          func(r *rand.Rand) int64 { return 10_000 + r.Int64N(60_000) },
		"like a client": func(r *rand.Rand) int64 { return 200_000 + r.Int64N(100_000) },
		"patient":       func(r *rand.Rand) int64 { return 600_000 + r.Int64N(3_000_000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(3, 4))
			period := func() int64 { return 240_000 + rng.Int64N(60_000) }
			noticed := 0
			for range runs {
				b := newBench(t, caveat.ModeRotate)
				owner := &client{party: home}
				for range 1 + rng.IntN(20) {
					owner.refresh(b, rng, 0.05)
					b.now += period()
				}
				copied := &client{party: thief, token: owner.token}
				next := [2]int64{b.now + rng.Int64N(period()), b.now + rhythm(rng)}
				acted, over := [2]int{}, false
				for !over && (acted[0] < 3 || acted[1] < 3) {
					who, c, pause := 0, owner, period()
					if next[1] < next[0] {
						who, c, pause = 1, copied, rhythm(rng)
					}
					b.now = max(b.now, next[who])
					over = c.refresh(b, rng, 0.05) != ""
					acted[who]++
					next[who] = b.now + pause
				}
				if over {
					noticed++
				}
			}
			t.Logf("noticed in %d of %d runs", noticed, runs)
			if noticed < runs*97/100 {
				t.Errorf("noticed in %d of %d runs", noticed, runs)
			}
		})
	}
}
