package gateway

import (
	"net/http"
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

// limitPause is after how long a client that was turned away may come again.
const limitPause = 5 * time.Second

// span is how long a request lasts.
type span uint8

const (
	brief span = iota
	lasting
	spans
)

// limiter counts the requests that are answered. An IPv6 address counts by its
// /64, and a /48 has a quarter of all places.
//
// Addresses that do not come from the Internet have no bound of their own, and
// neither have trusted proxies that do not say whom they stand before: behind
// each of them may be all clients.
type limiter struct {
	now    func() time.Time
	limits [spans]struct{ all, peer int }

	mu    sync.Mutex
	all   [spans]int
	peers map[netip.Prefix][spans]int // addresses, and their sites
	first *place                      // of the brief ones, in the order in which they came
	last  *place
}

func newLimiter(l Limits, now func() time.Time) *limiter {
	l.setDefaults()
	m := &limiter{now: now, peers: make(map[netip.Prefix][spans]int)}
	m.limits[brief].all, m.limits[brief].peer = l.Requests, l.RequestsPerAddress
	m.limits[lasting].all, m.limits[lasting].peer = l.Lasting, l.LastingPerAddress
	return m
}

// place is what a request takes while it is answered. The zero value takes none.
type place struct {
	limiter *limiter     // nil: it was never taken
	peer    netip.Prefix // invalid: it has no bound of its own
	span    span
	taken   bool
	since   time.Time

	before, after *place // of brief ones
}

// take takes a place for a request from a peer, which has no bound of its own if it
// is not valid. It reports false if there is none.
func (m *limiter) take(p *place, from netip.Prefix, s span) bool {
	p.limiter, p.peer, p.span = m, from, s
	return p.acquire()
}

// peerOf returns what an address counts as, which is not valid if it has no bound.
func peerOf(a netip.Addr) netip.Prefix {
	if a = a.Unmap(); a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() {
		return netip.Prefix{}
	}
	return clientaddr.Network(a)
}

// acquire takes the place, or takes it again after release. It reports false if
// there is none, and does not wait.
func (p *place) acquire() bool {
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
		if p.span == brief || !m.room(p.peer, brief) {
			return false
		}
		p.span = brief
	}
	p.taken, p.since = true, now
	m.count(p, 1)
	if p.span == brief {
		m.append(p)
	}
	return true
}

// release gives the place back: at the end of the request, and while it waits for
// something for which it needs no place.
func (p *place) release() {
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
	if p.span == brief {
		m.unlink(p)
	}
}

func (m *limiter) room(peer netip.Prefix, s span) bool {
	l, site := m.limits[s], clientaddr.Site(peer)
	switch {
	case m.all[s] >= l.all:
		return false
	case site.IsValid() && m.peers[site][s] >= max(l.peer, l.all/4):
		return false
	}
	return !peer.IsValid() || m.peers[peer][s] < l.peer
}

func (m *limiter) count(p *place, n int) {
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
func (m *limiter) promote(now time.Time) {
	for p := m.first; p != nil && now.Sub(p.since) >= lastingAfter; {
		next := p.after
		if m.room(p.peer, lasting) {
			m.unlink(p)
			m.count(p, -1)
			p.span = lasting
			m.count(p, 1)
		}
		p = next
	}
}

func (m *limiter) append(p *place) {
	p.before, p.after = m.last, nil
	if m.last == nil {
		m.first = p
	} else {
		m.last.after = p
	}
	m.last = p
}

func (m *limiter) unlink(p *place) {
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

// busy returns how many places of a span are taken.
func (m *limiter) busy(s span) int {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.promote(now)
	return m.all[s]
}

// boundOf returns what a client's address counts as, which is not valid if it has no
// bound: then it may be that of all clients, a trusted proxy's that did not say whom
// it stands before, for instance.
func (g *Gateway) boundOf(client netip.Addr) netip.Prefix {
	if g.trusts(client) {
		return netip.Prefix{}
	}
	return peerOf(client)
}

// enter takes a place for a request.
func (g *Gateway) enter(x *exchange) *failure {
	s := brief
	if x.match.Poll() {
		s = lasting
	}
	if g.limiter.take(&x.place, g.boundOf(x.client), s) {
		return nil
	}
	return tooMany(x.route)
}

// tooMany is the answer to a request for which there is no place.
func tooMany(r route) *failure {
	f := &failure{
		status: http.StatusTooManyRequests, code: codeLimitExceeded, message: "Too many requests at a time. Try again later.",
		retryAfter: limitPause, outcome: outcomeLimited,
	}
	if r == routeRefresh {
		f.status = http.StatusServiceUnavailable
		return f.asText()
	}
	return f
}
