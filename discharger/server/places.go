package server

import (
	"cmp"
	"fmt"
	"sync"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/clientaddr"
)

// Limits bound the concurrent requests. A request over a limit is answered 503, and
// its body is not read.
//
// A request counts for its address from its headers to its answer. It takes one of
// the places when its body has arrived, so that a client that never sends its body
// holds none.
type Limits struct {
	// InFlight is the greatest number of requests in process, of bodies of clients
	// being read, and of bodies of homeservers being read. A quarter of the places is
	// reserved for requests with an API key. 0: 4096.
	InFlight int

	// PerAddress is the greatest number of requests of one address, an IPv6 /64,
	// without an API key. An IPv6 /48 may have a quarter of InFlight, or PerAddress if
	// that is more. Requests over Unix sockets are not counted. 0: 256.
	PerAddress int
}

// largeBodies is the greatest number of bodies of more than maxBody bytes in memory.
// Only homeservers send them.
const largeBodies = 64

// limit is one of the limits, for metrics.
type limit string

const (
	limitAddress limit = "per_address"
	limitReading limit = "reading"
	limitPlaces  limit = "in_flight"
)

// overLimit is the error of a request over a limit.
type overLimit struct{ limit limit }

func (e *overLimit) Error() string { return fmt.Sprintf("%v: limit %s", e.Unwrap(), e.limit) }

// Unwrap returns discharger.ErrUnavailable: the request is undecided.
func (e *overLimit) Unwrap() error { return discharger.ErrUnavailable }

// places counts the concurrent requests.
type places struct {
	Limits

	mu      sync.Mutex
	address clientaddr.Tally // requests in progress
	reading [2]int           // bodies of clients, and of homeservers
	taken   [2]int           // places, likewise
	large   int              // large bodies
}

func newPlaces(l Limits) *places {
	l.InFlight = cmp.Or(l.InFlight, 4096)
	l.PerAddress = cmp.Or(l.PerAddress, 256)
	return &places{Limits: l, address: make(clientaddr.Tally)}
}

// arrive counts a request for its address. Without an error, the request must call leave.
func (p *places) arrive(v *visit) error {
	if v.homeserver != "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address.Full(v.network, p.PerAddress, max(p.PerAddress, p.InFlight/4)) {
		return &overLimit{limitAddress}
	}
	p.address.Add(v.network, 1)
	return nil
}

// leave undoes arrive and grow.
func (p *places) leave(v *visit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.large {
		p.large--
	}
	if v.homeserver == "" {
		p.address.Add(v.network, -1)
	}
}

// read counts a body that is being read. Without an error, the request must call done.
func (p *places) read(v *visit) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reading[v.kind()] >= p.InFlight {
		return &overLimit{limitReading}
	}
	p.reading[v.kind()]++
	return nil
}

// grow counts a body that is larger than most, until the request leaves.
func (p *places) grow(v *visit) error {
	if v.large {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.large >= largeBodies {
		return &overLimit{limitReading}
	}
	p.large++
	v.large = true
	return nil
}

// take gives a request a place, until it calls done.
func (p *places) take(v *visit) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients, homeservers := p.taken[0], p.taken[1]
	if clients+homeservers >= p.InFlight || v.homeserver == "" && clients >= p.InFlight-p.InFlight/4 {
		return &overLimit{limitPlaces}
	}
	p.taken[v.kind()]++
	return nil
}

// done ends the reading or processing of a request in counts, of reading or taken.
func (p *places) done(counts *[2]int, v *visit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts[v.kind()]--
}
