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

// call is a call to the service that is repeated until it is decided, as long as
// requests wait for its result.
type call[T any] struct {
	done   chan struct{} // closed when value and err are set
	failed chan struct{} // closed when an attempt was not decided
	value  T
	err    error

	mu      sync.Mutex
	waiting int
	over    bool          // no request may join any more
	idle    chan struct{} // receives a value when the last request leaves
	last    error         // of the last undecided attempt; nil: none yet
}

func newCall[T any]() *call[T] {
	return &call[T]{done: make(chan struct{}), failed: make(chan struct{}), idle: make(chan struct{}, 1)}
}

// join adds a request to those that wait. It returns false if the call is over.
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
		signal(p.idle)
	}
}

// fail records an attempt that was not decided.
func (p *call[T]) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		close(p.failed)
	}
	p.last = err
}

// lastError returns the error of the last undecided attempt.
func (p *call[T]) lastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// abandoned reports whether no request waits. If so, the call is over.
func (p *call[T]) abandoned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = p.over || p.waiting == 0
	return p.over
}

// run makes attempts until one is decided or no request waits any more. Without a
// pause before it, the first attempt is made in any case. The caller closes done.
func (p *call[T]) run(l *Link, pause time.Duration, call func(context.Context) (T, error)) {
	for pauses := newPauses(firstRetryInterval, MaxRetryInterval); ; {
		away, nudged := l.signs()
		if pause > 0 && !p.rest(pause, away.Done(), nudged) {
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
		pause = pauseAfter(pauses, err)
	}
}

// attempt makes one attempt. When the feed connects, a repeated attempt that began
// before is cancelled, since its connection may be dead.
func (p *call[T]) attempt(l *Link, again bool, call func(context.Context) (T, error)) (T, error) {
	if !again {
		return call(context.Background())
	}
	l.retries <- struct{}{}
	defer func() { <-l.retries }()
	away, _ := l.signs()
	return call(away)
}

// rest blocks for a pause, or until the service is available again. It returns false
// when no request waits.
func (p *call[T]) rest(pause time.Duration, back, nudged <-chan struct{}) bool {
	end := time.After(pause)
	for !p.abandoned() {
		select {
		case <-end:
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

// waitingAfter is the duration from which on a request counts as waiting.
const waitingAfter = time.Second

var (
	errDrained = errors.New("the gateway is shutting down")
	errNoPlace = errors.New("too many concurrent requests")
)

// Waiter is a request that needs the result of a call to the service.
type Waiter struct {
	Peer  netip.Prefix
	Open  bool             // without a token
	Place *admission.Place // released while the request waits
	Known func() error     // returns a refusal that needs no call; nil: none
	Until time.Time        // the end of the wait
}

// await returns the result of a call that the caller has joined. The error is the
// call's or the waiter's refusal; without a result in time it is a
// *client.UnavailableError, or that of the last attempt.
func await[T any](ctx context.Context, g *Client, p *call[T], w Waiter) (result T, err error) {
	defer p.leave()
	select {
	case <-p.done:
		return p.value, p.err
	default:
	}
	s := stay{room: g.Waiting, waiter: w}
	defer func() { err = s.end(err) }()
	long := time.After(waitingAfter)
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
			end, err = time.After(left), s.begin()
		case <-long:
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

// busyRetry is the delay before a client repeats a request without room to wait.
const busyRetry = 5 * time.Second

// stay is one request's time in the waiting room.
type stay struct {
	room   *admission.WaitingRoom
	waiter Waiter
	exit   func() // nil: not in the room
}

// begin enters the room, unless the request is in it, and releases its place.
func (s *stay) begin() (err error) {
	if s.exit != nil {
		return nil
	}
	if s.exit, err = s.room.Enter(s.waiter.Peer, s.waiter.Open); err == nil {
		s.waiter.Place.Release()
	}
	return err
}

// end leaves the room. A request without an error takes a place again.
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

// Do makes a call for one exchange, and repeats it until it is decided or the waiter
// ends.
func Do[T any](ctx context.Context, g *Client, w Waiter, call func(context.Context) (T, error)) (T, error) {
	var alone flights[struct{}, T]
	return alone.await(ctx, g, w, struct{}{}, call)
}

// flights are the calls in progress by key. Concurrent requests of one key share a call.
type flights[K comparable, T any] struct {
	mu    sync.Mutex
	calls map[K]*call[T]
}

// await joins the call of a key, or starts one, and returns its result.
func (f *flights[K, T]) await(ctx context.Context, g *Client, w Waiter, key K, attempt func(context.Context) (T, error)) (T, error) {
	f.mu.Lock()
	p := f.calls[key]
	if p == nil || !p.join() {
		p = newCall[T]()
		p.join()
		if f.calls == nil {
			f.calls = make(map[K]*call[T])
		}
		f.calls[key] = p
		go func() {
			defer close(p.done)
			p.run(g.Link, 0, attempt)
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.calls[key] == p {
				delete(f.calls, key)
			}
		}()
	}
	f.mu.Unlock()
	return await(ctx, g, p, w)
}
