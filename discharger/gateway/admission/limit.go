// Package admission bounds the requests that the gateway answers at a time.
//
//   - [Limiter] gives each request a place, brief or lasting, in all and per client
//     address.
//   - [WaitingRoom] bounds the requests that wait for the service. A waiting request
//     holds no place.
//   - [Leases] let one request at a time touch a device: a login that names it, or a
//     logout.
//   - [Polls] are the long polls in progress, which a shutdown answers.
//   - [Recorder] ends exchanges whose client neither sends nor reads.
//
// The package decides by count, address and time only: it reads no token and no body.
// Nothing in it is persistent.
package admission

import (
	"cmp"
	"net/netip"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// Limits bound the concurrent requests. Brief and lasting requests have bounds of their
// own. Lasting requests are long polls, and requests that take longer than two seconds,
// such as large files. Without room among the lasting ones, a request counts as brief.
//
// A request beyond a bound is answered at once with 429 M_LIMIT_EXCEEDED, since Matrix
// clients respect its delay; some repeat a 503 without a pause. The answer to /refresh
// is 503 as text: clients end the session at any JSON there.
type Limits struct {
	Requests           int // brief requests; 0: 4096
	RequestsPerAddress int // brief requests of one client address; 0: 256
	Lasting            int // lasting requests; 0: 65536
	LastingPerAddress  int // lasting requests of one client address; 0: 2048
}

// lastingAfter is the age from which on a brief request counts as lasting.
const lastingAfter = 2 * time.Second

// RetryAfter is the delay before a client repeats a request beyond the limits.
const RetryAfter = 5 * time.Second

// Span is the class of a request by its duration.
type Span uint8

// The spans.
const (
	Brief Span = iota
	Lasting
	spans
)

// Limiter counts the concurrent requests. An IPv6 address counts by its /64, and a /48
// has a quarter of all places.
//
// Private addresses have no bound of their own, and neither have trusted proxies that
// send no client address: all clients may be behind one of them.
type Limiter struct {
	now    func() time.Time
	limits [spans]struct{ all, peer int }

	mu    sync.Mutex
	all   [spans]int
	peers [spans]clientaddr.Tally
	brief Place // begin and end of the ring of brief ones, the oldest after it
}

// NewLimiter returns a limiter without requests.
func NewLimiter(l Limits, now func() time.Time) *Limiter {
	m := &Limiter{now: now, peers: [spans]clientaddr.Tally{{}, {}}}
	m.brief.before, m.brief.after = &m.brief, &m.brief
	m.limits[Brief].all, m.limits[Brief].peer = cmp.Or(max(l.Requests, 0), 4096), cmp.Or(max(l.RequestsPerAddress, 0), 256)
	m.limits[Lasting].all, m.limits[Lasting].peer = cmp.Or(max(l.Lasting, 0), 65536), cmp.Or(max(l.LastingPerAddress, 0), 2048)
	return m
}

// Place is one request's share of a [Limiter]. The zero value is unlimited.
type Place struct {
	limiter *Limiter     // nil: never taken
	peer    netip.Prefix // invalid: no bound of its own
	span    Span
	taken   bool
	since   time.Time

	before, after *Place // of brief ones
}

// Take takes a place for a request of a peer. A peer that is not valid has no bound of
// its own. Take reports whether there was a place.
func (m *Limiter) Take(p *Place, from netip.Prefix, s Span) bool {
	p.limiter, p.peer, p.span = m, from, s
	return p.Acquire()
}

// Peer returns the prefix under which an address counts. It is not valid for an
// address without a bound of its own.
func Peer(a netip.Addr) netip.Prefix {
	if a = a.Unmap(); a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() {
		return netip.Prefix{}
	}
	return clientaddr.Network(a)
}

// Acquire takes the place again after [Place.Release], without waiting. It reports
// whether the request has a place.
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
		p.before, p.after = m.brief.before, &m.brief
		p.before.after, m.brief.before = p, p
	}
	return true
}

// Release gives the place back, at the end of the request or while it waits for the
// service.
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
		p.unlink()
	}
}

func (m *Limiter) room(peer netip.Prefix, s Span) bool {
	l := m.limits[s]
	return m.all[s] < l.all && !m.peers[s].Full(peer, l.peer, max(l.peer, l.all/4))
}

func (m *Limiter) count(p *Place, n int) {
	m.all[p.span] += n
	m.peers[p.span].Add(p.peer, n)
}

// promote counts brief requests as lasting from lastingAfter on, if there is room.
func (m *Limiter) promote(now time.Time) {
	for p := m.brief.after; p != &m.brief && now.Sub(p.since) >= lastingAfter; {
		next := p.after
		if m.room(p.peer, Lasting) {
			p.unlink()
			m.count(p, -1)
			p.span = Lasting
			m.count(p, 1)
		}
		p = next
	}
}

// unlink removes a brief place from the ring.
func (p *Place) unlink() {
	p.before.after, p.after.before = p.after, p.before
	p.before, p.after = nil, nil
}

// Busy returns the number of taken places of a span.
func (m *Limiter) Busy(s Span) int {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.promote(now)
	return m.all[s]
}
