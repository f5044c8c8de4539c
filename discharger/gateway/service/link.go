package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// Link is the state of the connection to the service, as observed by calls and by the
// feed. It ends every pause when the service recovers: when the feed connects, or when
// a call is decided after an undecided one.
type Link struct {
	jitter func() float64
	clock  func() time.Time

	mu         sync.Mutex
	failing    bool            // a call was not decided, without a recovery since
	lost       time.Time       // when the feed lost its connection; zero: it has one
	attempts   int             // of the feed that failed since
	from, to   time.Time       // of the latest outage; to is zero while it lasts
	nudgedAt   time.Time       // the last recovery by a call
	away       context.Context // ends when the feed has connected
	back       context.CancelFunc
	nudged     chan struct{} // closed at a recovery by a call
	news       chan struct{} // closed when sessions may have ended
	recoveries uint64        // how often away and nudged have ended

	feedKick chan struct{} // ends the feed's pause
	retries  chan struct{} // holds a value for each repeated attempt in progress
}

// Intervals and bounds of retries.
const (
	firstRetryInterval = 250 * time.Millisecond
	MaxRetryInterval   = 2 * time.Second
	maxRetryAfter      = 10 * time.Second // bounds a Retry-After of the service
	nudgePause         = time.Second      // between two recoveries by calls
	FeedPause          = 15 * time.Second // between two attempts of the feed, at most
	feedLook           = time.Second      // between two checks of the calls in a pause of the feed
	maxRetries         = 128              // concurrent repeated attempts
	outageAttempts     = 2                // failed attempts of the feed that are an outage
)

func newLink(jitter func() float64, clock func() time.Time) *Link {
	l := &Link{
		jitter: jitter, clock: clock, nudged: make(chan struct{}), news: make(chan struct{}),
		feedKick: make(chan struct{}, 1), retries: make(chan struct{}, maxRetries),
	}
	l.away, l.back = context.WithCancel(context.Background())
	return l
}

// note records the result of a call.
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
	signal(l.feedKick)
}

// signal makes the next receive from a channel of capacity 1 return.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Disconnected records the end of an attempt of the feed. It reports whether that was
// the second in a row.
func (l *Link) Disconnected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost.IsZero() {
		l.lost = l.clock()
	}
	l.attempts++
	return l.attempts == outageAttempts
}

// Connected records that the feed is current. It returns the duration of the outage, if
// [Link.Disconnected] reported one.
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
	l.back()
	l.away, l.back = context.WithCancel(context.Background())
	return outage
}

// Changed wakes the requests that wait, since sessions may have ended.
func (l *Link) Changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.news)
	l.news = make(chan struct{})
}

// signs returns a context that ends when the feed connects, and a channel that is closed
// at the next recovery by a call.
func (l *Link) signs() (away context.Context, nudged <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.away, l.nudged
}

// endings returns the channel that is closed when sessions may have ended.
func (l *Link) endings() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

// Recovered returns the number of recoveries.
func (l *Link) Recovered() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recoveries
}

// RefreshGrace is how long after an outage an access token that expired during it is
// answered 503, so that its client can refresh.
const RefreshGrace = 10 * time.Second

// CouldNotRefresh reports whether an access token may have expired during an outage,
// and its client had no time to refresh since.
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

// newPauses returns the pauses between attempts, each up to twice the one before. Half
// of a pause is random.
func newPauses(first, longest time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: first * 3 / 4, MaxInterval: longest * 3 / 4, Multiplier: 2, RandomizationFactor: 1. / 3,
	}
}

// pauseAfter returns the next pause. It is no shorter than a Retry-After of up to
// maxRetryAfter.
func pauseAfter(pauses *backoff.ExponentialBackOff, err error) time.Duration {
	pause := pauses.NextBackOff()
	var unavailable *client.UnavailableError
	if errors.As(err, &unavailable) && unavailable.RetryAfter > pause {
		return min(unavailable.RetryAfter, maxRetryAfter) + pause/2
	}
	return pause
}

// WaitFeed blocks between two attempts of the feed, for a second at most while calls
// are not decided: the feed detects a recovery first.
func (l *Link) WaitFeed(ctx context.Context, d time.Duration) error {
	end, look := time.After(d), time.After(time.Duration((0.75+0.5*l.jitter())*float64(feedLook)))
	for {
		select {
		case <-end:
			return nil
		case <-l.feedKick:
			return nil
		case <-look:
			if l.isFailing() {
				return nil
			}
			look = time.After(feedLook)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Undecided reports whether a call to the service was not decided: the service is
// unavailable, its store or policy failed, or it rejects the gateway's keys.
func Undecided(err error) bool {
	var refused *client.RefusedError
	if errors.As(err, &refused) {
		return mistaken(refused)
	}
	return errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrBadRequest)
}

// mistaken reports whether a refusal concerns keys or configuration of the gateway, and
// not the session.
func mistaken(r *client.RefusedError) bool {
	return !r.Ended && (r.Reason == wire.ReasonTokenRequired || r.Reason == wire.ReasonHomeserverRequired)
}
