package secevent

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

const (
	// pollInterval bounds the time between two reads of a feed in which nothing is new.
	pollInterval = 5 * time.Second
	// readTimeout bounds one read of a feed.
	readTimeout = 10 * time.Second

	firstPause = time.Second     // before the first retry, on average
	maxPause   = 5 * time.Minute // of the growing pauses, on average
)

// A worker delivers the feed of one homeserver to its receiver.
type worker struct {
	cfg    *Config
	to     Receiver
	client *http.Client
	file   string // of the position

	pauses  pauses // between failed reads of the feed
	unsaved bool   // saving the position failed, and was logged
}

// pauses are those between retries: each about twice the one before, and not
// shorter than the receiver demands.
type pauses struct {
	backoff.ExponentialBackOff
	least time.Duration
}

func newPauses() pauses {
	return pauses{ExponentialBackOff: backoff.ExponentialBackOff{
		InitialInterval: firstPause, MaxInterval: maxPause, Multiplier: 2, RandomizationFactor: backoff.DefaultRandomizationFactor,
	}}
}

// NextBackOff returns the next pause.
func (p *pauses) NextBackOff() time.Duration { return max(p.ExponentialBackOff.NextBackOff(), p.least) }

// retry calls f until it returns nil or ctx ends. It calls notify before each pause.
func retry(ctx context.Context, p *pauses, f func() error, notify backoff.Notify) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, f() },
		backoff.WithBackOff(p), backoff.WithMaxElapsedTime(0), backoff.WithNotify(notify))
	return err
}

func (w *worker) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	w.cfg.Log.LogAttrs(ctx, level, message, append([]slog.Attr{slog.String("homeserver", w.to.Homeserver)}, attrs...)...)
}

// run follows the feed until ctx ends.
func (w *worker) run(ctx context.Context) {
	w.cfg.Metrics.begin(w.to.Homeserver)
	defer w.cfg.Metrics.end(w.to.Homeserver)
	w.pauses = newPauses()
	_ = retry(ctx, &w.pauses, func() error { return w.follow(ctx) }, func(err error, pause time.Duration) {
		w.log(ctx, slog.LevelError, "sending security events failed, retrying", slog.Any("error", err), slog.Duration("pause", pause))
	}) // the error of ctx
}

// follow delivers the entries of the feed, and new ones as they come, until a read
// fails or ctx ends.
func (w *worker) follow(ctx context.Context) error {
	after, err := w.loadPosition()
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		page, err := w.read(ctx, after)
		if err != nil {
			return err
		}
		w.pauses.Reset()
		if page.Gap && (first || after != "") {
			w.cfg.Metrics.inc(gaps, w.to.Homeserver)
			w.log(ctx, slog.LevelError, "feed has a gap, security events were not sent")
			if after != "" {
				after = ""
				w.checkpoint(ctx, after)
			}
		}
		for _, e := range page.Entries {
			if err := w.deliver(ctx, e); err != nil {
				return err
			}
			after = e.Position
			w.checkpoint(ctx, after)
		}
		if len(page.Entries) > 0 {
			continue
		}
		w.cfg.Metrics.waiting(w.to.Homeserver, time.Time{})
		if err := w.await(ctx, after); err != nil {
			return err
		}
	}
}

func (w *worker) read(ctx context.Context, after string) (store.FeedPage, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return w.cfg.Feed.ReadFeed(ctx, w.to.Homeserver, after)
}

// await blocks until the feed has new entries, for pollInterval at most.
func (w *worker) await(ctx context.Context, after string) error {
	poll, cancel := context.WithTimeout(ctx, pollInterval)
	defer cancel()
	err := w.cfg.Feed.AwaitFeed(poll, w.to.Homeserver, after)
	if ctx.Err() == nil && poll.Err() != nil {
		return nil
	}
	return err
}

// checkpoint saves the position of the last event done. If that fails, delivery
// goes on: the events are sent again after a restart.
func (w *worker) checkpoint(ctx context.Context, position string) {
	err := w.savePosition(position)
	if err != nil && !w.unsaved {
		w.log(ctx, slog.LevelError, "saving the position of security events failed", slog.Any("error", err))
	}
	w.unsaved = err != nil
}

// deliver sends one event until the receiver accepts or rejects it. It returns an
// error if ctx ends first or the token cannot be signed.
func (w *worker) deliver(ctx context.Context, entry store.FeedEntry) error {
	id := eventID(w.to.Homeserver, entry.Position)
	ended, err := revocation.ParseEvent(entry.Data)
	if err != nil {
		w.cfg.Metrics.inc(gaps, w.to.Homeserver)
		w.log(ctx, slog.LevelError, "malformed revocation in the feed, skipping", slog.String("position", entry.Position), slog.Any("error", err))
		return nil
	}
	w.cfg.Metrics.waiting(w.to.Homeserver, ended.At)
	token, err := w.sign(id, &ended, time.Now())
	if err != nil {
		return err
	}
	p := newPauses()
	attempt := 0
	return retry(ctx, &p, func() error {
		attempt++
		a := w.push(ctx, token)
		switch a.verdict {
		case accepted:
			w.cfg.Metrics.inc(delivered, w.to.Homeserver)
			return nil
		case rejected:
			w.cfg.Metrics.inc(refused, w.to.Homeserver)
			w.log(ctx, slog.LevelError, "security event rejected by receiver, skipping", slog.String("jti", id), slog.String("err", a.code))
			return nil
		}
		p.least = a.retryAfter
		return a.err
	}, func(err error, pause time.Duration) {
		w.cfg.Metrics.inc(failed, w.to.Homeserver)
		w.log(ctx, slog.LevelWarn, "security event delivery failed, retrying", slog.String("jti", id),
			slog.Int("attempt", attempt), slog.Any("error", err), slog.Duration("pause", pause))
	})
}
