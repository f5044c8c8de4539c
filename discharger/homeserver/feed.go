package homeserver

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/api"
)

// FeedConfig is what a [Feed] is made from. Only Client is required.
type FeedConfig struct {
	// Client asks the service, with the homeserver's API key. What it follows
	// should be https unless the network is trusted: who sits in between
	// could keep revocations back, or make some up.
	Client *api.Client
	// OnEvent is called with every revocation, in order, when Revoked knows of
	// it already. The same one may come again, after a reconnection for
	// instance. While it runs nothing is read, so it should not take long.
	// Nil: nobody is told.
	OnEvent func(api.Revocation)
	// OnGap is called when the service cannot go on where it stopped, which
	// happens when it has lost data or too much time has gone by. All that it
	// still knows comes next. Nil: nobody is told; [Status] counts.
	OnGap func()
	// MaxSilence is for how long Verify goes on when nothing is heard of the
	// service. Afterwards, and until the feed is up to date for the first
	// time, it fails with ErrUndecided. 0: it always goes on.
	MaxSilence time.Duration
	// Leeway is that of [Config]: discharges live so much longer.
	Leeway time.Duration
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
	// Wait waits between two attempts to connect. Nil: for as long as it says,
	// or until the context ends.
	Wait func(context.Context, time.Duration) error
	// Jitter gives numbers from 0 up to 1 that spread homeservers over time.
	// Nil: math/rand/v2.
	Jitter func() float64
}

// Feed follows what is revoked, so that it is refused at once and not only when
// its last discharge runs out. It is a [Revocations] and a [Freshness]. [Feed.Run]
// has to run; everything else may be called concurrently with it.
//
// It remembers each revocation until no discharge of the sessions can be alive.
// A session takes about 50 bytes, a user about 200; see BenchmarkFeedMemory.
// Nothing is on disk: a feed that starts is told all that still matters, within
// a round trip.
//
// # When the service cannot be reached
//
// Verify goes on. What was revoked meanwhile is good until its discharge runs
// out, a few minutes usually, as it would be without a feed, and nothing is
// discharged again. Whoever would rather serve nobody than a revoked session
// sets MaxSilence: then Verify fails with [ErrUndecided], which a homeserver
// answers with 503 and never with 401. [Feed.Status] says how old the news are.
//
// # What it compares
//
// That all sessions of a user were revoked is compared with [Identity.Minted],
// which is by the clock of the homeserver that minted. If that is ahead of the
// service's, sessions minted that much before are only refused when their
// discharge has run out.
type Feed struct {
	cfg     FeedConfig
	known   memory
	running atomic.Bool
	heard   atomic.Int64 // when it was last known to be up to date, Unix ms; 0: never

	first chan struct{} // closed when it is up to date for the first time
	once  sync.Once

	mu       sync.Mutex
	position string // of the last event
	status   FeedStatus
}

// FeedStatus is how a feed is doing.
type FeedStatus struct {
	Connected bool      // there is a connection
	Current   bool      // and everything the service knows has been read from it
	Heard     time.Time // when the feed was last known to be current; zero: never

	// Silence is how long ago that is. Never below zero; without Heard it has
	// no meaning.
	Silence time.Duration

	Sessions, Users int       // remembered
	Events, Gaps    uint64    // received since the feed was made
	Last            time.Time // when the last event was received; zero: never
	Err             error     // why the last connection ended; nil: it has not
}

