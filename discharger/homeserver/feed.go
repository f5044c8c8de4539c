package homeserver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/revocation"
)

// FeedConfig configures a [Feed]. Only Client is required.
type FeedConfig struct {
	// Client is a client with the homeserver's API key. Its URL should be https
	// unless the network is trusted: a party in between could withhold revocations
	// or forge them.
	Client *client.Client
	// OnEvent is called with every revocation, in order, after Revoked reports
	// it. A revocation can be repeated, for instance after a reconnection. Nothing
	// is read while OnEvent runs, so it should return soon. After a hard end a
	// homeserver deletes the device that the revocation names, unless another
	// session has it; after a soft one it keeps the device. May be nil.
	OnEvent func(revocation.Event)
	// OnGap is called when the discharger cannot resume the feed, because it lost
	// data or the position is too old. All retained events follow. May be nil;
	// [FeedStatus] counts gaps.
	OnGap func()
	// OnCurrent is called when all events have been read from a new connection, or after
	// a gap: the discharger is reachable. Nothing is read while it runs. May be nil.
	OnCurrent func()
	// OnDisconnect is called when a connection has ended or could not be made, with
	// its error, before the pause that precedes the next one. [Feed.Reconnect] ends
	// that pause. May be nil.
	OnDisconnect func(error)
	// Log receives an error for each event that is malformed and skipped. Nil:
	// [FeedStatus] counts them.
	Log *slog.Logger
	// MaxSilence is how long Verify accepts bundles while the feed is not current.
	// Afterwards, and until the feed is current for the first time, Verify fails
	// with ErrUndecided. 0: without limit.
	MaxSilence time.Duration
	// Leeway is that of [Config], by which discharges live longer.
	Leeway time.Duration

	now  func() time.Time // set by WithClock; nil: time.Now
	wait func(context.Context, time.Duration) error
}

// WithClock returns a copy of the configuration in which now returns the time. It is
// for simulations, which turn time forward. Pauses are in real time.
func (c FeedConfig) WithClock(now func() time.Time) FeedConfig {
	c.now = now
	return c
}

// Feed follows the discharger's revocations, so that bundles are refused at once and
// not only when their discharge expires. It is a [Revocations], a [RevocationKinds]
// and a [Freshness]. [Feed.Run] has to run; all other methods are safe for concurrent
// use with it.
//
// It keeps each revocation until no discharge of the sessions can be alive. A session
// takes about 60 bytes, a user or a device about 250; see BenchmarkFeedMemory. Nothing
// is on disk: a new feed reads all revocations that still matter within a round trip.
//
// # When the discharger is unreachable
//
// Verify continues. A session that was revoked meanwhile is accepted until its
// discharge expires, a few minutes usually, as it would be without a feed, and gets no
// other. A homeserver that must not accept revoked sessions sets MaxSilence: then
// Verify fails with [ErrUndecided], which a homeserver answers with 503 and never with
// 401. [Feed.Status] reports how stale the feed is.
//
// # Clocks
//
// A revocation of more than one session is compared with [Identity.Minted], by the
// clock of the homeserver that minted. If that is ahead of the discharger's, sessions
// minted within the difference before the revocation are refused only when their
// discharge has expired.
type Feed struct {
	cfg     FeedConfig
	known   memory
	running atomic.Bool
	contact atomic.Int64 // when it was last current, Unix ms; 0: never

	first     chan struct{} // closed when it is current for the first time
	once      sync.Once
	reconnect chan struct{} // has an element if the pause is to end

	mu       sync.Mutex
	position string // of the last event
	status   FeedStatus
}

// FeedStatus is the state of a feed.
type FeedStatus struct {
	Connected   bool      // there is a connection
	Current     bool      // all events have been read from it
	LastContact time.Time // when the feed was last current; zero: never

	// Staleness is the time since LastContact, never below zero. Without
	// LastContact it is 0.
	Staleness time.Duration

	Sessions, Users int       // kept revocations; Users counts devices too
	Events, Gaps    uint64    // received since the feed was made
	Skipped         uint64    // malformed events, since the feed was made
	Last            time.Time // when the last event was received; zero: never
	Err             error     // why the last connection ended; nil: it has not
}

