package server

import (
	"context"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger"
)

// budget is the context of a request: it ends when the client has gone or the
// time is up. Most requests are done long before and are never asked, so a timer
// is started only for whoever waits for one.
type budget struct {
	context.Context
	deadline time.Time
	seen     discharger.Observation // what the access line is to say of the core's answer
	visit    visit

	mu     sync.Mutex
	timed  context.Context // with a timer; nil: nobody has asked
	cancel context.CancelFunc
}

// newBudget allows some time from now on, by the system's clock: the kernel's
// timeouts know no other.
func newBudget(ctx context.Context, d time.Duration) *budget {
	return &budget{Context: ctx, deadline: time.Now().Add(d)}
}

// Deadline is when the time is up.
func (b *budget) Deadline() (time.Time, bool) { return b.deadline, true }

// Done is closed when the request ends early.
func (b *budget) Done() <-chan struct{} { return b.withTimer().Done() }

// Err says why the request has ended, nil if it goes on. Once somebody waits, it
// agrees with what they are told.
func (b *budget) Err() error {
	b.mu.Lock()
	timed := b.timed
	b.mu.Unlock()
	if timed != nil {
		return timed.Err()
	}
	if err := b.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(b.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// AfterFunc spares a context that is made from this one a goroutine; see
// [context.AfterFunc].
func (b *budget) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(b.withTimer(), f)
}

// Value finds what [Metrics.Observe] notes the answer in, and the visit.
func (b *budget) Value(key any) any {
	switch key {
	case seenKey{}:
		return &b.seen
	case visitKey{}:
		return &b.visit
	}
	return b.Context.Value(key)
}

// seenKey finds in a request's context what its access line is to say of the
// core's answer.
type seenKey struct{}

func (b *budget) withTimer() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed == nil {
		b.timed, b.cancel = context.WithDeadline(b.Context, b.deadline)
	}
	return b.timed
}

// end frees the timer. Nobody may wait any more.
func (b *budget) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel()
	}
}
