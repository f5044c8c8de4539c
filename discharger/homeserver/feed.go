package homeserver

import (
	"context"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// FeedConfig is what a [Feed] is made from. Only Client is required.
type FeedConfig struct {
	// Client follows the service, with the homeserver's API key. Its URL should
	// be https unless the network is trusted: a party in between could withhold
	// revocations or forge them.
	Client *client.Client
	// OnEvent is called with every revocation, in order, after Revoked reports
	// it. One revocation may come twice, for instance after a reconnection.
	// Nothing is read while it runs, so it should not take long.
	// After a hard end a homeserver deletes the device that it names, unless
	// another session has it, and after a soft one it leaves the device. Nil:
	// nothing is called.
	OnEvent func(wire.Revocation)
	// OnGap is called when the service cannot resume, because it lost data or
	// the position is too old. All retained events come next. Nil: nothing is
	// called; [FeedStatus] counts.
	OnGap func()
	// OnCurrent is called when all events have been read from a new connection,
	// or after a gap: the service can be reached. Nothing is read while it runs.
	// Nil: nothing is called.
	OnCurrent func()
	// Log is where an event is reported that cannot be understood and is
	// skipped. Nil: it is counted in [FeedStatus] only.
	Log *slog.Logger
	// MaxSilence is for how long Verify accepts bundles while the feed is not
	// up to date. Afterwards, and until the feed is up to date for the first
	// time, it fails with ErrUndecided. 0: without limit.
	MaxSilence time.Duration
	// Leeway is that of [Config]: discharges live so much longer.
	Leeway time.Duration
	// Clock returns the time. Nil: time.Now.
	Clock func() time.Time
	// Wait waits between two attempts to connect. Nil: for the duration, or
	// until the context ends.
	Wait func(context.Context, time.Duration) error
	// Jitter returns numbers from 0 up to 1 that spread homeservers over time.
	// Nil: math/rand/v2.
	Jitter func() float64
}

// Feed follows what is revoked, so that it is refused at once and not only when
// its last discharge runs out. It is a [Revocations], a [RevocationKinds] and a
// [Freshness]. [Feed.Run] has to run; everything else may be called concurrently
// with it.
//
// It remembers each revocation until no discharge of the sessions can be alive.
// A session takes about 60 bytes, a user or a device about 250; see
// BenchmarkFeedMemory.
// Nothing is on disk: a feed that starts reads all revocations that still matter
// within a round trip.
//
// # When the service cannot be reached
//
// Verify goes on. A session that was revoked meanwhile is accepted until its
// discharge expires, a few minutes usually, as it would be without a feed, and
// gets no other. A homeserver that must not accept revoked sessions sets
// MaxSilence: then Verify fails with [ErrUndecided], which a homeserver answers
// with 503 and never with 401. [Feed.Status] reports how stale the feed is.
//
// # What it compares
//
// A revocation of more than one session is compared with [Identity.Minted],
// which is by the clock of the homeserver that minted. If that is ahead of the
// service's, sessions minted that much before are only refused when their
// discharge has expired.
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
	Current   bool      // and all events have been read from it
	Heard     time.Time // when the feed was last known to be current; zero: never

	// Silence is how long ago that is. Never below zero; without Heard it has
	// no meaning.
	Silence time.Duration

	Sessions, Users int       // remembered; Users counts their devices too
	Events, Gaps    uint64    // received since the feed was made
	Skipped         uint64    // events that could not be understood, since the feed was made
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
		cfg.OnEvent = func(wire.Revocation) {}
	}
	if cfg.OnGap == nil {
		cfg.OnGap = func() {}
	}
	if cfg.OnCurrent == nil {
		cfg.OnCurrent = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
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
		err := f.cfg.Client.FollowRevocations(ctx, f.position, func(e client.FeedEvent) error {
			current = current || e.Kind == client.FeedCurrent
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
	var unavailable *client.UnavailableError
	if errors.As(err, &unavailable) && unavailable.RetryAfter > full/2 {
		return unavailable.RetryAfter + spread
	}
	return full/2 + spread
}

// take applies an event. Only Run calls it. The status counts an event after it
// is remembered.
func (f *Feed) take(e client.FeedEvent) {
	now := f.cfg.Clock()
	if e.Kind == client.FeedRevocation {
		f.known.add(&e.Revocation, f.cfg.Leeway)
	}
	f.known.tidy(now)
	f.mu.Lock()
	f.status.Connected, f.status.Err = true, nil
	before := f.status.Current
	switch e.Kind {
	case client.FeedRevocation:
		f.status.Events++
		f.status.Last = now
		f.position = e.Position
	case client.FeedSkipped:
		f.status.Skipped++
		f.position = e.Position
	case client.FeedGap:
		f.status.Gaps++
		f.status.Current = false
	case client.FeedCurrent:
		f.status.Current = true
	}
	if f.status.Current {
		f.heard.Store(max(now.UnixMilli(), 1))
		f.once.Do(func() { close(f.first) })
	}
	f.mu.Unlock()
	switch e.Kind {
	case client.FeedRevocation:
		f.cfg.OnEvent(e.Revocation)
	case client.FeedSkipped:
		f.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "revocation in the feed cannot be understood, skipping",
			slog.String("position", e.Position), slog.Any("error", e.Err))
	case client.FeedGap:
		f.cfg.OnGap()
	case client.FeedCurrent:
		if !before {
			f.cfg.OnCurrent()
		}
	}
}

func (f *Feed) disconnected(err error) {
	f.mu.Lock()
	f.status.Connected, f.status.Current, f.status.Err = false, false, err
	f.mu.Unlock()
	f.known.tidy(f.cfg.Clock())
}

// Revoked reports whether the feed contained the end of this session. It takes
// some tens of nanoseconds and allocates nothing.
func (f *Feed) Revoked(id Identity) bool {
	_, revoked := f.known.revoked(&id)
	return revoked
}

// RevokedKind reports the same, and whether the end is soft. If more than one
// revocation covers the session, the end is that of the session's own event,
// otherwise of the oldest.
func (f *Feed) RevokedKind(id Identity) (soft, revoked bool) { return f.known.revoked(&id) }

// Undecided returns an error if the feed has not been up to date for MaxSilence.
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
	errNeverCurrent = errors.New("revocations have not been read yet")
	errSilence      = errors.New("revocations have not been read for too long")
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

// Status reports how stale the feed is, and what it remembers.
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
