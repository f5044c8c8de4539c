package admission

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// drainSpread is the time over which long polls are ended, so that their
	// clients do not all return at once.
	drainSpread = time.Second
	// PollRetryAfter is the delay before a client repeats an ended poll.
	PollRetryAfter = time.Second
)

// ErrPollEnded is the cause of a cancelled long poll.
var ErrPollEnded = errors.New("the gateway is shutting down")

// Polls are the long polls in progress. A long poll waits at the homeserver for up to
// minutes and changes nothing there, so a client repeats it with the same position and
// loses nothing. A drain ends the polls that the homeserver has not begun to answer,
// and no other request.
type Polls struct {
	mu      sync.Mutex
	drained bool
	all     map[*Poll]struct{}
}

// Poll is one long poll. Nil is a request that is not a long poll.
type Poll struct {
	polls  *Polls
	cancel context.CancelCauseFunc
	timer  *time.Timer // nil: not drained
	ended  bool
}

// Begin adds a long poll. A drain cancels its context with [ErrPollEnded], unless the
// poll was stopped before.
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

// IsDrained reports whether [Polls.Drain] was called.
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

// Stop excludes a poll from a drain, since the homeserver has begun to answer it. It
// returns false if the poll was ended.
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

// End removes a poll that has been answered.
func (b *Poll) End() {
	b.Stop()
	b.cancel(nil)
}
