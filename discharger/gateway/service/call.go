package service

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
)

// While the service decides nothing, requests that need it wait: many clients
// repeat a refused request at once, and some end for good at the first answer that
// they do not expect. A pursuit repeats the call for all requests that need its
// result. The waiting room bounds them. A request that waits has no place among
// those in flight, and ends waiting when its session ends, its client leaves, or
// the gateway is drained.

// call is a call to the service that is repeated until it is decided, as long as
// requests wait for it.
type call[T any] struct {
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

func newCall[T any]() *call[T] {
	return &call[T]{done: make(chan struct{}), failed: make(chan struct{}), idle: make(chan struct{}, 1)}
}

// join adds a request to those that wait. It returns false if the pursuit is
// ending.
func (p *call[T]) join() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	p.waiting++
	return true
}

func (p *call[T]) leave() {
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
func (p *call[T]) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		close(p.failed)
	}
	p.last = err
}

// lastError returns the error of the latest call.
func (p *call[T]) lastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// abandoned reports whether no request waits. If so, the pursuit is over.
func (p *call[T]) abandoned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = p.over || p.waiting == 0
	return p.over
}

// run makes the call until it is decided or no request waits any more. The first
// call is made in any case, unless an earlier one has failed: then it comes after
// the pause. The caller closes done.
func (p *call[T]) run(l *Link, pause time.Duration, call func(context.Context) (T, error)) {
	for n := 0; ; n++ {
		back, nudged := l.signs()
		if pause > 0 && !p.rest(pause, back, nudged) {
			p.err = p.lastError()
			return
		}
		value, err := p.attempt(l, pause > 0, call)
		l.note(err)
		if !Undecided(err) {
			p.value, p.err = value, err
			return
		}
		p.fail(err)
		pause = l.pause(n, err)
	}
}

// attempt makes one call. When the feed connects, a repeated call that began
// before is cancelled: it may hang on a connection that is dead.
func (p *call[T]) attempt(l *Link, again bool, call func(context.Context) (T, error)) (T, error) {
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
func (p *call[T]) rest(pause time.Duration, back, nudged <-chan struct{}) bool {
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

// waitingAfter is the duration from which on a call counts as waiting.
const waitingAfter = time.Second

var (
	errDrained = errors.New("the gateway is shutting down")
	errNoPlace = errors.New("too many requests at a time")
)

// Waiter is a request that needs the result of a pursuit.
type Waiter struct {
	Peer  netip.Prefix
	Open  bool             // it has no token
	Place *admission.Place // among the requests in flight
	// known returns a refusal that is known without the service; nil: there is none.
	Known func() error
	Until time.Time // no longer than this
}

// await returns the result of a pursuit that the caller has joined. The error is
// the pursuit's or the waiter's refusal; without a result in time it is an
// *client.UnavailableError, or the last call's.
func await[T any](ctx context.Context, g *Client, p *call[T], w Waiter) (result T, err error) {
	defer p.leave()
	select {
	case <-p.done:
		return p.value, p.err
	default:
	}
	s := stay{room: g.Waiting, waiter: w}
	defer func() { err = s.end(err) }()
	long := time.NewTimer(waitingAfter)
	defer long.Stop()
	var end <-chan time.Time
	for failed := p.failed; ; {
		news := g.Link.endings()
		if w.Known != nil {
			if err := w.Known(); err != nil {
				return result, err
			}
		}
		select {
		case <-p.done:
			return p.value, p.err
		case <-failed:
			failed = nil
			left := time.Until(w.Until)
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
		case <-g.Waiting.Drained:
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
	room   *admission.WaitingRoom
	waiter Waiter
	exit   func() // nil: it is not in the room
}

// begin enters the room, unless that was done before, and gives the place among
// the requests in flight back.
func (s *stay) begin() (err error) {
	if s.exit != nil {
		return nil
	}
	if s.exit, err = s.room.Enter(s.waiter.Peer, s.waiter.Open); err == nil {
		s.waiter.Place.Release()
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
	if err == nil && !s.waiter.Place.Acquire() {
		return &client.UnavailableError{RetryAfter: busyRetry, Err: errNoPlace}
	}
	return err
}

// Do makes a call for one exchange until it is decided, and waits for that.
func Do[T any](ctx context.Context, g *Client, w Waiter, call func(context.Context) (T, error)) (T, error) {
	p := newCall[T]()
	p.join()
	go func() {
		defer close(p.done)
		p.run(g.Link, 0, call)
	}()
	return await(ctx, g, p, w)
}
