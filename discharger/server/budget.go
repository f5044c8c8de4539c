package server

import (
	"context"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger"
)

// budget is the context of a request: it ends when the client disconnects or at the
// deadline. Its timer starts when Done is first called: most requests end long before.
type budget struct {
	context.Context
	deadline time.Time
	seen     discharger.Observation // the core's answer, for the access line
	visit    visit

	mu     sync.Mutex
	timed  context.Context // with a timer; nil: Done was not called
	cancel context.CancelFunc
}

// newBudget returns a budget from now, by the clock of the kernel's timeouts.
func newBudget(ctx context.Context, d time.Duration) *budget {
	return &budget{Context: ctx, deadline: time.Now().Add(d)}
}

// Deadline returns the deadline.
func (b *budget) Deadline() (time.Time, bool) { return b.deadline, true }

// Done is closed when the request ends early.
func (b *budget) Done() <-chan struct{} { return b.withTimer().Done() }

// Err returns why the request has ended, or nil. After a call of Done, it agrees with
// the channel.
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

// Value returns the observation that [Metrics.Observe] fills in, and the visit.
func (b *budget) Value(key any) any {
	switch key {
	case seenKey{}:
		return &b.seen
	case visitKey{}:
		return &b.visit
	}
	return b.Context.Value(key)
}

// seenKey is the context key of the core's answer, for the access line.
type seenKey struct{}

func (b *budget) withTimer() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed == nil {
		b.timed, b.cancel = context.WithDeadline(b.Context, b.deadline)
	}
	return b.timed
}

// end frees the timer.
func (b *budget) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel()
	}
}
