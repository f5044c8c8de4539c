package gateway

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/clientaddr"
)

// While the service decides nothing, requests that need it wait: many clients
// repeat a refused request at once, and some end for good at the first answer that
// they do not expect. A pursuit repeats the call for all requests that need its
// result. The waiting room bounds them. A request that waits has no place among
// those in flight, and ends waiting when its session ends, its client leaves, or
// the gateway is drained.

// pursuit is a call to the service that is repeated until it is decided, as long as
// requests wait for it.
type pursuit[T any] struct {
	done   chan struct{} // closed when value and err are set
	failed chan struct{} // closed when a call was not decided
	value  T
	err    error

	mu      sync.Mutex
	waiting int
	over    bool          // it ends, and no request may join
	idle    chan struct{} // receives a value when the last request leaves
	last    error         // of the latest call; nil: there was none yet that was not decided
}

func newPursuit[T any]() *pursuit[T] {
	return &pursuit[T]{done: make(chan struct{}), failed: make(chan struct{}), idle: make(chan struct{}, 1)}
}

// join adds a request to those that wait. It returns false if the pursuit is
// ending.
func (p *pursuit[T]) join() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	p.waiting++
	return true
}

func (p *pursuit[T]) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting--; p.waiting == 0 {
		select {
		case p.idle <- struct{}{}:
		default:
		}
	}
}

// fail notes a call that was not decided.
func (p *pursuit[T]) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		close(p.failed)
	}
	p.last = err
}

// lastError returns the error of the latest call.
func (p *pursuit[T]) lastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// abandoned reports whether no request waits. If so, the pursuit is over.
func (p *pursuit[T]) abandoned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = p.over || p.waiting == 0
	return p.over
}

// run makes the call until it is decided or no request waits any more. The first
// call is made in any case, unless an earlier one has failed: then it comes after
// the pause. The caller closes done.
func (p *pursuit[T]) run(l *link, pause time.Duration, call func(context.Context) (T, error)) {
	for n := 0; ; n++ {
		back, nudged := l.signs()
		if pause > 0 && !p.rest(pause, back, nudged) {
			p.err = p.lastError()
			return
		}
		value, err := p.attempt(l, pause > 0, call)
		l.note(err)
		if !isUndecided(err) {
			p.value, p.err = value, err
			return
		}
		p.fail(err)
		pause = l.pause(n, err)
	}
}

// attempt makes one call. When the feed connects, a repeated call that began
// before is cancelled: it may hang on a connection that is dead.
func (p *pursuit[T]) attempt(l *link, again bool, call func(context.Context) (T, error)) (T, error) {
	if !again {
		return call(context.Background())
	}
	l.retries <- struct{}{}
	defer func() { <-l.retries }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	back, _ := l.signs()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-back:
			cancel()
		case <-ended:
		}
	}()
	return call(ctx)
}

// rest waits for a pause, or a sign of the service. It returns false when no
// request waits.
func (p *pursuit[T]) rest(pause time.Duration, back, nudged <-chan struct{}) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for !p.abandoned() {
		select {
		case <-timer.C:
			return true
		case <-back:
			return true
		case <-nudged:
			return true
		case <-p.idle:
		}
	}
	return false
}

// The bounds of waiting.
const (
	maxWaiters       = 4096           // in all
	maxOpenWaiters   = maxWaiters / 2 // of them, without a token
	waitersPerClient = 256            // at one address
	waitersPerSite   = maxWaiters / 4 // at the addresses of one IPv6 /48
	waitingAfter     = time.Second    // a call that takes so long counts as waiting
)

var (
	errWaiters = errors.New("too many requests wait for the service")
	errDrained = errors.New("the gateway is shutting down")
	errNoPlace = errors.New("too many requests at a time")
)

// waitingRoom counts the requests that wait.
type waitingRoom struct {
	drained chan struct{} // closed by Drain

	mu      sync.Mutex
	all     int
	open    int // without a token
	clients map[netip.Prefix]int
}

func newWaitingRoom() *waitingRoom {
	return &waitingRoom{drained: make(chan struct{}), clients: make(map[netip.Prefix]int)}
}

