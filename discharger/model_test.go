package discharger

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/policy"
)

// The model keeps what the state machine does not: every refresh token that
// was ever handed out, and what became of it. It decides by looking the token
// up, where Step decides by arithmetic on one record.
type model struct {
	tokens    []*modelToken
	confirmed *modelToken // newest that is known to have arrived
	successor *modelToken // live and unused; nil: none
	since     int64       // when confirmed was
	last      Party
	ended     bool
}

type modelToken struct {
	Token
	issuedAt int64
	tag      RequestTag
}

// present says what presenting tok must lead to.
func (m *model) present(tok *modelToken, e *Event, grace time.Duration) (replay policy.Replay, reason Reason) {
	within := func(t int64) bool { return e.Now-t <= grace.Milliseconds() }
	race := func(kind policy.Replay) (policy.Replay, Reason) {
		if m.last == e.From {
			return kind, ReasonTokenSuperseded
		}
		m.ended = true
		return kind, ReasonTokenReused
	}
	switch {
	case m.ended:
		return "", ReasonSessionEnded
	case tok == m.confirmed && m.successor == nil:
		m.issue(e)
		return policy.ReplayNone, ""
	case tok == m.confirmed:
		if !(m.successor.tag == e.Tag && e.Tag != RequestTag{}) && !within(m.successor.issuedAt) {
			m.issue(e)
		}
		return policy.ReplayRetry, ""
	case tok == m.successor:
		m.confirm(max(e.Now, tok.issuedAt))
		m.issue(e)
		return policy.ReplayNone, ""
	case tok.Epoch >= m.confirmed.Epoch: // it was replaced before it was used
		return race(policy.ReplayFork)
	case tok.Epoch == m.confirmed.Epoch-1 && within(m.since):
		return race(policy.ReplayStale)
	}
	m.ended = true
	return policy.ReplayReuse, ReasonTokenReused
}

func (m *model) confirm(at int64) {
	m.confirmed, m.successor, m.since = m.successor, nil, at
}

func (m *model) issue(e *Event) {
	m.successor = &modelToken{
		Token:    Token{Epoch: m.confirmed.Epoch + 1, Nonce: e.Nonce},
		issuedAt: max(e.Now, m.since), tag: e.Tag,
	}
	m.tokens = append(m.tokens, m.successor)
	m.last = e.From
}

// TestStepMatchesModel drives both with the same random history: clients that
// refresh in turn or at once, replies that are lost so that old tokens come
// back at any time, duplicates, thieves, reports of use, logouts, and a clock
// that jumps both ways.
func TestStepMatchesModel(t *testing.T) {
	t.Parallel()
	for range 20 { // each draws histories of its own
		rapid.Check(t, stepMatchesModel)
	}
}

