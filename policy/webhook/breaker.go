package webhook

import (
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// A breaker stops calls to a webhook that keeps failing. breakerFailures failures in
// a row open it for a pause; then one call goes through. An answer closes the
// breaker, another failure opens it for a longer pause.
type breaker struct {
	mu       sync.Mutex
	pauses   *backoff.ExponentialBackOff
	failures int
	until    time.Time // end of the pause; zero: closed
	probing  bool      // a call is under way after a pause
}

const breakerFailures = 5

var errBreaker = errors.New("paused after repeated failures")

// newBreaker returns a closed breaker with pauses of about a second to about a minute.
func newBreaker() *breaker {
	b := &breaker{pauses: &backoff.ExponentialBackOff{
		InitialInterval: time.Second, Multiplier: 2, MaxInterval: time.Minute, RandomizationFactor: 1. / 4,
	}}
	b.pauses.Reset()
	return b
}

// enter returns errBreaker while the breaker is open. Each nil requires a call of leave.
func (b *breaker) enter(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return nil
	}
	if b.probing || now.Before(b.until) {
		return errBreaker
	}
	b.probing = true
	return nil
}

// result is how a call ended.
type result int

const (
	answered  result = iota
	failed           // no answer, or an unreadable one
	abandoned        // the caller's context ended; the webhook's state is unknown
)

// leave records the result of a call.
func (b *breaker) leave(now time.Time, r result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	probe := b.probing
	b.probing = false
	switch r {
	case answered:
		b.failures, b.until = 0, time.Time{}
		b.pauses.Reset()
	case failed:
		b.failures++
		if probe || b.until.IsZero() && b.failures >= breakerFailures {
			b.until = now.Add(b.pauses.NextBackOff())
		}
	}
}
