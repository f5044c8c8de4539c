package simulate

import (
	"encoding/binary"
	"maps"

	"github.com/discharger/discharger/discharger/session"
)

// Others returns the rules of other servers according to their documentation and
// sources, and some simple rules.
func Others() []Rules {
	rows := func(name string, c chain) Rules {
		return Rules{name, func() Server {
			c := c
			c.rows, c.issued = make(map[uint64]row), new(uint64)
			return &c
		}}
	}
	return []Rules{
		{"discharger f75465c", func() Server { return &earlier{reports: true} }},
		{"discharger f75465c, no reports", func() Server { return &earlier{} }},
		// Until the new access token is used, the old refresh token can be exchanged
		// again, which revokes the successor before. Later it is refused.
		rows("MAS", chain{lostReply: untilUsed, replaces: true}),
		// The same, but the successor before stays valid.
		rows("Synapse, legacy login", chain{lostReply: untilUsed}),
		// For 15 s after the exchange, the old token can be exchanged again. Later it
		// ends the session.
		rows("tuwunel", chain{lostReply: 15 * second, ends: true}),
		// The old token is deleted at once.
		rows("continuwuity", chain{}),
		rows("grace period of 60 s, then reuse ends the session", chain{lostReply: minute, ends: true}),
		rows("strict rotation, reuse ends the session", chain{ends: true}),
		{"no rotation", func() Server { return &fixed{} }},
	}
}

// untilUsed is the chain.lostReply with which a token can be exchanged again until
// its successor is used.
const untilUsed = -1

// chain is a session at a server that stores every token, and exchanges each once.
type chain struct {
	lostReply int64 // how long a token can be exchanged again, ms, or untilUsed
	replaces  bool  // exchanged again: the successor before is revoked
	ends      bool  // a reused token ends the session

	rows   map[uint64]row
	issued *uint64 // the number of the last token, which a failover does not reset
	first  uint64
	ended  bool
}

// row is one token.
type row struct {
	next    uint64 // its successor; 0: none
	at      int64  // of the exchange
	used    bool   // the access token issued with it was used
	revoked bool
}

func number(t session.Token) uint64 { return t.Epoch }

func (c *chain) issue() Answer {
	*c.issued++
	n := *c.issued
	c.rows[n] = row{}
	delete(c.rows, n-maxRows)
	return Answer{Token: session.Token{Epoch: n}}
}

// maxRows is more than a sleeping client falls behind.
const maxRows = 64

func (c *chain) Present(t session.Token, r Request) Answer {
	if t == (session.Token{}) { // login, repeatable
		if _, ok := c.rows[c.first]; !ok {
			a := c.issue()
			c.first = number(a.Token)
			return a
		}
		return Answer{Token: session.Token{Epoch: c.first}}
	}
	old, known := c.rows[number(t)]
	switch {
	case c.ended:
		return Answer{Ended: true, Hard: true}
	case !known: // of an unknown session
		return Answer{}
	case old.revoked:
		return c.reused()
	case old.next == 0:
	case c.lostReply == untilUsed:
		next := c.rows[old.next]
		if next.used || next.next != 0 {
			return c.reused()
		}
		if c.replaces {
			next.revoked = true
			c.rows[old.next] = next
		}
	case r.Now-old.at > c.lostReply || c.lostReply == 0:
		return c.reused()
	}
	a := c.issue()
	if old.next == 0 {
		old.at = r.Now
	}
	old.next = number(a.Token)
	c.rows[number(t)] = old
	return a
}

func (c *chain) reused() Answer {
	c.ended = c.ends
	return Answer{Ended: c.ended, Hard: c.ended}
}

func (c *chain) Use(t session.Token, _ int64) {
	if r, ok := c.rows[number(t)]; ok {
		r.used = true
		c.rows[number(t)] = r
	}
}

func (c *chain) Save() func() {
	old := *c
	old.rows = maps.Clone(c.rows)
	return func() { *c = old }
}

// fixed is a session whose refresh token never changes.
type fixed struct{}

func (fixed) Present(session.Token, Request) Answer {
	return Answer{Token: session.Token{Epoch: 1}}
}
func (fixed) Use(session.Token, int64) {}
func (fixed) Save() func()             { return func() {} }

// earlier is a session under the rules of this service before November 2026: the
// same successor within 10 s or for the same request, to any party; a later retry
// revokes the successor before; older tokens end the session, from the same party
// too.
type earlier struct {
	epoch, nonce uint64 // confirmed
	at           int64
	succ         uint64 // nonce of the successor; 0: none
	issued       int64
	tag          session.RequestTag
	last         session.Party
	nonces       uint64
	reports      bool
	ended        bool
}

const earlierGrace = 10 * second

func (s *earlier) Present(t session.Token, r Request) Answer {
	epoch, nonce := t.Epoch, serial(t.Nonce)
	fresh := func(t int64) bool { return r.Now-t <= earlierGrace }
	switch {
	case s.ended:
		return Answer{Ended: true, Hard: true}
	case epoch == s.epoch && nonce == s.nonce:
		if s.succ != 0 && (s.tag == r.Tag && r.Tag != session.RequestTag{} || fresh(s.issued)) {
			return Answer{Token: session.Token{Epoch: s.epoch + 1, Nonce: numbered(s.succ)}}
		}
	case epoch == s.epoch+1 && nonce == s.succ, epoch > s.epoch+1, epoch == s.epoch+1 && s.succ == 0:
		s.epoch, s.nonce, s.at = epoch, nonce, r.Now
	case epoch == s.epoch+1, epoch == s.epoch && epoch > 0, epoch+1 == s.epoch && fresh(s.at):
		if s.last == r.From {
			return Answer{}
		}
		s.ended = true
		return Answer{Ended: true, Hard: true}
	default:
		s.ended = true
		return Answer{Ended: true, Hard: true}
	}
	s.nonces++
	s.succ, s.issued, s.tag, s.last = s.draw(r), r.Now, r.Tag, r.From
	return Answer{Token: session.Token{Epoch: s.epoch + 1, Nonce: numbered(s.succ)}}
}

// draw returns a number that no token has, even after a failover.
func (s *earlier) draw(r Request) uint64 { return uint64(r.Now-start)<<8&(1<<48-1) | s.nonces&0xff }

func (s *earlier) Use(t session.Token, now int64) {
	if s.reports && !s.ended && s.succ != 0 && t.Epoch == s.epoch+1 {
		s.epoch, s.nonce, s.at, s.succ = t.Epoch, s.succ, now, 0
	}
}

func (s *earlier) Save() func() {
	old := *s
	return func() { *s = old }
}

// numbered returns the nonce of a number of 48 bits.
func numbered(n uint64) session.Nonce {
	return session.Nonce(binary.BigEndian.AppendUint64(nil, n)[2:])
}

func serial(n session.Nonce) uint64 {
	return binary.BigEndian.Uint64(append([]byte{0, 0}, n[:]...))
}
