package admission

import (
	"net/netip"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// Limits bound the requests that are answered at a time. Each bound is for brief
// requests, and another for lasting ones: those that wait for news, and those that
// last for longer than two seconds, such as large files. A lasting request without
// room among those counts as a brief one.
//
// A request beyond a bound is answered at once with 429 M_LIMIT_EXCEEDED. That is
// what Matrix clients wait at for as long as they are told; at 503, some come again
// without a pause. To /refresh it is 503 as text, since clients take any JSON there
// for the end of the session.
type Limits struct {
	Requests           int // brief ones; 0: 4096
	RequestsPerAddress int // of one client address; 0: 256
	Lasting            int // 0: 65536
	LastingPerAddress  int // of one client address; 0: 2048
}

func (l *Limits) setDefaults() {
	for _, x := range []struct {
		value *int
		usual int
	}{{&l.Requests, 4096}, {&l.RequestsPerAddress, 256}, {&l.Lasting, 65536}, {&l.LastingPerAddress, 2048}} {
		if *x.value <= 0 {
			*x.value = x.usual
		}
	}
}

// lastingAfter is for how long a request is a brief one.
const lastingAfter = 2 * time.Second

// RetryAfter is after how long a client that was turned away may come again.
const RetryAfter = 5 * time.Second

// Span is how long a request lasts.
type Span uint8

const (
	Brief Span = iota
	Lasting
	spans
)

// Limiter counts the requests that are answered. An IPv6 address counts by its
// /64, and a /48 has a quarter of all places.
//
// Addresses that do not come from the Internet have no bound of their own, and
// neither have trusted proxies that do not say whom they stand before: behind
// each of them may be all clients.
type Limiter struct {
	now    func() time.Time
	limits [spans]struct{ all, peer int }

	mu    sync.Mutex
	all   [spans]int
	peers map[netip.Prefix][spans]int // addresses, and their sites
	first *Place                      // of the brief ones, in the order in which they came
	last  *Place
}

func NewLimiter(l Limits, now func() time.Time) *Limiter {
	l.setDefaults()
	m := &Limiter{now: now, peers: make(map[netip.Prefix][spans]int)}
	m.limits[Brief].all, m.limits[Brief].peer = l.Requests, l.RequestsPerAddress
	m.limits[Lasting].all, m.limits[Lasting].peer = l.Lasting, l.LastingPerAddress
	return m
}

// Place is what a request takes while it is answered. The zero value takes none.
type Place struct {
	limiter *Limiter     // nil: it was never taken
	peer    netip.Prefix // invalid: it has no bound of its own
	span    Span
	taken   bool
	since   time.Time

	before, after *Place // of brief ones
}

// Take takes a place for a request from a peer, which has no bound of its own if it
// is not valid. It reports false if there is none.
func (m *Limiter) Take(p *Place, from netip.Prefix, s Span) bool {
	p.limiter, p.peer, p.span = m, from, s
	return p.Acquire()
}

// Peer returns what an address counts as, which is not valid if it has no bound.
func Peer(a netip.Addr) netip.Prefix {
	if a = a.Unmap(); a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() {
		return netip.Prefix{}
	}
	return clientaddr.Network(a)
}

// Acquire takes the place, or takes it again after release. It reports false if
// there is none, and does not wait.
func (p *Place) Acquire() bool {
	m := p.limiter
	if m == nil {
		return true
	}
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.taken {
		return true
	}
	m.promote(now)
	if !m.room(p.peer, p.span) {
		if p.span == Brief || !m.room(p.peer, Brief) {
			return false
		}
		p.span = Brief
	}
	p.taken, p.since = true, now
	m.count(p, 1)
	if p.span == Brief {
		m.append(p)
	}
	return true
}

// Release gives the place back: at the end of the request, and while it waits for
// something for which it needs no place.
func (p *Place) Release() {
	m := p.limiter
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !p.taken {
		return
	}
	p.taken = false
	m.count(p, -1)
	if p.span == Brief {
		m.unlink(p)
	}
}

func (m *Limiter) room(peer netip.Prefix, s Span) bool {
	l, site := m.limits[s], clientaddr.Site(peer)
	switch {
	case m.all[s] >= l.all:
		return false
	case site.IsValid() && m.peers[site][s] >= max(l.peer, l.all/4):
		return false
	}
	return !peer.IsValid() || m.peers[peer][s] < l.peer
}

func (m *Limiter) count(p *Place, n int) {
	m.all[p.span] += n
	for _, counted := range [...]netip.Prefix{p.peer, clientaddr.Site(p.peer)} {
		if !counted.IsValid() {
			continue
		}
		c := m.peers[counted]
		if c[p.span] += n; c == [spans]int{} {
			delete(m.peers, counted)
			continue
		}
		m.peers[counted] = c
	}
}

// promote makes lasting ones of the brief requests that last, if there is room.
func (m *Limiter) promote(now time.Time) {
	for p := m.first; p != nil && now.Sub(p.since) >= lastingAfter; {
		next := p.after
		if m.room(p.peer, Lasting) {
			m.unlink(p)
			m.count(p, -1)
			p.span = Lasting
			m.count(p, 1)
		}
		p = next
	}
}

func (m *Limiter) append(p *Place) {
	p.before, p.after = m.last, nil
	if m.last == nil {
		m.first = p
	} else {
		m.last.after = p
	}
	m.last = p
}

func (m *Limiter) unlink(p *Place) {
	if p.before == nil {
		m.first = p.after
	} else {
		p.before.after = p.after
	}
	if p.after == nil {
		m.last = p.before
	} else {
		p.after.before = p.before
	}
	p.before, p.after = nil, nil
}

// Busy returns how many places of a span are taken.
func (m *Limiter) Busy(s Span) int {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.promote(now)
	return m.all[s]
}