// enter counts a request of a peer, which has no bound of its own if it is not
// valid, unless there are too many. The caller calls exit once.
func (w *waitingRoom) enter(peer netip.Prefix, open bool) (exit func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	site := clientaddr.Site(peer)
	switch {
	case w.all >= maxWaiters, open && w.open >= maxOpenWaiters:
		return nil, errWaiters
	case peer.IsValid() && w.clients[peer] >= waitersPerClient, site.IsValid() && w.clients[site] >= waitersPerSite:
		return nil, errWaiters
	}
	w.count(peer, open, 1)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.count(peer, open, -1)
	}, nil
}

func (w *waitingRoom) count(peer netip.Prefix, open bool, n int) {
	w.all += n
	if open {
		w.open += n
	}
	for _, counted := range [...]netip.Prefix{peer, clientaddr.Site(peer)} {
		if !counted.IsValid() {
			continue
		}
		if w.clients[counted] += n; w.clients[counted] == 0 {
			delete(w.clients, counted)
		}
	}
}

// size returns how many requests wait.
func (w *waitingRoom) size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}

// Drain answers the requests that wait for the service and the long polls, now and
// from now on, with 503. Others are not affected. It may be called more than once.
func (g *Gateway) Drain() {
	g.polls.drain(g.cfg.Jitter)
	g.room.mu.Lock()
	defer g.room.mu.Unlock()
	select {
	case <-g.room.drained:
	default:
		close(g.room.drained)
	}
}

// waiter is a request that needs the result of a pursuit.
type waiter struct {
	peer  netip.Prefix
	open  bool   // it has no token
	place *place // among the requests in flight
	// known returns a refusal that is known without the service; nil: there is none.
	known func() error
	until time.Time // no longer than this
}

// waiterFor makes the waiter of an exchange. All that one exchange waits is bounded
// together.
func (g *Gateway) waiterFor(x *exchange, known func() error) waiter {
	if x.waitUntil.IsZero() {
		x.waitUntil = time.Now().Add(g.cfg.patience.wait)
	}
	return waiter{peer: g.boundOf(x.client), place: &x.place, known: known, until: x.waitUntil}
}

// await returns the result of a pursuit that the caller has joined. The error is
// the pursuit's or the waiter's refusal; without a result in time it is an
// *client.UnavailableError, or the last call's.
func await[T any](ctx context.Context, g *Gateway, p *pursuit[T], w waiter) (result T, err error) {
	defer p.leave()
	select {
	case <-p.done:
		return p.value, p.err
	default:
	}
	s := stay{room: g.room, waiter: w}
	defer func() { err = s.end(err) }()
	long := time.NewTimer(waitingAfter)
	defer long.Stop()
	var end <-chan time.Time
	for failed := p.failed; ; {
		news := g.link.endings()
		if w.known != nil {
			if err := w.known(); err != nil {
				return result, err
			}
		}
		select {
		case <-p.done:
			return p.value, p.err
		case <-failed:
			failed = nil
			left := time.Until(w.until)
			if left <= 0 {
				return result, p.lastError()
			}
			timer := time.NewTimer(left)
			defer timer.Stop()
			end, err = timer.C, s.begin()
		case <-long.C:
			err = s.begin()
		case <-end:
			return result, p.lastError()
		case <-news:
		case <-g.room.drained:
			err = errDrained
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return result, &client.UnavailableError{RetryAfter: busyRetry, Err: err}
		}
	}
}

// busyRetry is when a request may be repeated that could not wait.
const busyRetry = 5 * time.Second

// stay is the time of one request in the waiting room.
type stay struct {
	room   *waitingRoom
	waiter waiter
	exit   func() // nil: it is not in the room
}

// begin enters the room, unless that was done before, and gives the place among
// the requests in flight back.
func (s *stay) begin() (err error) {
	if s.exit != nil {
		return nil
	}
	if s.exit, err = s.room.enter(s.waiter.peer, s.waiter.open); err == nil {
		s.waiter.place.release()
	}
	return err
}

// end leaves the room. A request that goes on takes a place again; err is why it
// does not.
func (s *stay) end(err error) error {
	if s.exit == nil {
		return err
	}
	s.exit()
	if err == nil && !s.waiter.place.acquire() {
		return &client.UnavailableError{RetryAfter: busyRetry, Err: errNoPlace}
	}
	return err
}

// pursue makes a call for one exchange until it is decided, and waits for that.
func pursue[T any](ctx context.Context, g *Gateway, w waiter, call func(context.Context) (T, error)) (T, error) {
	p := newPursuit[T]()
	p.join()
	go func() {
		defer close(p.done)
		p.run(g.link, 0, call)
	}()
	return await(ctx, g, p, w)
}
