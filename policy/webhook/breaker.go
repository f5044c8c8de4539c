package webhook

import (
	"errors"
	"sync"
	"time"
)

// A breaker stops asking a webhook that keeps failing. After breakerFailures
// failures in a row it refuses for a while, then lets one question through:
// an answer closes it, another failure doubles the while, up to a minute. The
// zero value is closed.
type breaker struct {
	mu       sync.Mutex
	failures int
	pause    time.Duration
	until    time.Time // when a question may go through again; zero: closed
	probing  bool
}

const (
	breakerFailures = 5
	breakerPause    = time.Second
	maxBreakerPause = time.Minute
)

var errBreaker = errors.New("it failed several times in a row and is left alone for a while")

// enter says whether a question may go out. Every nil is followed by a leave.
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

// How a question ended.
type ending int

const (
	answered ending = iota
	failed
	untold // the caller went away: it says nothing about the webhook
)

// leave reports how it went.
func (b *breaker) leave(now time.Time, how ending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	probe := b.probing
	b.probing = false
	switch how {
	case answered:
		b.failures, b.pause, b.until = 0, 0, time.Time{}
	case failed:
		b.failures++
		if probe || b.until.IsZero() && b.failures >= breakerFailures {
			b.pause = min(max(breakerPause, 2*b.pause), maxBreakerPause)
			b.until = now.Add(b.pause)
		}
	}
}
