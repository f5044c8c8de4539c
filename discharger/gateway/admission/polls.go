package admission

import (
	"context"
	"errors"
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
	drainSpread    = time.Second
	PollRetryAfter = time.Second // when a client may come back
)

// ErrPollEnded is why a long poll is cancelled.
var ErrPollEnded = errors.New("the gateway is shutting down")

// Polls are the long polls under way.
type Polls struct {
	mu      sync.Mutex
	drained bool
	all     map[*Poll]struct{}
}

// Poll is one of them. Nil: the request is none.
type Poll struct {
	polls  *Polls
	cancel context.CancelCauseFunc
	timer  *time.Timer // nil: the gateway is not drained
	ended  bool
}

// Begin notes a long poll. Its context ends with errPollEnded when the gateway is
// drained, unless the poll has been stopped before.
func (p *Polls) Begin(ctx context.Context) (context.Context, *Poll) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &Poll{polls: p, cancel: cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drained {
		b.endIn(0)
		return ctx, b
	}
	if p.all == nil {
		p.all = make(map[*Poll]struct{})
	}
	p.all[b] = struct{}{}
	return ctx, b
}

// Drain ends all long polls that have not been stopped, within drainSpread.
func (p *Polls) Drain(jitter func() float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = true
	for b := range p.all {
		b.endIn(time.Duration(jitter() * float64(drainSpread)))
	}
	p.all = nil
}

// IsDrained reports whether drain was called.
func (p *Polls) IsDrained() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drained
}

// endIn is called with the mutex held.
func (b *Poll) endIn(d time.Duration) {
	b.timer = time.AfterFunc(d, func() {
		b.polls.mu.Lock()
		defer b.polls.mu.Unlock()
		if b.timer != nil {
			b.ended = true
			b.cancel(ErrPollEnded)
		}
	})
}

// Stop lets a poll go on whatever happens: the homeserver answers it. It returns
// false if the poll has been ended.
func (b *Poll) Stop() bool {
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

// End is called when a poll has been answered.
func (b *Poll) End() {
	b.Stop()
	b.cancel(nil)
}
