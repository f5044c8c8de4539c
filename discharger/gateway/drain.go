package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// A long poll waits at the homeserver for up to minutes and changes nothing there,
// so a client repeats it with the same position and loses nothing. When the
// gateway is drained, long polls that the homeserver has not begun to answer are
// answered 503, and all other requests go on.

const (
	// drainSpread is the time over which long polls are ended, so that their
	// clients do not all come back at once.
	drainSpread = time.Second
	drainRetry  = time.Second // when a client may come back
)

// errPollEnded is why a long poll is cancelled.
var errPollEnded = errors.New("the gateway is shutting down")

// polls are the long polls under way.
type polls struct {
	mu      sync.Mutex
	drained bool
	all     map[*poll]struct{}
}

// poll is one of them. Nil: the request is none.
type poll struct {
	polls  *polls
	cancel context.CancelCauseFunc
	timer  *time.Timer // nil: the gateway is not drained
	ended  bool
}

// begin notes a long poll. Its context ends with errPollEnded when the gateway is
// drained, unless the poll has been stopped before.
func (p *polls) begin(ctx context.Context) (context.Context, *poll) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &poll{polls: p, cancel: cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drained {
		b.endIn(0)
		return ctx, b
	}
	if p.all == nil {
		p.all = make(map[*poll]struct{})
	}
	p.all[b] = struct{}{}
	return ctx, b
}

// drain ends all long polls that have not been stopped, within drainSpread.
func (p *polls) drain(jitter func() float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = true
	for b := range p.all {
		b.endIn(time.Duration(jitter() * float64(drainSpread)))
	}
	p.all = nil
}

// isDrained reports whether drain was called.
func (p *polls) isDrained() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drained
}

// endIn is called with the mutex held.
func (b *poll) endIn(d time.Duration) {
	b.timer = time.AfterFunc(d, func() {
		b.polls.mu.Lock()
		defer b.polls.mu.Unlock()
		if b.timer != nil {
			b.ended = true
			b.cancel(errPollEnded)
		}
	})
}

// stop lets a poll go on whatever happens: the homeserver answers it. It returns
// false if the poll has been ended.
func (b *poll) stop() bool {
	if b == nil {
		return true
	}
	b.polls.mu.Lock()
	defer b.polls.mu.Unlock()
	if b.ended {
		return false
	}
	delete(b.polls.all, b)
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	return true
}

// end is called when a poll has been answered.
func (b *poll) end() {
	b.stop()
	b.cancel(nil)
}

// drained is the answer to a long poll that was ended.
func drained() *failure {
	return &failure{
		status: http.StatusServiceUnavailable, code: codeUnknown, outcome: outcomeUnavailable, retryAfter: drainRetry,
		message: "The server is restarting. Try again.",
	}
}