// NewFeed checks a configuration and makes a feed. It does not connect.
func NewFeed(cfg FeedConfig) (*Feed, error) {
	if cfg.Client == nil {
		return nil, errors.New("new feed: there is no client")
	}
	if cfg.MaxSilence < 0 || cfg.Leeway < 0 {
		return nil, errors.New("new feed: a duration is negative")
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(api.Revocation) {}
	}
	if cfg.OnGap == nil {
		cfg.OnGap = func() {}
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	if cfg.Jitter == nil {
		cfg.Jitter = mathrand.Float64
	}
	f := &Feed{cfg: cfg, first: make(chan struct{})}
	f.known.init(cfg.Clock())
	return f, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run follows the feed until ctx ends, and then returns nil. Whenever the
// connection ends it makes another, after a pause that doubles from a quarter of
// a second up to 15, and goes on where it stopped.
func (f *Feed) Run(ctx context.Context) error {
	if !f.running.CompareAndSwap(false, true) {
		return errors.New("run feed: it runs already")
	}
	defer f.running.Store(false)
	for failures := 0; ; failures++ {
		current := false
		err := f.cfg.Client.FollowRevocations(ctx, f.position, func(e api.FeedEvent) error {
			current = current || e.Kind == api.FeedCurrent
			f.take(e)
			return nil
		})
		f.disconnected(err)
		if ctx.Err() != nil {
			return nil
		}
		if current {
			failures = 0
		}
		if f.cfg.Wait(ctx, f.pause(failures, err)) != nil {
			return nil
		}
	}
}

// The pauses between connections.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 15 * time.Second
)

// pause is how long to wait after so many failures in a row: half of it fixed,
// half at random, and no less than the service asks for.
func (f *Feed) pause(failures int, err error) time.Duration {
	full := min(firstPause<<min(failures, 10), maxPause)
	spread := time.Duration(f.cfg.Jitter() * float64(full/2))
	var unavailable *api.UnavailableError
	if errors.As(err, &unavailable) && unavailable.RetryAfter > full/2 {
		return unavailable.RetryAfter + spread
	}
	return full/2 + spread
}

// take takes what comes. Only Run calls it. Whatever the status says was heard
// is known by then, and forgotten if it is over.
func (f *Feed) take(e api.FeedEvent) {
	now := f.cfg.Clock()
	if e.Kind == api.FeedRevocation {
		f.known.add(&e.Revocation, f.cfg.Leeway)
	}
	f.known.tidy(now)
	f.mu.Lock()
	f.status.Connected, f.status.Err = true, nil
	switch e.Kind {
	case api.FeedRevocation:
		f.status.Events++
		f.status.Last = now
		f.position = e.Position
	case api.FeedGap:
		f.status.Gaps++
		f.status.Current = false
	case api.FeedCurrent:
		f.status.Current = true
	}
	if f.status.Current {
		f.heard.Store(max(now.UnixMilli(), 1))
		f.once.Do(func() { close(f.first) })
	}
	f.mu.Unlock()
	switch e.Kind {
	case api.FeedRevocation:
		f.cfg.OnEvent(e.Revocation)
	case api.FeedGap:
		f.cfg.OnGap()
	}
}

func (f *Feed) disconnected(err error) {
	f.mu.Lock()
	f.status.Connected, f.status.Current, f.status.Err = false, false, err
	f.mu.Unlock()
	f.known.tidy(f.cfg.Clock())
}

// Revoked reports whether the feed has said that this session is over. It takes
// some tens of nanoseconds and allocates nothing.
func (f *Feed) Revoked(id Identity) bool { return f.known.revoked(&id) }

// Undecided returns an error if nothing has been heard for MaxSilence.
func (f *Feed) Undecided() error {
	if f.cfg.MaxSilence == 0 {
		return nil
	}
	heard := f.heard.Load()
	if heard == 0 {
		return errNeverCurrent
	}
	if f.cfg.Clock().UnixMilli()-heard > f.cfg.MaxSilence.Milliseconds() {
		return errSilence
	}
	return nil
}

var (
	errNeverCurrent = errors.New("it is not known yet what was revoked")
	errSilence      = errors.New("nothing has been heard for too long of what was revoked")
)

// WaitCurrent returns nil when the feed is up to date for the first time, and
// ctx's error if that ends before. A homeserver may call it before it serves.
func (f *Feed) WaitCurrent(ctx context.Context) error {
	select {
	case <-f.first:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status says how the feed is doing.
func (f *Feed) Status() FeedStatus {
	f.mu.Lock()
	s := f.status
	f.mu.Unlock()
	s.Sessions, s.Users = f.known.size()
	if heard := f.heard.Load(); heard > 0 {
		s.Heard = time.UnixMilli(heard).UTC()
		s.Silence = max(f.cfg.Clock().Sub(s.Heard), 0)
	}
	return s
}
