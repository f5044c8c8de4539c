// Package simulate simulates sessions in mode rotate under the rules of the state
// machine and of other servers, to measure the cost of the rules to honest clients
// and to thieves.
//
// Each session has a server, a client and possibly a thief, with a simulated clock.
// The results depend only on the seed.
//
// The honest clients model real ones: tabs of a browser that share their storage and
// use IPv4 and IPv6; an app, which is suspended for hours, also in the middle of a
// refresh, and its extension with another client name; a client that refreshes ahead
// of time; a bot with one address; a phone that often changes its network. Requests
// and replies are lost, replies are late and out of order, clients crash before they
// have stored a reply, and the store fails over and loses its last seconds.
//
// A thief has copied the client's access macaroon and refresh token, and has another
// address. Its [Rhythm] is when it uses the copy.
//
// An end without a thief is wrongful, and counted by its [Situation].
package simulate

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"

	"github.com/discharger/discharger/discharger/session"
)

// Rates are the probabilities of faults.
type Rates struct {
	LostRequest float64 // of a request
	LostReply   float64 // of a reply
	LateReply   float64 // of a reply; it comes up to 45 s late
	Crash       float64 // of a client, with a reply that it has not stored
	Failover    float64 // of the store, within 2 s of a request; it loses up to 3 s
}

// Usual are the rates of the tests: one reply in twenty is lost, and a failover
// follows one request in a thousand, which is far more than any store has.
var Usual = Rates{LostRequest: 0.01, LostReply: 0.05, LateReply: 0.03, Crash: 0.005, Failover: 0.001}

// Times, in milliseconds.
const (
	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute

	start   = int64(1_790_000_000_000) // Unix ms
	ttl     = 5 * minute               // of a discharge
	timeout = 30 * second              // of a client's request
)

// world is one session with everything around it.
type world struct {
	rng    *rand.Rand
	rates  Rates
	now    int64
	queue  queue
	seq    uint64
	server Server
	saves  []save
	count  int  // requests
	unmade bool // a failover lost the activation
	over   bool // the server has ended the session
	hard   bool // with over: a hard end
	overAt int  // with over: refreshes of the owner until then
	client *client

	answered func(Answer) // called with each answer to the owner; nil: none
}

// save is the state of the server before a request.
type save struct {
	at      int64
	empty   bool // before the activation
	restore func()
}

func newWorld(rng *rand.Rand, rates Rates, server Server) *world {
	return &world{rng: rng, rates: rates, now: start, server: server}
}

// after schedules a call d milliseconds from now.
func (w *world) after(d int64, f func()) {
	w.seq++
	heap.Push(&w.queue, scheduled{at: w.now + max(d, 0), seq: w.seq, call: f})
}

// run runs scheduled calls until a time, or until stop returns true.
func (w *world) run(until int64, stop func() bool) {
	for len(w.queue) > 0 && !stop() {
		next := heap.Pop(&w.queue).(scheduled)
		if next.at > until {
			return
		}
		w.now = next.at
		next.call()
	}
}

// chance reports true with probability p.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between returns a number in [from, to).
func (w *world) between(from, to int64) int64 { return from + w.rng.Int64N(to-from) }

// present returns the server's answer to a request.
func (w *world) present(t session.Token, from session.Party, tag session.RequestTag) Answer {
	if len(w.saves) == maxSaves {
		w.saves = append(w.saves[:0], w.saves[1:]...)
	}
	w.saves = append(w.saves, save{w.now, w.count == 0, w.server.Save()})
	w.count++
	a := w.server.Present(t, Request{Now: w.now, From: from, Tag: tag})
	if a.Ended && !w.over {
		w.over, w.hard, w.overAt = true, a.Hard, w.client.started
	}
	if w.chance(w.rates.Failover) {
		w.after(w.between(0, 2*second), w.failover)
	}
	return a
}

// use schedules the use of the discharge issued with a token.
func (w *world) use(t session.Token) {
	w.after(w.between(50, 500), func() { w.server.Use(t, w.now) })
}

const maxSaves = 16

// failover sets the server back by up to three seconds.
func (w *world) failover() {
	lost := w.now - w.between(200, 3*second)
	for i, s := range w.saves {
		if s.at > lost {
			s.restore()
			w.saves = w.saves[:i]
			w.over, w.hard, w.unmade = false, false, w.unmade || s.empty
			return
		}
	}
}

// address returns a random address of IPv4 or IPv6.
func (w *world) address(six bool) netip.Addr {
	n := w.rng.Uint32()
	if six {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(n), byte(n >> 8), byte(n >> 16), 15: byte(n >> 24)})
	}
	return netip.AddrFrom4([4]byte{203, byte(n), byte(n >> 8), byte(n >> 16)})
}

// scheduled is a call at a time.
type scheduled struct {
	at   int64
	seq  uint64 // calls of one time run in the order of scheduling
	call func()
}

type queue []scheduled

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(scheduled)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