// NewFeed returns a feed. It does not connect.
func NewFeed(cfg FeedConfig) (*Feed, error) {
	if cfg.Client == nil {
		return nil, errors.New("new feed: no client")
	}
	if cfg.MaxSilence < 0 || cfg.Leeway < 0 {
		return nil, errors.New("new feed: duration is negative")
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(revocation.Event) {}
	}
	if cfg.OnGap == nil {
		cfg.OnGap = func() {}
	}
	if cfg.OnCurrent == nil {
		cfg.OnCurrent = func() {}
	}
	if cfg.OnDisconnect == nil {
		cfg.OnDisconnect = func(error) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	f := &Feed{cfg: cfg, first: make(chan struct{}), reconnect: make(chan struct{}, 1)}
	if f.cfg.wait == nil {
		f.cfg.wait = f.wait
	}
	f.known.init(cfg.now())
	return f, nil
}

// wait blocks for a duration, or until Reconnect.
func (f *Feed) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-f.reconnect:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reconnect ends the pause before the next connection. Without a pause it has no effect.
func (f *Feed) Reconnect() {
	select {
	case f.reconnect <- struct{}{}:
	default:
	}
}

// Run follows the feed until ctx ends, and then returns nil. When the connection ends
// it makes another, after a random pause of up to a quarter of a second, at first, and
// 15 seconds, and resumes at the last event.
func (f *Feed) Run(ctx context.Context) error {
	if !f.running.CompareAndSwap(false, true) {
		return errors.New("run feed: runs already")
	}
	defer f.running.Store(false)
	pauses := newPauses()
	for {
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
		select {
		case <-f.reconnect: // of a call before this pause
		default:
		}
		f.cfg.OnDisconnect(err)
		if current {
			pauses.Reset()
		}
		if f.cfg.wait(ctx, pause(pauses, err)) != nil {
			return nil
		}
	}
}

// The shortest and the longest pause between connections, in full. Half of a pause
// is random, so that homeservers do not reconnect at once.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 15 * time.Second
)

// newPauses returns pauses from firstPause to maxPause, of which half is random.
func newPauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: firstPause * 3 / 4, MaxInterval: maxPause * 3 / 4, Multiplier: 2, RandomizationFactor: 1. / 3,
	}
}

// pause returns the next pause, which is no shorter than the discharger requested.
func pause(b *backoff.ExponentialBackOff, err error) time.Duration {
	next := b.NextBackOff()
	var unavailable *client.UnavailableError
	if errors.As(err, &unavailable) && unavailable.RetryAfter > next {
		return unavailable.RetryAfter + next/2
	}
	return next
}

// take applies an event. Only Run calls it. The status counts an event after its
// revocation is known.
func (f *Feed) take(e client.FeedEvent) {
	now := f.cfg.now()
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
		f.contact.Store(max(now.UnixMilli(), 1))
		f.once.Do(func() { close(f.first) })
	}
	f.mu.Unlock()
	switch e.Kind {
	case client.FeedRevocation:
		f.cfg.OnEvent(e.Revocation)
	case client.FeedSkipped:
		f.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "malformed revocation in feed, skipping",
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
	f.known.tidy(f.cfg.now())
}

// Revoked reports whether the feed has revoked this session. It takes some tens of
// nanoseconds and allocates nothing.
func (f *Feed) Revoked(id Identity) bool {
	_, revoked := f.known.revoked(&id)
	return revoked
}

// RevokedKind is Revoked, and reports whether the end is soft. If more than one
// revocation covers the session, the end is that of the session's own event,
// otherwise of the oldest.
func (f *Feed) RevokedKind(id Identity) (soft, revoked bool) { return f.known.revoked(&id) }

// Undecided returns an error if the feed has not been current for MaxSilence.
func (f *Feed) Undecided() error {
	if f.cfg.MaxSilence == 0 {
		return nil
	}
	contact := f.contact.Load()
	if contact == 0 {
		return errNeverCurrent
	}
	if f.cfg.now().UnixMilli()-contact > f.cfg.MaxSilence.Milliseconds() {
		return errStale
	}
	return nil
}

var (
	errNeverCurrent = errors.New("revocation feed has not been read yet")
	errStale        = errors.New("revocation feed is out of date")
)

// WaitCurrent blocks until the feed is current for the first time, or returns ctx's
// error. A homeserver may call it before it serves.
func (f *Feed) WaitCurrent(ctx context.Context) error {
	select {
	case <-f.first:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status returns the state of the feed.
func (f *Feed) Status() FeedStatus {
	f.mu.Lock()
	s := f.status
	f.mu.Unlock()
	s.Sessions, s.Users = f.known.size()
	if contact := f.contact.Load(); contact > 0 {
		s.LastContact = time.UnixMilli(contact).UTC()
		s.Staleness = max(f.cfg.now().Sub(s.LastContact), 0)
	}
	return s
}