func stepMatchesModel(t *rapid.T) {
	b := newBench(noT{}, caveat.ModeRotate)
	parties := []Party{home, thief, {Client: "Element X/26.11"}}
	var nonces uint64
	event := func() Event {
		nonces++
		e := Event{Now: b.now, Condition: &b.cond, From: rapid.SampledFrom(parties).Draw(t, "from")}
		e.Nonce = numbered(nonces)
		e.Tag = RequestTag{byte(rapid.IntRange(0, 3).Draw(t, "tag"))}
		return e
	}
	first := event()
	first.Kind = EventDischarge
	o := Step(b.state, &first, b.limit)
	b.state.Session = o.Next
	m := &model{confirmed: &modelToken{}, since: b.now}
	m.issue(&first)
	t.Repeat(map[string]func(*rapid.T){
		"refresh": func(t *rapid.T) {
			e := event()
			e.Kind = EventDischarge
			tok := rapid.SampledFrom(m.tokens).Draw(t, "token")
			if rapid.Bool().Draw(t, "recent") {
				tok = m.tokens[max(0, len(m.tokens)-1-rapid.IntRange(0, 2).Draw(t, "age"))]
			}
			e.Token = &tok.Token
			replay, reason := m.present(tok, &e, b.limit.Grace)
			o := Step(b.state, &e, b.limit)
			if o.Reason != reason || o.Replay != replay {
				t.Fatalf("token %+v: got %q %q, want %q %q", tok, o.Replay, o.Reason, replay, reason)
			}
			if reason == "" && *o.Issue != m.successor.Token {
				t.Fatalf("issued %+v, want %+v", o.Issue, m.successor.Token)
			}
			if reason != "" && o.Issue != nil {
				t.Fatal("a refusal issues a token")
			}
			if o.Revokes() != (m.ended && reason != ReasonSessionEnded) {
				t.Fatalf("revokes %v, model ended %v", o.Revokes(), m.ended)
			}
			if o.Next != nil {
				b.state.Session = o.Next
			}
		},
		"seen": func(t *rapid.T) {
			n := uint64(rapid.IntRange(0, len(m.tokens)+1).Draw(t, "epoch"))
			if !m.ended && m.successor != nil && n == m.successor.Epoch {
				m.confirm(max(b.now, m.successor.issuedAt))
			}
			if r := Seen(b.state, n, b.now); r != nil {
				b.state.Session = r
			}
		},
		"clock": func(t *rapid.T) {
			b.now = max(b.cond.Minted, b.now+rapid.SampledFrom([]int64{1, 900, 9_000, 10_001, 300_000, -1, -8_000, -60_000}).Draw(t, "step"))
		},
		"logout": func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "seldom") > 0 {
				return
			}
			e := event()
			e.Kind = EventLogout
			e.Token = &rapid.SampledFrom(m.tokens).Draw(t, "token").Token
			o := Step(b.state, &e, b.limit)
			if o.Reason != "" || o.Revokes() == m.ended {
				t.Fatalf("logout: %+v, model ended %v", o, m.ended)
			}
			if o.Next != nil {
				b.state.Session = o.Next
			}
			m.ended = true
		},
		"": func(t *rapid.T) {
			r := b.state.Session
			if (r.Ended > 0) != m.ended {
				t.Fatalf("ended %d, model %v", r.Ended, m.ended)
			}
			if m.ended {
				return
			}
			if r.Confirmed.Epoch != m.confirmed.Epoch || r.Confirmed.Nonce != m.confirmed.Nonce {
				t.Fatalf("confirmed %+v, model %+v", r.Confirmed, m.confirmed)
			}
			if (r.Successor == nil) != (m.successor == nil) || r.Successor != nil && r.Successor.Nonce != m.successor.Nonce {
				t.Fatalf("successor %+v, model %+v", r.Successor, m.successor)
			}
			var back Record // what is stored is what was decided
			enc, err := r.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if err := back.UnmarshalBinary(enc); err != nil {
				t.Fatal(err)
			}
			b.state.Session = &back
		},
	})
}

// numbered is a nonce that nothing else has.
func numbered(n uint64) Nonce { return Nonce(binary.BigEndian.AppendUint64(nil, n)[2:]) }

// noT lets a bench live inside a rapid check, which reports by itself.
type noT struct{ testing.TB }

func (noT) Helper() {}

// client refreshes as the protocol says: it keeps its token until it has
// stored the next one, and repeats a request that was not answered.
type client struct {
	party Party
	token *Token
	tag   uint32
}

// refresh makes one logical refresh, whose replies are lost with probability
// loss; between attempts some time passes. It reports a refusal.
func (c *client) refresh(b *bench, rng *rand.Rand, loss float64) (refused Reason) {
	c.tag++
	crashed := false
	for {
		o := b.discharge(c.token, from(c.party), func(e *Event) {
			binary.BigEndian.PutUint32(e.Tag[:], c.tag|1<<31)
			e.Nonce = numbered(rng.Uint64())
		})
		if o.Reason != "" {
			return o.Reason
		}
		if rng.Float64() >= loss {
			c.token = o.Issue
			return ""
		}
		b.now += rng.Int64N(40_000)
		if !crashed && rng.IntN(4) == 0 { // a restart forgets the request-id
			crashed = true
			c.tag++
		}
	}
}

// TestHonestClientsAreNeverRefused is the promise to users: whatever is lost
// on the way, a session in honest hands goes on.
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
				if r := Seen(b.state, c.token.Epoch, b.now); r != nil {
					b.state.Session = r
				}
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

// TestCopiedTokenIsNoticed plays a thief with a copy of a client's token, at
// different rhythms, and counts how often the session is over when both have
// come back three times.
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
