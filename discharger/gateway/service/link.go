package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// Link is the way to the service, as calls and the feed find it. It wakes
// what waits for the service as soon as there is a sign that it decides again:
// the feed has connected, or a call was decided after others were not.
type Link struct {
	jitter func() float64
	clock  func() time.Time

	mu         sync.Mutex
	failing    bool          // a call was not decided, and none was taken for a sign since
	lost       time.Time     // when the feed lost its connection; zero: it has one
	attempts   int           // of the feed that failed since
	from, to   time.Time     // of the latest outage; to is zero while it lasts
	nudgedAt   time.Time     // when a call was last taken for a sign
	back       chan struct{} // closed when the feed has connected
	nudged     chan struct{} // closed when a call was decided after others were not
	news       chan struct{} // closed when sessions may have ended
	recoveries uint64        // how often back and nudged were closed

	feedKick chan struct{} // ends the feed's pause
	retries  chan struct{} // holds a value for each repeated call under way
}

const (
	firstRetryInterval = 250 * time.Millisecond
	MaxRetryInterval   = 2 * time.Second
	maxRetryAfter      = 10 * time.Second // as long as the service is left alone
	nudgePause         = time.Second      // between two calls that are taken for a sign
	FeedPause          = 15 * time.Second // between two attempts of the feed, at most
	feedLook           = time.Second      // between two looks of a pausing feed at the calls
	maxRetries         = 128              // repeated calls at once
	outageAttempts     = 2                // failed attempts of the feed that are an outage
)

func newLink(jitter func() float64, clock func() time.Time) *Link {
	return &Link{
		jitter: jitter, clock: clock, back: make(chan struct{}), nudged: make(chan struct{}), news: make(chan struct{}),
		feedKick: make(chan struct{}, 1), retries: make(chan struct{}, maxRetries),
	}
}

// note takes the result of a call for a sign of how the service is.
func (l *Link) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if Undecided(err) {
		if !l.failing {
			l.failing, l.from, l.to = true, l.clock(), time.Time{}
		}
		return
	}
	if !l.failing || time.Since(l.nudgedAt) < nudgePause {
		return
	}
	l.failing, l.nudgedAt, l.to = false, time.Now(), l.clock()
	l.recoveries++
	close(l.nudged)
	l.nudged = make(chan struct{})
	select {
	case l.feedKick <- struct{}{}:
	default:
	}
}

// Disconnected is called when an attempt of the feed has ended. It reports whether
// that was the second in a row.
func (l *Link) Disconnected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost.IsZero() {
		l.lost = l.clock()
	}
	l.attempts++
	return l.attempts == outageAttempts
}

// Connected is called when the feed has become current. It returns how long there
// was no connection, if disconnected reported that.
func (l *Link) Connected() (outage time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.attempts >= outageAttempts {
		outage = l.clock().Sub(l.lost)
	}
	l.attempts = 0
	if !l.lost.IsZero() {
		if l.to = l.clock(); !l.failing || l.lost.Before(l.from) {
			l.from = l.lost
		}
		l.lost = time.Time{}
	}
	l.failing = false
	l.recoveries++
	close(l.back)
	l.back = make(chan struct{})
	return outage
}

// Changed is called when sessions may have ended.
func (l *Link) Changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.news)
	l.news = make(chan struct{})
}

// signs returns the channels that are closed at the next sign of the service.
func (l *Link) signs() (back, nudged <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.back, l.nudged
}

// endings returns the channel that is closed when sessions may have ended.
func (l *Link) endings() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

// Recovered returns how often the service was found to decide again.
func (l *Link) Recovered() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recoveries
}

// RefreshGrace is for how long after an outage an access token that ran out during it
// is not called expired: its holder is about to refresh.
const RefreshGrace = 10 * time.Second

// CouldNotRefresh reports whether the holder of an access token that has run out
// may have had no chance to refresh it.
func (l *Link) CouldNotRefresh(ranOut time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failing || !l.to.IsZero() && l.clock().Sub(l.to) < RefreshGrace && !ranOut.Before(l.from)
}

func (l *Link) isFailing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failing
}

// pause returns how long to wait after so many calls in a row that were not
// decided: half of it fixed, half at random, and no less than the service asks
// for, within bounds.
func (l *Link) pause(n int, err error) time.Duration {
	full := min(firstRetryInterval<<min(n, 10), MaxRetryInterval)
	spread := time.Duration(l.jitter() * float64(full/2))
	var unavailable *client.UnavailableError
	if errors.As(err, &unavailable) && unavailable.RetryAfter > full/2 {
		return min(unavailable.RetryAfter, maxRetryAfter) + spread
	}
	return full/2 + spread
}

// WaitFeed waits between two attempts of the feed to connect. While calls are not
// decided, it waits a second at most: the feed finds out first that the service is
// back.
func (l *Link) WaitFeed(ctx context.Context, d time.Duration) error {
	end := time.NewTimer(d)
	defer end.Stop()
	look := time.NewTimer(time.Duration((0.75 + 0.5*l.jitter()) * float64(feedLook)))
	defer look.Stop()
	for {
		select {
		case <-end.C:
			return nil
		case <-l.feedKick:
			return nil
		case <-look.C:
			if l.isFailing() {
				return nil
			}
			look.Reset(feedLook)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Undecided reports whether a call to the service was not decided, and may be in a
// moment: the service could not be reached, its store or policy failed, or it does
// not accept the gateway's keys.
func Undecided(err error) bool {
	var refused *client.RefusedError
	if errors.As(err, &refused) {
		return mistaken(refused)
	}
	return errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrBadRequest)
}

// mistaken reports whether a refusal is about the gateway and not about the
// session: its keys or its configuration are wrong.
func mistaken(r *client.RefusedError) bool {
	return !r.Ended && (r.Reason == wire.ReasonTokenRequired || r.Reason == wire.ReasonHomeserverRequired)
}
